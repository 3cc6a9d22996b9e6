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

// ReadNet is for systems where Recv does not receive.
func (m *InMessages) ReadNet(*net.UDPConn) error { return errors.ErrUnsupported }
