// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package sys

import (
	"errors"
	"net"
	"net/netip"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Receives reports whether Recv, Recvfrom and Recvmsg receive from a descriptor
// here.
const Receives = true

// Flags of recvmsg(2), asked for and told.
const (
	MsgTrunc    = unix.MSG_TRUNC    // the datagram was longer than its buffers; asked for: tell its length
	MsgCtrunc   = unix.MSG_CTRUNC   // there was more control data than room
	MsgPeek     = unix.MSG_PEEK     // leave the datagram in the queue
	MsgErrQueue = unix.MSG_ERRQUEUE // from the socket's queue of errors
)

// A name is room for the address that a datagram came from.
type name struct{ raw unix.RawSockaddrInet6 }

// addrPort is the address in the form of the socket's family: what comes by
// IPv4 to an IPv6 socket is IPv4-mapped.
func (n *name) addrPort() netip.AddrPort {
	switch n.raw.Family {
	case unix.AF_INET:
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&n.raw))
		return netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), networkOrder(&v4.Port))
	case unix.AF_INET6:
		addr := netip.AddrFrom16(n.raw.Addr)
		if n.raw.Scope_id != 0 {
			addr = addr.WithZone(ZoneName(n.raw.Scope_id))
		}
		return netip.AddrPortFrom(addr, networkOrder(&n.raw.Port))
	}
	return netip.AddrPort{}
}

func networkOrder(v *uint16) uint16 {
	b := (*[2]byte)(unsafe.Pointer(v))
	return uint16(b[0])<<8 | uint16(b[1])
}

// The receives here do not wait, and so last no longer than it takes to copy
// what they bring, which the scheduler does not interrupt either. Those of few
// messages do without telling it of the system call, which is a fifth of what a
// datagram costs.

// fewMessages is how many those are at most.
const fewMessages = 8

