// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"net"
	"net/netip"
	"testing"
)

// The two ends of a network.
const (
	near = iota
	far
)

// A network is where a test runs: on loopback, whose ends are one, or on a
// wire.
type network struct {
	ends [2]netEnd
}

// A netEnd is an end of a network. Sockets are made there inside of do.
type netEnd struct {
	addr netip.Addr
	do   func(f func() error) error
}

var loopback = func() network {
	here := netEnd{netip.AddrFrom4([4]byte{127, 0, 0, 1}), func(f func() error) error { return f() }}
	return network{[2]netEnd{here, here}}
}()

// A site is where a library runs: a network, and the kind of its connections.
type site struct {
	network
	kind
}

// open is a connection at an end, closed with the test.
func (s site) open(t testing.TB, end int) net.PacketConn {
	t.Helper()
	return s.openReporting(t, end, nil)
}

// openReporting is open for a sender some of whose datagrams are to fail.
func (s site) openReporting(t testing.TB, end int, onError func(netip.AddrPort, error)) net.PacketConn {
	t.Helper()
	c := s.wrap(t, s.newSocket(t, end), onError)
	t.Cleanup(func() { c.Close() }) // all that is closed: it owns the socket
	return c
}

// dial is a connected connection at an end, closed with the test.
func (s site) dial(t testing.TB, end int, to net.Addr) net.Conn {
	t.Helper()
	c, err := s.dialUDP(end, to)
	if err != nil {
		t.Fatal(err)
	}
	conn := s.wrap(t, c, nil).(net.Conn)
	t.Cleanup(func() { conn.Close() })
	return conn
}

func (n network) dialUDP(end int, to net.Addr) (c *net.UDPConn, err error) {
	err = n.ends[end].do(func() error {
		c, err = net.DialUDP("udp4", nil, to.(*net.UDPAddr))
		return err
	})
	if err == nil {
		enlarge(c)
	}
	return c, err
}

// listen is a bare socket at an end, closed with the test.
func (n network) listen(t testing.TB, end int) *net.UDPConn {
	t.Helper()
	c := n.newSocket(t, end)
	t.Cleanup(func() { c.Close() })
	return c
}

func (n network) newSocket(t testing.TB, end int) *net.UDPConn {
	t.Helper()
	c, err := n.listenUDP(end, 0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (n network) listenUDP(end int, port uint16) (c *net.UDPConn, err error) {
	e := n.ends[end]
	err = e.do(func() error {
		c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(e.addr, port)))
		return err
	})
	if err == nil {
		enlarge(c)
	}
	return c, err
}

// socketBuffer is asked for on every socket, as every library here would. The
// windows of the tests do with what the kernel grants at least
// (net.core.rmem_max).
const socketBuffer = 4 << 20

func enlarge(c *net.UDPConn) {
	c.SetReadBuffer(socketBuffer)
	c.SetWriteBuffer(socketBuffer)
}

// openPair is two connections that are connected to each other.
func (s site) openPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	var ports [2]*net.UDPAddr
	for i := range ports { // free now, and the system hands them out again last
		c := s.newSocket(t, i)
		ports[i] = c.LocalAddr().(*net.UDPAddr)
		c.Close()
	}
	var conns [2]net.Conn
	for i := range conns {
		err := s.ends[i].do(func() error {
			c, err := net.DialUDP("udp4", ports[i], ports[1-i])
			if err == nil {
				enlarge(c)
				conns[i] = s.wrap(t, c, nil).(net.Conn)
				t.Cleanup(func() { conns[i].Close() })
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return conns[0], conns[1]
}
