// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"net/netip"
	"sync/atomic"
	"syscall"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// An adapter is a socket of one family.
type adapter interface {
	// writeBatch puts a prefix of ms to the kernel, sets N of those messages
	// and returns how many they are. It never waits: a full socket is EAGAIN.
	// err is what ms[n] met.
	writeBatch(ms []ipv4.Message, flags int) (n int, err error)

	// sendto is sys.Sendto.
	sendto(p []byte, to netip.AddrPort, flags int) error

	// accepts says why datagrams cannot go to an address, in net's words; nil if
	// they can.
	accepts(to netip.Addr) error

	// maxPayload is the maximum of payload bytes in a datagram to an address.
	maxPayload(to netip.Addr) int
}

type adapterV4 struct {
	s    *sender
	xnet atomic.Pointer[ipv4.PacketConn] // made by the first batch: a Conn that only reads needs none
}

func (a *adapterV4) writeBatch(ms []ipv4.Message, flags int) (int, error) {
	c := a.xnet.Load()
	if c == nil {
		c = ipv4.NewPacketConn(a.s.promptConn())
		a.xnet.Store(c) // a call that comes meanwhile makes another, which is as good
	}
	n, err := c.WriteBatch(ms, flags|sys.DontWait)
	return max(n, 0), err // x/net says -1 with an error
}

func (a *adapterV4) sendto(p []byte, to netip.AddrPort, flags int) error {
	return sys.Sendto(a.s.queue.ends.raw, false, p, to, flags)
}

func (a *adapterV4) accepts(to netip.Addr) error {
	if to.Is4() || to.Is4In6() {
		return nil
	}
	return &net.AddrError{Err: "non-IPv4 address", Addr: to.String()}
}

// maxPayload is that of IPv4: 65535 less the headers of IP and UDP.
func (a *adapterV4) maxPayload(netip.Addr) int { return 65507 }

// A promptConn is a UDPConn through which x/net's WriteBatch neither waits nor
// locks. The UDPConn's own RawConn.Write holds the descriptor's write lock for
// as long as it waits for room, and nothing wakes those that wait for that
// lock.
type promptConn struct {
	*net.UDPConn
	raw promptRawConn
}

func (s *sender) promptConn() *promptConn {
	return &promptConn{s.name.conn, promptRawConn{s.queue.ends.raw}}
}

func (c *promptConn) SyscallConn() (syscall.RawConn, error) { return &c.raw, nil }

type promptRawConn struct{ syscall.RawConn }

// Write calls f once. Only the adapters call it, always with sys.DontWait, so
// that f does not want to be called again.
func (c *promptRawConn) Write(f func(fd uintptr) bool) error {
	_, err := callOnce(c.RawConn, f)
	return err
}
