// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import "golang.org/x/sys/unix"

// Append writes the messages for a datagram to an address of a family. On an
// IPv6 socket too, what goes to an IPv4 address is sent by IPv4's code, which
// reads IPv4's messages.
func (c *Control) Append(b []byte, isIPv4 bool) []byte {
	if !isIPv4 {
		return c.append6(b)
	}
	source, device := c.source(true), c.device()
	if source.IsValid() {
		device = 0 // with an interface the address is passed over (udp_check_pktinfo)
	}
	b = appendPacketInfo4(b, unix.IP_PKTINFO, source, device)
	if c.Fields&ControlTOS != 0 {
		b = appendInt32(b, unix.IPPROTO_IP, unix.IP_TOS, c.TOS)
	}
	return b
}
