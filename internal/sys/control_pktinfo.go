// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build darwin || solaris

package sys

import "golang.org/x/sys/unix"

// haveIPv4OptionsOnIPv6: an IPv6 socket takes IPv6's options only, and gives of
// an IPv4 datagram what these can say (macOS, ip6_savecontrol_v4).
const haveIPv4OptionsOnIPv6 = false

var controlOptions = append(controlOptions6,
	controlOption{packetInfo, levelIPv4, unix.IPPROTO_IP, unix.IP_RECVPKTINFO, 0},
	controlOption{ControlTOS, levelIPv4, unix.IPPROTO_IP, unix.IP_RECVTOS, 0},
	controlOption{ControlTTL, levelIPv4, unix.IPPROTO_IP, unix.IP_RECVTTL, 0},
	timestampOption,
)

// take reads one message.
func (c *Control) take(level, typ int, data []byte) bool {
	switch level {
	case unix.IPPROTO_IP:
		switch typ {
		case unix.IP_PKTINFO:
			return c.takePacketInfo4(data)
		case unix.IP_RECVTOS: // one byte
			return c.takeTOS(data, true)
		case unix.IP_RECVTTL: // one byte
			return c.takeTTL(data, true)
		}
	case unix.IPPROTO_IPV6:
		return c.take6(typ, data)
	case unix.SOL_SOCKET:
		return c.takeTimestamp(typ, data)
	}
	return true
}
