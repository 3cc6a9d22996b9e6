// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import "golang.org/x/sys/unix"

// Append writes the messages for a datagram to an address of a family.
func (c *Control) Append(b []byte, isIPv4 bool) []byte {
	if !isIPv4 {
		return c.append6(b)
	}
	b = appendPacketInfo4(b, unix.IP_PKTINFO, c.source(true), c.device())
	if c.Fields&ControlTOS != 0 {
		b = appendInt32(b, unix.IPPROTO_IP, unix.IP_TOS, c.TOS)
	}
	return b
}
