// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"cmp"
	"math"
	"net"
	"net/netip"
	"os"
	"syscall"

	"golang.org/x/net/ipv4"
)

// What others ask of a connection: package net, the syscall user, quic-go's
// OOB-capable connection, and x/net's batch calls, of which quic-go looks for
// ReadBatch.
var (
	_ net.PacketConn = (*Conn)(nil)
	_ net.Conn       = (*Conn)(nil)
	_ syscall.Conn   = (*Conn)(nil)
	_ interface {
		net.PacketConn
		SyscallConn() (syscall.RawConn, error)
		SetReadBuffer(int) error
		ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
		WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error)
	} = (*Conn)(nil)
	_ interface {
		ReadBatch(ms []ipv4.Message, flags int) (int, error)
		WriteBatch(ms []ipv4.Message, flags int) (int, error)
	} = (*Conn)(nil)
)

// LocalAddr is UDPConn's.
func (c *Conn) LocalAddr() net.Addr { return c.udpConn.LocalAddr() }

// RemoteAddr is UDPConn's.
func (c *Conn) RemoteAddr() net.Addr { return c.udpConn.RemoteAddr() }

// SetReadBuffer is UDPConn's.
func (c *Conn) SetReadBuffer(bytes int) error { return c.udpConn.SetReadBuffer(bytes) }

// SetWriteBuffer is UDPConn's.
func (c *Conn) SetWriteBuffer(bytes int) error {
	err := c.udpConn.SetWriteBuffer(bytes)
	c.send.queue.kick() // the kernel tells of the new room only if it is half of the buffer
	return err
}

// File is UDPConn's; on the zero Conn it returns EINVAL. It turns coalescing
// and reading ahead off for good. Options that are set through the file may not
// be seen, see [Conn.SyscallConn].
func (c *Conn) File() (*os.File, error) {
	if !c.isFromNew() {
		return nil, syscall.EINVAL
	}
	c.recv.turnOff(reasonFile)
	c.send.queue.noteFile()
	return c.udpConn.File()
}

// Write is UDPConn's; under Config.NonBlocking it returns ErrWouldBlock rather
// than wait.
func (c *Conn) Write(b []byte) (n int, err error) {
	if c.send.nonBlocking {
		return c.send.sendPacket(nil, b, nil, netip.AddrPort{}, 0)
	}
	for before, again := uint32(0), true; again; again = c.send.queue.isKick(err, before) {
		before = c.send.queue.netWrites()
		n, err = c.udpConn.Write(b)
	}
	return n, err
}

// WriteTo is UDPConn's; under Config.NonBlocking it returns ErrWouldBlock
// rather than wait.
func (c *Conn) WriteTo(b []byte, addr net.Addr) (n int, err error) {
	if !c.send.nonBlocking {
		for before, again := uint32(0), true; again; again = c.send.queue.isKick(err, before) {
			before = c.send.queue.netWrites()
			n, err = c.udpConn.WriteTo(b, addr)
		}
		return n, err
	}
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, c.wrongAddr(addr, syscall.EINVAL)
	}
	return c.writeToUDP(b, udp)
}

// WriteToUDP is UDPConn's; under Config.NonBlocking it returns ErrWouldBlock
// rather than wait.
func (c *Conn) WriteToUDP(b []byte, addr *net.UDPAddr) (n int, err error) {
	if !c.send.nonBlocking {
		for before, again := uint32(0), true; again; again = c.send.queue.isKick(err, before) {
			before = c.send.queue.netWrites()
			n, err = c.udpConn.WriteToUDP(b, addr)
		}
		return n, err
	}
	return c.writeToUDP(b, addr)
}

func (c *Conn) writeToUDP(b []byte, addr *net.UDPAddr) (int, error) {
	to, err := c.addrPort(addr)
	if err != nil {
		return 0, c.wrongAddr(addr, err)
	}
	return c.writeTo(b, to)
}

