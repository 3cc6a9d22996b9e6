// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"net/netip"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveBuffer is what each receiver asks of the system, which gives as much as
// it allows (net.core.rmem_max).
const receiveBuffer = 16 << 20

// A receiver is a socket that no poller knows, and that is read by who looks from
// time to time: the kernel wakes a sleeping receiver in the sender's time, which
// senders to a network never pay.
type receiver struct {
	file *os.File
	addr netip.AddrPort
}

func newReceiver() (r receiver, err error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return r, os.NewSyscallError("socket", err)
	}
	r.file = os.NewFile(uintptr(fd), "receiver") // blocking, so not in the poller
	loopback := unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	if err := unix.Bind(fd, &loopback); err != nil {
		r.file.Close()
		return r, os.NewSyscallError("bind", err)
	}
	r.setBuffer(receiveBuffer)
	a, err := unix.Getsockname(fd)
	if err != nil {
		r.file.Close()
		return r, os.NewSyscallError("getsockname", err)
	}
	r.addr = netip.AddrPortFrom(netip.AddrFrom4(loopback.Addr), uint16(a.(*unix.SockaddrInet4).Port))
	return r, nil
}

func (r receiver) fd() int { return int(r.file.Fd()) }

// setBuffer asks for a receive buffer and returns what there is.
func (r receiver) setBuffer(bytes int) int {
	unix.SetsockoptInt(r.fd(), unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	return r.buffer()
}

// forceBuffer does that beyond the system's limit, if it may.
func (r receiver) forceBuffer(bytes int) int {
	if unix.SetsockoptInt(r.fd(), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
		return r.setBuffer(bytes)
	}
	return r.buffer()
}

func (r receiver) buffer() int {
	n, _ := unix.GetsockoptInt(r.fd(), unix.SOL_SOCKET, unix.SO_RCVBUF)
	return n
}

func openReceivers(n int) (rs []receiver, err error) {
	for range n {
		r, err := newReceiver()
		if err != nil {
			closeReceivers(rs)
			return nil, err
		}
		rs = append(rs, r)
	}
	return rs, nil
}

func closeReceivers(rs []receiver) {
	for _, r := range rs {
		r.file.Close()
	}
}

func addresses(rs []receiver) []netip.AddrPort {
	to := make([]netip.AddrPort, len(rs))
	for i, r := range rs {
		to[i] = r.addr
	}
	return to
}

// A mailbag is what recvmmsg(2) reads into. x/net's ReadBatch makes an address
// for each datagram, and so work for the collector.
type mailbag struct {
	headers []mmsghdr
	bufs    [][]byte
}

type mmsghdr struct {
	unix.Msghdr
	n uint32
}

const mailbagBytes = 1 << 20

// newMailbag holds datagrams of up to size bytes, and tells those that are longer.
func newMailbag(size int) *mailbag {
	n := min(64, mailbagBytes/size)
	m := &mailbag{headers: make([]mmsghdr, n), bufs: make([][]byte, n)}
	buf := make([]byte, n*(size+1))
	for i := range m.headers {
		m.bufs[i], buf = buf[:size+1:size+1], buf[size+1:]
		iov := &unix.Iovec{Base: &m.bufs[i][0]}
		iov.SetLen(size + 1)
		m.headers[i].Iov = iov
		m.headers[i].SetIovlen(1)
	}
	return m
}

// read reads what is there, if anything is. It does not tell the runtime's
// scheduler, which would do more work for it: it does not wait.
func (m *mailbag) read(fd int) (n int, err error) {
	for {
		r, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&m.headers[0])),
			uintptr(len(m.headers)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(r), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
			continue
		}
		return 0, os.NewSyscallError("recvmmsg", errno)
	}
}

func (m *mailbag) datagram(i int) []byte { return m.bufs[i][:min(int(m.headers[i].n), len(m.bufs[i]))] }
