// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build aix || dragonfly || freebsd || netbsd || openbsd

package sys

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/unix"
)

// What BSD and AIX have in common for IPv4: a message for each fact. What they
// do not is in recvTOS, recvIF, controlTime and append4 of each.

// haveIPv4OptionsOnIPv6: an IPv6 socket takes IPv6's options only, and gives of
// an IPv4 datagram what these can say (FreeBSD, ip6_savecontrol_v4).
const haveIPv4OptionsOnIPv6 = false

// noMessage is the type of a message that there is not.
const noMessage = -1

var controlOptions = append(append(controlOptions6,
	controlOption{ControlLocal | ControlDst, levelIPv4, unix.IPPROTO_IP, unix.IP_RECVDSTADDR, 0},
	controlOption{ControlInterface, levelIPv4, unix.IPPROTO_IP, recvIF, 0},
	controlOption{ControlTTL, levelIPv4, unix.IPPROTO_IP, unix.IP_RECVTTL, 0},
), moreControlOptions...)

// take reads one message. Those of IPv4 have the type of the option that asks
// for them.
func (c *Control) take(level, typ int, data []byte) bool {
	switch level {
	case unix.IPPROTO_IP:
		return c.take4(typ, data)
	case unix.IPPROTO_IPV6:
		return c.take6(typ, data)
	case unix.SOL_SOCKET:
		return c.takeTimestamp(typ, data)
	}
	return true
}

func (c *Control) take4(typ int, data []byte) bool {
	switch typ {
	case unix.IP_RECVDSTADDR:
		if len(data) < 4 {
			return false
		}
		c.takeDst(netip.AddrFrom4([4]byte(data)), true)
	case recvIF: // struct sockaddr_dl: length, family, index
		if len(data) < 4 {
			return false
		}
		c.takeInterface(uint32(binary.NativeEndian.Uint16(data[2:])), true)
	case unix.IP_RECVTTL:
		return c.takeTTL(data, true)
	case recvTOS:
		return c.takeTOS(data, true)
	}
	return true
}

// Append writes the messages for a datagram to an address of a family. On an
// IPv6 socket too, what goes to an IPv4 address is sent by IPv4's code, which
// reads IPv4's messages.
func (c *Control) Append(b []byte, isIPv4 bool) []byte {
	if isIPv4 {
		return c.append4(b)
	}
	return c.append6(b)
}