// WriteToUDPAddrPort is UDPConn's; under Config.NonBlocking it returns
// ErrWouldBlock rather than wait.
func (c *Conn) WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (n int, err error) {
	if !c.send.nonBlocking {
		for before, again := uint32(0), true; again; again = c.send.queue.isKick(err, before) {
			before = c.send.queue.netWrites()
			n, err = c.udpConn.WriteToUDPAddrPort(b, addr)
		}
		return n, err
	}
	return c.writeTo(b, addr)
}

// writeTo is for those that package net does not let write to a connected
// peer.
func (c *Conn) writeTo(b []byte, addr netip.AddrPort) (int, error) {
	if c.send.to.connected {
		return 0, c.send.opError(net.ErrWriteToConnected, addr)
	}
	return c.send.sendPacket(nil, b, nil, addr, 0)
}

// WriteMsgUDP is UDPConn's; under Config.NonBlocking it returns ErrWouldBlock
// rather than wait.
func (c *Conn) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	if !c.send.nonBlocking {
		for before, again := uint32(0), true; again; again = c.send.queue.isKick(err, before) {
			before = c.send.queue.netWrites()
			n, oobn, err = c.udpConn.WriteMsgUDP(b, oob, addr)
		}
		return n, oobn, err
	}
	to, err := c.addrPort(addr)
	if err != nil {
		return 0, 0, c.wrongAddr(addr, err)
	}
	return c.WriteMsgUDPAddrPort(b, oob, to)
}

// WriteMsgUDPAddrPort is UDPConn's; under Config.NonBlocking it returns
// ErrWouldBlock rather than wait.
func (c *Conn) WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error) {
	if !c.send.nonBlocking {
		for before, again := uint32(0), true; again; again = c.send.queue.isKick(err, before) {
			before = c.send.queue.netWrites()
			n, oobn, err = c.udpConn.WriteMsgUDPAddrPort(b, oob, addr)
		}
		return n, oobn, err
	}
	if n, err = c.send.sendPacket(nil, b, oob, addr, 0); err != nil {
		return 0, 0, err
	}
	return n, len(oob), nil
}

// wrongAddr is package net's error for an address that nothing can be sent to.
func (c *Conn) wrongAddr(addr net.Addr, err error) error {
	e := c.send.name.opError("write", err)
	e.Addr = addr
	return &e
}

// addrPort converts as package net does, and rejects what that rejects. A nil
// addr is no address. An address without an IP is this host; on IPv6 sockets so
// is 0.0.0.0.
func (c *Conn) addrPort(addr *net.UDPAddr) (to netip.AddrPort, err error) {
	switch {
	case addr == nil:
		return to, nil
	case !c.isFromNew():
		return to, syscall.EINVAL
	case c.send.to.connected:
		return to, net.ErrWriteToConnected
	case len(addr.IP) > 0 && !(c.recv.isIPv6 && addr.IP.Equal(net.IPv4zero)):
		to = addr.AddrPort()
	case c.recv.isIPv6:
		to = netip.AddrPortFrom(netip.IPv6Unspecified().WithZone(addr.Zone), uint16(addr.Port))
	default:
		to = netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(addr.Port))
	}
	if err := c.send.kernel.accepts(to.Addr()); err != nil {
		return to, err
	}
	if addr.Port < 0 || addr.Port > math.MaxUint16 { // of which net asks the system
		return to, cmp.Or(c.send.queue.ends.check(nil), errInvalidMessage)
	}
	return to, nil
}

// SyscallConn returns the socket's RawConn, as UDPConn does. Options set
// through its Control are seen by the next send. Its Read turns coalescing and
// reading ahead off for good: what was read ahead is not for its caller.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if !c.isFromNew() {
		return c.udpConn.SyscallConn()
	}
	return userRawConn{c.recv.queue.ends.raw, &c.send, &c.recv}, nil
}

// A userRawConn notes that the user may have changed the socket's options, or
// reads it.
type userRawConn struct {
	syscall.RawConn
	send *sender
	recv *receiver
}

// Write calls f as a RawConn does, except that a wait of ours that is kicked
// has it called once more.
func (r userRawConn) Write(f func(fd uintptr) bool) (err error) {
	for before, again := uint32(0), true; again; again = r.send.queue.isKick(err, before) {
		before = r.send.queue.netWrites()
		err = r.RawConn.Write(f)
	}
	return err
}
