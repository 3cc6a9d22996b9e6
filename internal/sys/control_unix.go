// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package sys

import (
	"golang.org/x/sys/unix"
)

const optionV6Only = unix.IPV6_V6ONLY

func getOption(fd uintptr, level, name int) (int, error) {
	return unix.GetsockoptInt(int(fd), level, name)
}

func setOption(fd uintptr, level, name, value int) error {
	return unix.SetsockoptInt(int(fd), level, name, value)
}

// isNoOption reports whether err says that there is no such option.
func isNoOption(err error) bool {
	return err == unix.ENOPROTOOPT || err == unix.EOPNOTSUPP || err == unix.ENOSYS
}

// controlOptions6 are those of RFC 3542, which every Unix has.
var controlOptions6 = []controlOption{
	{packetInfo, levelIPv6, levelIPv6, unix.IPV6_RECVPKTINFO, 0},
	{ControlTOS, levelIPv6, levelIPv6, unix.IPV6_RECVTCLASS, 0},
	{ControlTTL, levelIPv6, levelIPv6, unix.IPV6_RECVHOPLIMIT, 0},
}

// take6 reads the messages of RFC 3542.
func (c *Control) take6(typ int, data []byte) bool {
	switch typ {
	case unix.IPV6_PKTINFO:
		return c.takePacketInfo6(data)
	case unix.IPV6_TCLASS:
		return c.takeTOS(data, false)
	case unix.IPV6_HOPLIMIT:
		return c.takeTTL(data, false)
	}
	return true
}

// append6 writes the messages of RFC 3542.
func (c *Control) append6(b []byte) []byte {
	b = c.appendPacketInfo6(b, unix.IPV6_PKTINFO)
	if c.Fields&ControlTOS != 0 {
		b = appendInt32(b, levelIPv6, unix.IPV6_TCLASS, c.TOS)
	}
	if c.Fields&ControlTTL != 0 {
		b = appendInt32(b, levelIPv6, unix.IPV6_HOPLIMIT, c.TTL)
	}
	return b
}
