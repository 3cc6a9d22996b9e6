// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix && (!linux || android || batchconn_portable)

package sys

import (
	"errors"
	"net"
	"net/netip"
	"syscall"

	"golang.org/x/sys/unix"
)

// Receives reports whether Recv and Recvfrom receive from a descriptor here.
const Receives = true

// Flags of recvmsg(2), asked for and told.
const (
	MsgTrunc  = unix.MSG_TRUNC  // the datagram was longer than its buffers
	MsgCtrunc = unix.MSG_CTRUNC // there was more control data than room
	MsgPeek   = unix.MSG_PEEK   // leave the datagram in the queue
)

// A Name is room for the address that a datagram came from.
type Name struct{ addr netip.AddrPort }

// AddrPort is the address in the form of the socket's family: what comes by
// IPv4 to an IPv6 socket is IPv4-mapped.
func (n *Name) AddrPort() netip.AddrPort { return n.addr }

func (n *Name) set(from unix.Sockaddr) {
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		n.addr = netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(from.Addr)
		if from.ZoneId != 0 {
			addr = addr.WithZone(ZoneName(from.ZoneId))
		}
		n.addr = netip.AddrPortFrom(addr, uint16(from.Port))
	default:
		n.addr = netip.AddrPort{}
	}
}

// Recvfrom receives one datagram and does not wait. from may be nil.
func Recvfrom(fd uintptr, p []byte, flags int, from *Name) (int, syscall.Errno) {
	for {
		n, name, err := unix.Recvfrom(int(fd), p, flags|DontWait)
		if err == nil {
			if from != nil {
				from.set(name)
			}
			return n, 0
		}
		if err != unix.EINTR {
			return 0, errnoOf(err)
		}
	}
}

func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		errno = syscall.EINVAL // x/sys has others only for what it was given
	}
	return errno
}

// InMessages are messages to be filled, one a call. The zero value is empty.
type InMessages struct {
	messages []inMessage
	got      struct {
		n, control, flags int
		from              Name
	}
}

type inMessage struct {
	vectors [][]byte
	control []byte
}

// Reset makes it empty, with room for so many messages of so many vectors
// together. It keeps nothing that was added before.
func (m *InMessages) Reset(messages, vectors int) { m.Forget() }

// Forget makes it empty.
func (m *InMessages) Forget() {
	clear(m.messages)
	m.messages = m.messages[:0]
}

// Add adds a message. There must be room for it.
func (m *InMessages) Add(vectors [][]byte, control []byte) {
	m.messages = append(m.messages, inMessage{vectors, control})
}

// AddOne adds a message of one vector.
func (m *InMessages) AddOne(p, control []byte) { m.Add([][]byte{p}, control) }

// AddTwo adds a message of two vectors.
func (m *InMessages) AddTwo(p, q, control []byte) { m.Add([][]byte{p, q}, control) }

// Len is how many messages were added.
func (m *InMessages) Len() int { return len(m.messages) }

// Recv fills the first message if the kernel has one; it does not wait.
func (m *InMessages) Recv(fd uintptr, n, flags int) (int, syscall.Errno) { return m.RecvOne(fd, flags) }

// RecvOne is Recv of the first message, with recvmsg(2).
func (m *InMessages) RecvOne(fd uintptr, flags int) (int, syscall.Errno) {
	for {
		n, control, got, from, err := unix.RecvmsgBuffers(int(fd), m.messages[0].vectors, m.messages[0].control, flags|DontWait)
		if err == nil {
			m.got.n, m.got.control, m.got.flags = n, control, got
			m.got.from.set(from)
			return 1, 0
		}
		if err != unix.EINTR {
			return 0, errnoOf(err)
		}
	}
}

// Got says what is in a message that Recv filled: bytes of payload and of
// control data, and flags.
func (m *InMessages) Got(i int) (n, control, flags int) {
	return m.got.n, m.got.control, m.got.flags
}

// From is where a message came from.
func (m *InMessages) From(i int) netip.AddrPort { return m.got.from.AddrPort() }

// Refused reports whether errno is the refusal of a call for many messages,
// which is not made here.
func (m *InMessages) Refused(fd uintptr, errno syscall.Errno) bool { return false }

// ReadNet is for systems where Recv does not receive.
func (m *InMessages) ReadNet(*net.UDPConn) error { return errors.ErrUnsupported }
