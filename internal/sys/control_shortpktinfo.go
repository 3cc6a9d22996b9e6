// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build netbsd || windows

package sys

import "encoding/binary"

// appendShortPacketInfo writes the struct in_pktinfo of NetBSD and Windows, if
// it says anything: an address and the interface, without Linux's ipi_spec_dst.
func (c *Control) appendShortPacketInfo(b []byte, typ int) []byte {
	source := c.source(true)
	if !source.IsValid() && c.device() == 0 {
		return b
	}
	b, data := AppendControl(b, levelIPv4, typ, 8)
	if source.IsValid() {
		a := source.As4()
		copy(data, a[:])
	}
	binary.NativeEndian.PutUint32(data[4:], c.device())
	return b
}
