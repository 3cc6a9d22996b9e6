// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"encoding/binary"
	"net/netip"

	"golang.org/x/sys/windows"
)

const optionV6Only = windows.IPV6_V6ONLY

// haveIPv4OptionsOnIPv6: a dual-stack socket takes IPv4's options too.
const haveIPv4OptionsOnIPv6 = true

// Of ws2ipdef.h, which x/sys has few of. Where no level is named both have it.
const (
	hopLimit     = 21 // IP_RECVTTL, IP_HOPLIMIT, IPV6_HOPLIMIT
	trafficClass = 39 // IPV6_TCLASS
	recvTOS      = 40 // IP_RECVTOS, IPV6_RECVTCLASS
	ecn          = 50 // IP_ECN, IP_RECVECN, IPV6_ECN, IPV6_RECVECN: in all of Windows 10
)

var controlOptions = []controlOption{
	{packetInfo, levelIPv4, levelIPv4, windows.IP_PKTINFO, 0},
	{packetInfo, levelIPv6, levelIPv6, windows.IPV6_PKTINFO, 0},
	{ControlTTL, levelIPv4, levelIPv4, hopLimit, 0},
	{ControlTTL, levelIPv6, levelIPv6, hopLimit, 0},
	{ControlTOS, levelIPv4, levelIPv4, recvTOS, ecn},
	{ControlTOS, levelIPv6, levelIPv6, recvTOS, ecn},
}

func getOption(fd uintptr, level, name int) (int, error) {
	return windows.GetsockoptInt(windows.Handle(fd), level, name)
}

func setOption(fd uintptr, level, name, value int) error {
	return windows.SetsockoptInt(windows.Handle(fd), level, name, value)
}

// isNoOption reports whether err says that there is no such option.
func isNoOption(err error) bool {
	return err == windows.WSAENOPROTOOPT || err == windows.WSAEOPNOTSUPP || err == windows.WSAEINVAL
}

// take reads one message.
func (c *Control) take(level, typ int, data []byte) bool {
	switch level {
	case levelIPv4:
		switch typ {
		case windows.IP_PKTINFO:
			return c.takePacketInfo(data)
		case windows.IP_TOS, ecn:
			return c.takeTOS(data, true)
		case windows.IP_TTL, hopLimit:
			return c.takeTTL(data, true)
		}
	case levelIPv6:
		switch typ {
		case windows.IPV6_PKTINFO:
			return c.takePacketInfo6(data)
		case trafficClass, ecn:
			return c.takeTOS(data, false)
		case hopLimit:
			return c.takeTTL(data, false)
		}
	}
	return true
}

// takePacketInfo reads IN_PKTINFO, which has no address to reply from.
func (c *Control) takePacketInfo(data []byte) bool {
	if len(data) < 8 {
		return false
	}
	c.takeDst(netip.AddrFrom4([4]byte(data)), true)
	c.takeInterface(binary.NativeEndian.Uint32(data[4:]), true)
	return true
}

// Append writes the messages for a datagram to an address of a family.
func (c *Control) Append(b []byte, isIPv4 bool) []byte {
	level, tos := levelIPv6, trafficClass
	if isIPv4 {
		level, tos = levelIPv4, windows.IP_TOS
		b = c.appendShortPacketInfo(b, windows.IP_PKTINFO)
	} else {
		b = c.appendPacketInfo6(b, windows.IPV6_PKTINFO)
	}
	if c.TOS < 4 {
		tos = ecn // taken by older systems too
	}
	if c.Fields&ControlTOS != 0 {
		b = appendInt32(b, level, tos, c.TOS)
	}
	return b
}
