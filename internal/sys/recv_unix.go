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

// Receives reports whether Recv, Recvfrom and Recvmsg receive from a descriptor
// here.
const Receives = true

// Flags of recvmsg(2), asked for and told.
const (
	MsgTrunc  = unix.MSG_TRUNC  // the datagram was longer than its buffers
	MsgCtrunc = unix.MSG_CTRUNC // there was more control data than room
	MsgPeek   = unix.MSG_PEEK   // leave the datagram in the queue
)

// addrPort is an address in the form of the socket's family: what comes by IPv4
// to an IPv6 socket is IPv4-mapped.
func addrPort(from unix.Sockaddr) netip.AddrPort {
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(from.Addr), uint16(from.Port))
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(from.Addr)
		if from.ZoneId != 0 {
			addr = addr.WithZone(ZoneName(from.ZoneId))
		}
		return netip.AddrPortFrom(addr, uint16(from.Port))
	}
	return netip.AddrPort{}
}

// Recvfrom receives one datagram and does not wait. from may be nil.
func Recvfrom(fd uintptr, p []byte, flags int, from *netip.AddrPort) (int, syscall.Errno) {
	for {
		n, name, err := unix.Recvfrom(int(fd), p, flags|DontWait)
		if err == nil {
			if from != nil {
				*from = addrPort(name)
			}
			return n, 0
		}
		if err != unix.EINTR {
			return 0, errnoOf(err)
		}
	}
}

// Recvmsg receives one datagram with recvmsg(2), which tells control data and
// flags as well, and does not wait.
func Recvmsg(fd uintptr, p, control []byte, flags int) (n, controlLen, gotFlags int, from netip.AddrPort, errno syscall.Errno) {
	return recvmsg(fd, [][]byte{p}, control, flags)
}

func recvmsg(fd uintptr, vectors [][]byte, control []byte, flags int) (n, controlLen, gotFlags int, from netip.AddrPort, errno syscall.Errno) {
	for {
		n, controlLen, gotFlags, name, err := unix.RecvmsgBuffers(int(fd), vectors, control, flags|DontWait)
		if err == nil {
			return n, controlLen, gotFlags, addrPort(name), 0
		}
		if err != unix.EINTR {
			return 0, 0, 0, from, errnoOf(err)
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
	n, control, got, from, errno := recvmsg(fd, m.messages[0].vectors, m.messages[0].control, flags)
	if errno != 0 {
		return 0, errno
	}
	m.got.n, m.got.control, m.got.flags, m.got.from = n, control, got, from
	return 1, 0
}

// ReadNet is for systems where Recv does not receive.
func (m *InMessages) ReadNet(*net.UDPConn) error { return errors.ErrUnsupported }
