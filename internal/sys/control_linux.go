// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"
)

// haveIPv4OptionsOnIPv6: an IPv6 socket takes IPv4's options too, and adds
// their messages to IPv4 datagrams.
const haveIPv4OptionsOnIPv6 = true

// The timestamp is last: setting it clears what other timestamps the socket
// has, and that cannot be undone.
var controlOptions = append(controlOptions6,
	controlOption{packetInfo, levelIPv4, unix.SOL_IP, unix.IP_PKTINFO, 0},
	controlOption{ControlTOS, levelIPv4, unix.SOL_IP, unix.IP_RECVTOS, 0},
	controlOption{ControlTTL, levelIPv4, unix.SOL_IP, unix.IP_RECVTTL, 0},
	controlOption{ControlDropped, anyFamily, unix.SOL_SOCKET, unix.SO_RXQ_OVFL, 0},
	timestampOption(unix.SizeofPtr),
)

// timestampOption is SO_TIMESTAMPNS, whose time of two longs ends in 2038 where
// a long has 32 bits. There the option of kernel 5.1 comes first, which has 64
// bits everywhere.
func timestampOption(long int) controlOption {
	o := controlOption{ControlTime, anyFamily, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, unix.SO_TIMESTAMPNS_NEW}
	if long == 4 {
		o.name, o.older = o.older, o.name
	}
	return o
}

// take reads one message.
func (c *Control) take(level, typ int, data []byte) bool {
	switch level {
	case unix.SOL_IP:
		switch typ {
		case unix.IP_PKTINFO:
			return c.takePacketInfo4(data)
		case unix.IP_TOS: // one byte (ip_cmsg_recv_tos)
			return c.takeTOS(data, true)
		case unix.IP_TTL:
			return c.takeTTL(data, true)
		}
	case unix.SOL_IPV6:
		return c.take6(typ, data)
	case unix.SOL_SOCKET:
		return c.takeSocket(typ, data)
	}
	return true
}

func (c *Control) takeSocket(typ int, data []byte) bool {
	const nano, micro = int64(time.Second), int64(time.Second / time.Microsecond)
	switch typ {
	case unix.SO_TIMESTAMPNS:
		return c.takeTimeOf(data, unix.SizeofPtr, nano)
	case unix.SO_TIMESTAMPNS_NEW:
		return c.takeTimeOf(data, 8, nano)
	case unix.SO_TIMESTAMP:
		return c.takeTimeOf(data, unix.SizeofPtr, micro)
	case unix.SO_TIMESTAMP_NEW:
		return c.takeTimeOf(data, 8, micro)
	case unix.SO_RXQ_OVFL:
		if len(data) < 4 {
			return false
		}
		c.Dropped = binary.NativeEndian.Uint32(data)
		c.Fields |= ControlDropped
	}
	return true
}

// takeTimeOf reads a time of two integers of a size.
func (c *Control) takeTimeOf(data []byte, size int, parts int64) bool {
	return len(data) >= 2*size && c.takeTime(nativeInt(data[:size]), nativeInt(data[size:2*size]), parts)
}

// Append writes the messages for a datagram to an address of a family. The
// socket's does not matter: what an IPv6 socket sends to an IPv4 address is
// sent by IPv4's code (udpv6_sendmsg calls udp_sendmsg), which reads IPv4's
// messages.
func (c *Control) Append(b []byte, isIPv4 bool) []byte {
	if isIPv4 {
		b = c.append4(b)
	} else {
		b = c.append6(b)
	}
	if c.Fields&ControlTime != 0 {
		var data []byte
		b, data = AppendControl(b, unix.SOL_SOCKET, unix.SCM_TXTIME, 8)
		binary.NativeEndian.PutUint64(data, monotonic(c.Time))
	}
	return b
}

func (c *Control) append4(b []byte) []byte {
	b = appendPacketInfo4(b, unix.IP_PKTINFO, c.source(true), c.device())
	if c.Fields&ControlTOS != 0 { // all kernels take an int (ip_cmsg_send)
		b = appendInt32(b, unix.SOL_IP, unix.IP_TOS, c.TOS)
	}
	if c.Fields&ControlTTL != 0 {
		b = appendInt32(b, unix.SOL_IP, unix.IP_TTL, c.TTL)
	}
	return b
}

// monotonic is t on CLOCK_MONOTONIC, in nanoseconds. It is never early: the
// clock is read after the time that is left.
func monotonic(t time.Time) uint64 {
	left := time.Until(t)
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0 // there is no such kernel; 0 is at once
	}
	return uint64(max(now.Nano()+int64(left), 0))
}
