// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
)

// Receives reports whether Recv and Recvfrom receive from a descriptor here.
const Receives = false

// Flags of recvmsg(2), asked for and told; those of winsock2.h.
const (
	MsgTrunc  = 0x0100 // the datagram was longer than its buffers
	MsgCtrunc = 0x0200 // there was more control data than room
	MsgPeek   = 0x0002 // leave the datagram in the queue
)

// A Name is room for the address that a datagram came from.
type Name struct{ addr netip.AddrPort }

// AddrPort is the address.
func (n *Name) AddrPort() netip.AddrPort { return n.addr }

// Recvfrom does nothing where package net does all the receiving.
func Recvfrom(uintptr, []byte, int, *Name) (int, syscall.Errno) { return 0, syscall.ENOSYS }

// InMessages are messages to be filled, one a call, by package net.
type InMessages struct {
	messages []inMessage
	got      struct {
		n, control, flags int
		from              netip.AddrPort
	}
}

type inMessage struct {
	vectors [][]byte
	control []byte
}

// Reset makes it empty, with room for so many messages of so many vectors
// together.
func (m *InMessages) Reset(messages, vectors int) { m.Forget() }

// Forget makes it empty.
func (m *InMessages) Forget() {
	clear(m.messages)
	m.messages = m.messages[:0]
}

// Add adds a message.
func (m *InMessages) Add(vectors [][]byte, control []byte) {
	m.messages = append(m.messages, inMessage{vectors, control})
}

// AddOne adds a message of one vector.
func (m *InMessages) AddOne(p, control []byte) { m.Add([][]byte{p}, control) }

// AddTwo adds a message of two vectors.
func (m *InMessages) AddTwo(p, q, control []byte) { m.Add([][]byte{p, q}, control) }

// Len is how many messages were added.
func (m *InMessages) Len() int { return len(m.messages) }

// Recv does nothing here; see ReadNet.
func (m *InMessages) Recv(uintptr, int, int) (int, syscall.Errno) { return 0, syscall.ENOSYS }

// RecvOne does nothing here; see ReadNet.
func (m *InMessages) RecvOne(uintptr, int) (int, syscall.Errno) { return 0, syscall.ENOSYS }

// Refused reports whether errno is the refusal of a call for many messages.
func (m *InMessages) Refused(uintptr, syscall.Errno) bool { return false }

// Got says what is in a message that was filled: bytes of payload and of
// control data, and flags.
func (m *InMessages) Got(int) (n, control, flags int) { return m.got.n, m.got.control, m.got.flags }

// From is where a message came from.
func (m *InMessages) From(int) netip.AddrPort { return m.got.from }

// wholes are buffers for one datagram each. A datagram that is longer than its
// buffer is an error without a sender (WSAEMSGSIZE).
var wholes = sync.Pool{New: func() any { return new([1 << 16]byte) }}

// ReadNet fills the first message by a read of package net's, which waits.
func (m *InMessages) ReadNet(c *net.UDPConn) (err error) {
	to := m.messages[0]
	whole := wholes.Get().(*[1 << 16]byte)
	defer wholes.Put(whole)
	g := &m.got
	if g.n, g.control, g.flags, g.from, err = c.ReadMsgUDPAddrPort(whole[:], to.control); err != nil {
		return err
	}
	rest := whole[:g.n]
	for _, v := range to.vectors {
		rest = rest[copy(v, rest):]
	}
	if len(rest) > 0 {
		g.flags |= MsgTrunc
	}
	g.n -= len(rest)
	return nil
}
