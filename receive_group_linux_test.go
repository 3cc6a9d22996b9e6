// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/netns"
)

// A multicast is a group that is reached by an interface, and where its members
// and its sender are.
type multicast struct {
	network      string
	group        netip.Addr
	members, out *netns.Namespace
	memberLink   *netns.Link
	outLink      *netns.Link
	merges       bool // runs come whole
}

// TestReceiveMulticast: each member of a group gets all that is sent to it, as
// it was sent, whether the member coalesces or not.
func TestReceiveMulticast(t *testing.T) {
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) {
		netns.Check(t, netns.OneProcessor())
		w, err := ns.Wire(netns.WireConfig{})
		netns.Check(t, err)
		defer w.Close()
		lo := ns.Loopback()
		for _, m := range []multicast{
			{"udp4", netip.MustParseAddr("224.0.0.113"), ns, ns, lo, lo, true},
			{"udp4", netip.MustParseAddr("224.0.0.113"), w.Far.Namespace, w.Near.Namespace, w.Far.Link, w.Near.Link, false},
			{"udp6", netip.MustParseAddr("ff02::113"), w.Far.Namespace, w.Near.Namespace, w.Far.Link, w.Near.Link, false},
		} {
			for _, gso := range []GSOMode{GSOAuto, GSOOff} {
				t.Run(fmt.Sprint(m.network, m.outLink.Name(), gso), func(t *testing.T) { m.test(t, gso) })
			}
		}
	})
}

func (m multicast) test(t *testing.T, gso GSOMode) {
	const burst, bursts = 100, 6
	out := newConn(t, m.sender(t), &Config{GSO: gso})
	members, to := m.join(t)
	for first := 0; first < burst*bursts; first += burst {
		var msgs []OutputMessage
		for i := range burst {
			msgs = append(msgs, OutputMessage{Addr: to, Vectors: [][]byte{contents(first+i, runSize(i))}})
		}
		if err := sendAll(out, nil, msgs); err != nil {
			t.Fatal(err)
		}
		for _, c := range members {
			c.SetReadDeadline(time.Now().Add(patience))
			for i := range burst {
				p := make([]byte, 2000)
				k, _, err := c.ReadFromUDPAddrPort(p)
				if want := contents(first+i, runSize(i)); err != nil || !bytes.Equal(p[:k], want) {
					t.Fatalf("datagram %d is %s, %v; want %s", first+i, brief(p[:k]), err, brief(want))
				}
			}
		}
	}
	for _, c := range members {
		nothingMore(t, c)
		if s := c.Stats(); s.Received != burst*bursts || m.merges && s.GRO && gso == GSOAuto && s.Coalesced == 0 {
			t.Errorf("%+v", s)
		}
	}
}

// join makes a member of each mode, and says where to reach them.
func (m multicast) join(t *testing.T) (members []*Conn, to netip.AddrPort) {
	t.Helper()
	for _, mode := range []GROMode{GROAuto, GROOn, GROOff} {
		var u *net.UDPConn
		err := m.members.Do(func() (err error) {
			ifi := &net.Interface{Index: m.memberLink.Index(), Name: m.memberLink.Name()}
			u, err = net.ListenMulticastUDP(m.network, ifi, &net.UDPAddr{IP: m.group.AsSlice(), Port: int(to.Port())})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		growBuffer(u)
		to = netip.AddrPortFrom(m.group, addrPortOf(u).Port())
		members = append(members, newConn(t, u, &Config{GRO: mode}))
	}
	return members, to
}

// sender is a socket that sends to groups by the link.
func (m multicast) sender(t *testing.T) *net.UDPConn {
	t.Helper()
	var any netip.Addr
	if any = netip.IPv4Unspecified(); m.network == "udp6" {
		any = netip.IPv6Unspecified()
	}
	u, err := m.out.ListenUDP(m.network, netip.AddrPortFrom(any, 0))
	netns.Check(t, err)
	ifi := &net.Interface{Index: m.outLink.Index(), Name: m.outLink.Name()}
	if m.network == "udp4" {
		control(t, u, func(fd int) error { // x/net asks for the interface's address, in the network of the process
			return unix.SetsockoptIPMreqn(fd, unix.SOL_IP, unix.IP_MULTICAST_IF, &unix.IPMreqn{Ifindex: int32(ifi.Index)})
		})
	} else if err := ipv6.NewPacketConn(u).SetMulticastInterface(ifi); err != nil {
		t.Fatal(err)
	}
	return u
}

// reusePort opens n sockets of one address (socket(7), SO_REUSEPORT).
func reusePort(t *testing.T, n int) (sockets []*net.UDPConn) {
	t.Helper()
	cfg := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
		return err
	}}
	addr := "127.0.0.1:0"
	for range n {
		c, err := cfg.ListenPacket(context.Background(), "udp4", addr)
		if err != nil {
			t.Fatal(err)
		}
		addr = c.LocalAddr().String()
		growBuffer(c.(*net.UDPConn))
		sockets = append(sockets, c.(*net.UDPConn))
	}
	return sockets
}

// TestReceiveReusePort: of two sockets with one address each flow is one's
// alone, and gets there whole and in order; what turns coalescing off on the
// one leaves the other as it is.
func TestReceiveReusePort(t *testing.T) {
	u := reusePort(t, 2)
	conns := []*Conn{newConn(t, u[0], &Config{GRO: GROOn}), newConn(t, u[1], nil)}
	if !conns[0].Stats().GRO {
		t.Skip(conns[0].Stats().GROReason)
	}
	owner := make(map[netip.AddrPort]int)
	next := make(map[netip.AddrPort]uint64)
	flows := make([]*Conn, 16)
	for i := range flows {
		flows[i] = newConn(t, listen(t, "udp4", "127.0.0.1"), &Config{GSO: GSOMode(i % 2)})
	}
	for round := range 20 {
		for _, out := range flows {
			sendNumbered(t, out, addrPortOf(u[0]), round*20, 20)
		}
		for total := 0; total < 20*len(flows); {
			for i, c := range conns {
				total += drainNumbered(t, c, i, owner, next)
			}
		}
		if round == 10 {
			f, err := conns[0].File()
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
		}
	}
	for i, c := range conns {
		nothingMore(t, c)
		if s := c.Stats(); s.GRO != (i == 1) {
			t.Errorf("socket %d: %+v", i, s)
		}
	}
}

// sendNumbered sends n datagrams that hold their numbers.
func sendNumbered(t *testing.T, out *Conn, to netip.AddrPort, first, n int) {
	t.Helper()
	var p []byte
	for i := range n {
		p = binary.BigEndian.AppendUint64(p, uint64(first+i))
	}
	if err := sendAll(out, nil, AppendSegments(nil, to, p, 8, nil)); err != nil {
		t.Fatal(err)
	}
}

// drainNumbered reads what c has, in order of each flow, and of no flow that
// another socket has had something of.
func drainNumbered(t *testing.T, c *Conn, socket int, owner map[netip.AddrPort]int, next map[netip.AddrPort]uint64) (n int) {
	t.Helper()
	for ; ; n++ {
		p := make([]byte, 100)
		k, from, err := c.ReceiveFrom(nil, p, MsgDontWait)
		if err != nil {
			return n
		}
		if other, ok := owner[from]; ok && other != socket {
			t.Fatalf("flow %v came to both sockets", from)
		}
		owner[from] = socket
		if k != 8 || binary.BigEndian.Uint64(p) != next[from] {
			t.Fatalf("flow %v: %x, want %d", from, p[:k], next[from])
		}
		next[from]++
	}
}
