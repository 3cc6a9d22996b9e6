// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build dragonfly || freebsd || openbsd

package sys

import "golang.org/x/sys/unix"

// appendSource4 writes IP_SENDSRCADDR, which has the number of IP_RECVDSTADDR.
func (c *Control) appendSource4(b []byte) []byte {
	source := c.source(true)
	if !source.IsValid() {
		return b
	}
	b, data := AppendControl(b, unix.IPPROTO_IP, unix.IP_RECVDSTADDR, 4)
	a := source.As4()
	copy(data, a[:])
	return b
}