// Recvfrom receives one datagram with recvfrom(2), the cheapest call there is,
// and does not wait. from may be nil. It does not allocate.
func Recvfrom(fd uintptr, p []byte, flags int, from *netip.AddrPort) (int, syscall.Errno) {
	var room name
	var size uint32
	var roomAt *name
	var sizeAt *uint32
	if from != nil {
		size = unix.SizeofSockaddrInet6
		roomAt, sizeAt = &room, &size
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVFROM, fd, uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)),
			uintptr(flags|DontWait), uintptr(unsafe.Pointer(roomAt)), uintptr(unsafe.Pointer(sizeAt)))
		if errno == 0 {
			if from != nil {
				*from = room.addrPort()
			}
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// Recvmsg receives one datagram with recvmsg(2), which tells control data and
// flags as well, and does not wait. It does not allocate.
func Recvmsg(fd uintptr, p, control []byte, flags int) (n, controlLen, gotFlags int, from netip.AddrPort, errno syscall.Errno) {
	var room name
	vector := unix.Iovec{Base: unsafe.SliceData(p)}
	vector.SetLen(len(p))
	h := unix.Msghdr{Name: (*byte)(unsafe.Pointer(&room)), Iov: &vector, Control: unsafe.SliceData(control)}
	h.SetIovlen(1)
	h.SetControllen(len(control))
	h.Namelen = unix.SizeofSockaddrInet6
	if n, errno = recvmsg(fd, &h, flags); errno != 0 {
		return 0, 0, 0, from, errno
	}
	return n, int(h.Controllen), int(h.Flags), room.addrPort(), 0
}

func recvmsg(fd uintptr, h *unix.Msghdr, flags int) (int, syscall.Errno) {
	for {
		n, _, errno := unix.RawSyscall(unix.SYS_RECVMSG, fd, uintptr(unsafe.Pointer(h)), uintptr(flags|DontWait))
		if errno == 0 {
			return int(n), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// mmsghdr is struct mmsghdr of recvmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	len uint32
}

// InMessages are messages for the kernel to fill. The zero value is empty.
type InMessages struct {
	hdrs    []mmsghdr
	names   []name
	vectors []unix.Iovec
}

// Reset makes it empty, with room for so many messages of so many vectors
// together. It keeps nothing that was added before.
func (m *InMessages) Reset(messages, vectors int) {
	m.Forget()
	if cap(m.hdrs) < messages {
		m.hdrs = make([]mmsghdr, 0, messages)
		m.names = make([]name, messages)
	}
	if cap(m.vectors) < vectors {
		m.vectors = make([]unix.Iovec, 0, vectors)
	}
}

// Forget makes it empty.
func (m *InMessages) Forget() {
	clear(m.hdrs)
	clear(m.vectors)
	m.hdrs, m.vectors = m.hdrs[:0], m.vectors[:0]
}

// Add adds a message. There must be room for it.
func (m *InMessages) Add(vectors [][]byte, control []byte) {
	start, i := len(m.vectors), len(m.hdrs)
	for _, v := range vectors {
		m.addVector(v)
	}
	if len(vectors) == 0 {
		m.addVector(nil)
	}
	m.addMessage(start, i, control)
}

// AddOne adds a message of one vector.
func (m *InMessages) AddOne(p, control []byte) {
	start, i := len(m.vectors), len(m.hdrs)
	m.addVector(p)
	m.addMessage(start, i, control)
}

// AddTwo adds a message of two vectors.
func (m *InMessages) AddTwo(p, q, control []byte) {
	start, i := len(m.vectors), len(m.hdrs)
	m.addVector(p)
	m.addVector(q)
	m.addMessage(start, i, control)
}

func (m *InMessages) addVector(p []byte) {
	m.vectors = m.vectors[:len(m.vectors)+1]
	v := &m.vectors[len(m.vectors)-1]
	v.Base = unsafe.SliceData(p)
	v.SetLen(len(p))
}

func (m *InMessages) addMessage(start, i int, control []byte) {
	m.hdrs = m.hdrs[:i+1]
	h := &m.hdrs[i].hdr
	h.Name = (*byte)(unsafe.Pointer(&m.names[i]))
	h.Iov = &m.vectors[start]
	h.SetIovlen(len(m.vectors) - start)
	h.Control = unsafe.SliceData(control)
	h.SetControllen(len(control))
	h.Namelen = unix.SizeofSockaddrInet6
	m.names[i].raw.Family = unix.AF_UNSPEC
}

// Len is how many messages were added.
func (m *InMessages) Len() int { return len(m.hdrs) }

// Recv fills as many of the first n messages as the kernel has, with one call,
// and says how many; it does not wait. It does not allocate.
func (m *InMessages) Recv(fd uintptr, n, flags int) (int, syscall.Errno) {
	if n == 1 {
		return m.RecvOne(fd, flags)
	}
	for {
		var k uintptr
		var errno syscall.Errno
		if n <= fewMessages {
			k, _, errno = unix.RawSyscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&m.hdrs[0])), uintptr(n),
				uintptr(flags|DontWait), 0, 0)
		} else {
			k, _, errno = unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&m.hdrs[0])), uintptr(n),
				uintptr(flags|DontWait), 0, 0)
		}
		if errno == 0 {
			return int(k), 0
		}
		if errno != unix.EINTR {
			return 0, errno
		}
	}
}

// RecvOne is Recv of the first message, with recvmsg(2).
func (m *InMessages) RecvOne(fd uintptr, flags int) (int, syscall.Errno) {
	h := &m.hdrs[0]
	n, errno := recvmsg(fd, &h.hdr, flags)
	if errno != 0 {
		return 0, errno
	}
	h.len = uint32(n)
	return 1, 0
}

// Got says what is in a message that Recv filled: bytes of payload and of
// control data, and flags.
func (m *InMessages) Got(i int) (n, control, flags int) {
	h := &m.hdrs[i]
	return int(h.len), int(h.hdr.Controllen), int(h.hdr.Flags)
}

// From is where a message came from.
func (m *InMessages) From(i int) netip.AddrPort { return m.names[i].addrPort() }

// Refused reports whether errno, with which Recv ended, is the refusal of the
// call itself, by a kernel that has none or by a seccomp filter, rather than an
// error of the socket's. A filter says the same again to a call that asks for
// no message; an error that was pending is gone.
func (m *InMessages) Refused(fd uintptr, errno syscall.Errno) bool {
	switch errno {
	case unix.ENOSYS:
		return true
	case unix.EPERM, unix.EACCES:
		_, _, again := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&m.hdrs[0])), 0, DontWait, 0, 0)
		return again == errno
	}
	return false
}

// ReadNet is for systems where Recv does not receive.
func (m *InMessages) ReadNet(*net.UDPConn) error { return errors.ErrUnsupported }
