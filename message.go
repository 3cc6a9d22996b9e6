// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import "net/netip"

// An OutputVector is one piece of a datagram (GLib's GOutputVector). It is an
// alias, so a [][]byte is a []OutputVector.
type OutputVector = []byte

// An OutputMessage is one datagram to send (GLib's GOutputMessage). The same
// message may be sent any number of times; a slice of messages belongs to one
// call at a time, because a call writes BytesSent.
type OutputMessage struct {
	// Addr is the destination. The zero AddrPort is the connected peer.
	// ::ffff:a.b.c.d is a.b.c.d. A zone is resolved as package net does it.
	Addr netip.AddrPort

	// Vectors are sent as one datagram, in order. No vectors, or only empty
	// ones, make an empty datagram. They are only read, and not after the send
	// has returned.
	Vectors []OutputVector

	// Control holds raw control messages (cmsg(3)), as [ControlMessage.Append]
	// or Marshal of x/net's ControlMessage makes them. It is only read, and not
	// after the send has returned.
	Control []byte

	// BytesSent is set by the send that sends the datagram, to its payload
	// bytes. Of a message that was not sent it is left as it was.
	BytesSent int
}

// An InputVector is one piece of room for a datagram (GLib's GInputVector). It
// is an alias, so a [][]byte is a []InputVector.
type InputVector = []byte

// An InputMessage is room for one datagram (GLib's GInputMessage). A slice of
// messages belongs to one call at a time, with its buffers; none is used after
// the receive has returned.
type InputMessage struct {
	// Vectors are where the datagram is scattered to, in order. The room behind
	// it may be used as scratch space, as by an [io.Reader].
	Vectors []InputVector

	// Control is room for control messages, which [ControlMessage.Parse] reads.
	Control []byte

	// Set by a receive for every message that it fills.
	Addr            netip.AddrPort // of the sender; an IPv4 address Is4, on IPv6 sockets too
	BytesReceived   int            // bytes put into Vectors; with MSG_TRUNC all of the datagram's
	ControlReceived int            // bytes put into Control
	Flags           int            // MsgTruncated, MsgControlTruncated and what else recvmsg(2) says
}

// payload is the bytes of m, or maxDatagram+1 if they are more than that: an
// int of 32 bits does not hold what vectors that share memory can add up to.
func (m *OutputMessage) payload() int {
	if len(m.Vectors) == 1 {
		return min(len(m.Vectors[0]), maxDatagram+1)
	}
	n := 0
	for _, v := range m.Vectors {
		if len(v) > maxDatagram-n {
			return maxDatagram + 1
		}
		n += len(v)
	}
	return n
}

// AppendSegments cuts p into datagrams of size bytes, the last one possibly
// shorter, and appends a message for each to dst: for callers that fill one
// long buffer. All go to one address with the same control messages. The
// messages alias p, and the capacity of their vectors runs on to its end. An
// empty p makes none; a size below 1 makes one of all of p.
//
// Elements of dst beyond its length are reused, their Vectors' arrays
// included, so a slice that has grown is filled without allocation:
//
//	msgs = batchconn.AppendSegments(msgs[:0], to, buf, 1200, nil)
//
// Those arrays are written to, so reuse only a slice that AppendSegments
// filled: of messages that share one array each would overwrite the other's
// payload. Do not append to a vector, which would write into the rest of p.
func AppendSegments(dst []OutputMessage, to netip.AddrPort, p []byte, size int, control []byte) []OutputMessage {
	if size < 1 {
		size = len(p)
	}
	for len(p) > 0 {
		if len(dst) == cap(dst) {
			dst = append(dst, OutputMessage{})
		} else {
			dst = dst[:len(dst)+1]
		}
		m := &dst[len(dst)-1]
		n := min(size, len(p))
		m.Addr, m.Control, m.BytesSent = to, control, 0
		m.Vectors = append(m.Vectors[:0], p[:n]) // its capacity runs on, by which putRun knows its neighbour
		p = p[n:]
	}
	return dst
}
