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

// Receives reports whether Recv, Recvfrom and Recvmsg receive from a descriptor
// here.
const Receives = false

// Flags of recvmsg(2), asked for and told; those of winsock2.h.
const (
	MsgTrunc  = 0x0100 // the datagram was longer than its buffers
	MsgCtrunc = 0x0200 // there was more control data than room
	MsgPeek   = 0x0002 // leave the datagram in the queue
)

// Recvfrom does nothing where package net does all the receiving.
func Recvfrom(uintptr, []byte, int, *netip.AddrPort) (int, syscall.Errno) { return 0, syscall.ENOSYS }

// Recvmsg does nothing here either.
func Recvmsg(uintptr, []byte, []byte, int) (n, controlLen, gotFlags int, from netip.AddrPort, errno syscall.Errno) {
	return 0, 0, 0, from, syscall.ENOSYS
}

// Recv does nothing here; see ReadNet.
func (m *InMessages) Recv(uintptr, int, int) (int, syscall.Errno) { return 0, syscall.ENOSYS }

// RecvOne does nothing here; see ReadNet.
func (m *InMessages) RecvOne(uintptr, int) (int, syscall.Errno) { return 0, syscall.ENOSYS }

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
