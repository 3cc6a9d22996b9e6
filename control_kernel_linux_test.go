// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/batchconn/batchconn/internal/netns"
	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"
)

// answer replies to what the server reads next, from the address that was
// asked, and returns what was parsed.
func answer(t testing.TB, server *Conn, keep ControlFlags) ControlMessage {
	t.Helper()
	p, m, from := server.next(t)
	reply := m
	reply.Flags &= keep
	msg := OutputMessage{Addr: from, Vectors: [][]byte{p}, Control: reply.Append(nil, from.Addr())}
	if _, err := server.SendMessage(nil, &msg, 0); err != nil {
		t.Fatalf("answer with %+v: %v", reply, err)
	}
	return m
}

// asked sends a question and expects its answer from an address.
func asked(t testing.TB, client, server *Conn, to, source netip.Addr, keep ControlFlags) ControlMessage {
	t.Helper()
	send1(t, client, netip.AddrPortFrom(to, server.port()), nil)
	m := answer(t, server, keep)
	if _, _, from := client.next(t); from != netip.AddrPortFrom(source, server.port()) {
		t.Errorf("asked at %v, answered from %v, want %v", to, from, source)
	}
	return m
}

const replyFields = ControlLocal | ControlInterface

// TestControlReply answers from the address that was asked, of several.
func TestControlReply(t *testing.T) {
	for _, network := range []string{"udp4", "udp"} {
		for _, keep := range []ControlFlags{ControlLocal, replyFields} {
			t.Run(fmt.Sprintf("%s/%#x", network, keep), func(t *testing.T) {
				server := controlConn(t, network, map[string]string{"udp4": "0.0.0.0", "udp": "::"}[network], allControl)
				client := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
				for _, host := range []string{"127.0.0.2", "127.1.2.3", "127.0.0.1"} {
					addr := netip.MustParseAddr(host)
					if m := asked(t, client, server, addr, addr, keep); m.Local != addr || m.Dst != addr {
						t.Errorf("asked at %v: %+v", addr, m)
					}
				}
				// Without, the kernel picks.
				asked(t, client, server, netip.MustParseAddr("127.0.0.2"), netip.MustParseAddr("127.0.0.1"), 0)
			})
		}
	}
}

// TestControlOverWire asks from the other end of a wire, at a broadcast
// address, at groups and at link-local addresses.
func TestControlOverWire(t *testing.T) {
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) {
		w, err := ns.Wire(netns.WireConfig{})
		netns.Check(t, err)
		defer w.Close()
		near, far := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2")
		netns.Check(t, w.Near.Link.AddAddr(netip.PrefixFrom(near, 64)))
		netns.Check(t, w.Far.Link.AddAddr(netip.PrefixFrom(far, 64)))
		broadcast := w.Near.IPv4.As4()
		broadcast[3] = 255
		zone := strconv.Itoa(w.Far.Link.Index())
		link, linkGroup := near.WithZone(zone), netip.MustParseAddr("ff02::9:1%"+zone)
		for _, q := range []question{
			{network: "udp4", to: w.Near.IPv4, local: w.Near.IPv4},
			{network: "udp", to: w.Near.IPv4, local: w.Near.IPv4},
			{network: "udp", to: w.Near.IPv6, local: w.Near.IPv6},
			{network: "udp4", to: netip.AddrFrom4(broadcast), local: w.Near.IPv4},
			{network: "udp", to: netip.AddrFrom4(broadcast), local: w.Near.IPv4},
			{network: "udp4", to: netip.MustParseAddr("255.255.255.255"), local: w.Near.IPv4},
			{network: "udp", to: netip.MustParseAddr("255.255.255.255"), local: w.Near.IPv4},
			{network: "udp4", to: netip.MustParseAddr("239.9.0.1"), local: w.Near.IPv4, group: true},
			{network: "udp", to: netip.MustParseAddr("239.9.0.1"), local: w.Near.IPv4, group: true},
			// Of IPv6 the kernel does not say which address to answer from. It picks.
			{network: "udp6", to: netip.MustParseAddr("ff05::9:1"), answers: w.Near.IPv6, group: true},
			{network: "udp", to: netip.MustParseAddr("ff05::9:1"), answers: w.Near.IPv6, group: true},
			{network: "udp6", to: linkGroup, answers: near, group: true},
			{network: "udp", to: linkGroup, answers: near, group: true},
			{network: "udp6", to: link, local: near},
			{network: "udp", to: link, local: near},
		} {
			t.Run(fmt.Sprintf("%s %v", q.network, q.to), func(t *testing.T) { q.ask(t, w) })
		}
	})
}

// A question is asked from the far end of a wire, at an address of the near
// end.
type question struct {
	network string // of the server
	to      netip.Addr
	local   netip.Addr // what Local is to be; zero: not set
	answers netip.Addr // where the answer is to come from; zero: local
	group   bool
}

func (q question) ask(t *testing.T, w *netns.Wire) {
	u, err := w.Near.ListenUDP(q.network, netip.AddrPort{})
	netns.Check(t, err)
	server := newConn(t, u, nil)
	if err := server.ReceiveControl(allControl); err != nil {
		t.Fatal(err)
	}
	if q.group {
		err := w.Near.Do(func() error { return join(u, q.to, w.Near.Link.Index()) })
		if err != nil {
			t.Fatal(err)
		}
	}
	family := map[bool]string{true: "udp4", false: "udp6"}[q.to.Is4()]
	if u, err = w.Far.ListenUDP(family, netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	client := newConn(t, u, nil)
	mark := ControlMessage{Flags: ControlTOS | ControlTTL | ControlInterface, TOS: 1, TTL: 3, IfIndex: w.Far.Link.Index()}
	send1(t, client, netip.AddrPortFrom(q.to, server.port()), mark.Append(nil, q.to))
	m := answer(t, server, replyFields)
	want := ControlMessage{
		Flags:   allControl &^ ControlDropped,
		Dst:     q.to.WithZone(""),
		Local:   q.local,
		IfIndex: w.Near.Link.Index(),
		TOS:     mark.TOS,
		TTL:     mark.TTL,
		Time:    m.Time,
	}
	if !q.local.IsValid() {
		want.Flags &^= ControlLocal
	}
	if m != want {
		t.Errorf("got %+v\nwant %+v", m, want)
	}
	source := q.answers
	if !source.IsValid() {
		source = q.local
	}
	if _, _, from := client.next(t); from.Addr().WithZone("") != source || from.Port() != server.port() {
		t.Errorf("answered from %v, want %v", from, source)
	}
}

// join has a socket receive what is sent to a group.
func join(u *net.UDPConn, group netip.Addr, index int) error {
	ifi, addr := &net.Interface{Index: index}, &net.UDPAddr{IP: group.AsSlice()}
	if group.Is4() {
		return ipv4.NewPacketConn(u).JoinGroup(ifi, addr)
	}
	return ipv6.NewPacketConn(u).JoinGroup(ifi, addr)
}

// TestControlTXTime: Time is SO_TXTIME's, on CLOCK_MONOTONIC.
func TestControlTXTime(t *testing.T) {
	now := func() int64 {
		var ts unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		return ts.Nano()
	}
	to := netip.MustParseAddr("127.0.0.1")
	for _, later := range []time.Duration{time.Hour, 0, -time.Second} {
		for _, wall := range []bool{false, true} {
			earliest := now() + int64(later)
			m := ControlMessage{Flags: ControlTime, Time: time.Now().Add(later)}
			if wall {
				m.Time = m.Time.Round(0)
			}
			b := m.Append(nil, to)
			latest := now() + int64(later)
			h, data, rest, err := unix.ParseOneSocketControlMessage(b)
			if err != nil || len(rest) > 0 || h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_TXTIME || len(data) != 8 {
				t.Fatalf("%x: %v", b, err)
			}
			const slew = int64(time.Millisecond) // what the wall clock may be adjusted by meanwhile
			at := int64(binary.NativeEndian.Uint64(data))
			if at < earliest && !wall || at > latest && !wall || at < earliest-slew || at > latest+slew {
				t.Errorf("in %v, of a wall clock %v: %d is not from %d to %d", later, wall, at, earliest, latest)
			}
		}
	}
	long := ControlMessage{Flags: ControlTime, Time: time.Unix(0, 0)}
	if b := long.Append(nil, to); binary.NativeEndian.Uint64(b[unix.CmsgLen(0):]) != 0 {
		t.Errorf("1970 is %x, want 0: at once", b)
	}
}

// TestControlTXTimeSocket: the kernel takes the time if the socket has
// SO_TXTIME.
func TestControlTXTimeSocket(t *testing.T) {
	for _, p := range paths {
		t.Run(p.name, func(t *testing.T) {
			s := newConn(t, listen(t, p.network, p.from), nil)
			r := controlConn(t, p.receives, p.host, 0)
			to := netip.AddrPortFrom(p.to, r.port())
			m := ControlMessage{Flags: ControlTime | ControlTOS, Time: time.Now(), TOS: 2}
			msg := OutputMessage{Addr: to, Vectors: [][]byte{[]byte("x")}, Control: m.Append(nil, to.Addr())}
			if _, err := s.SendMessage(nil, &msg, 0); !errors.Is(err, syscall.EINVAL) {
				t.Errorf("without SO_TXTIME: %v, want EINVAL", err)
			}
			txtime := append(uint32s(unix.CLOCK_MONOTONIC), uint32s(0)...) // struct sock_txtime
			control(t, s, optionBytes(unix.SOL_SOCKET, unix.SO_TXTIME, txtime...))
			if _, err := s.SendMessage(nil, &msg, 0); err != nil {
				t.Errorf("with SO_TXTIME: %v", err)
			}
			r.next(t)
		})
	}
}

// queued reports whether there is something to read.
func queued(t testing.TB, c *Conn) bool {
	fds := []unix.PollFd{{Events: unix.POLLIN}}
	control(t, c, func(fd int) error {
		fds[0].Fd = int32(fd)
		_, err := unix.Poll(fds, 0)
		return err
	})
	return fds[0].Revents&unix.POLLIN != 0
}

// TestControlBufferSize: all that can be asked for, and all that can be sent,
// fits the buffers that the documentation names.
func TestControlBufferSize(t *testing.T) {
	s := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
	u := listen(t, "udp", "::")
	u.SetReadBuffer(4 << 10)
	r := newConn(t, u, nil)
	if err := r.ReceiveControl(allControl); err != nil {
		t.Fatal(err)
	}
	to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), r.port())
	for range 100 {
		send1(t, s, to, nil)
	}
	await(t, "the kernel drops something", func() bool { return r.Stats().Dropped > 0 })
	for queued(t, r) {
		r.next(t)
	}
	send1(t, s, to, nil)
	buf, oob := make([]byte, 10), make([]byte, 256)
	_, n, flags, _, err := r.ReadMsgUDPAddrPort(buf, oob)
	var m ControlMessage
	if err := errors.Join(err, m.Parse(oob[:n])); err != nil || flags&unix.MSG_CTRUNC != 0 || m.Flags != allControl {
		t.Errorf("%d bytes of control messages, flags %#x: %+v, %v", n, flags, m, err)
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		addr := netip.MustParseAddr(host)
		m := ControlMessage{Flags: allControl, Local: addr, IfIndex: 1, TOS: 2, TTL: 64, Time: time.Now()}
		if b := m.Append(nil, addr); len(b) > 128 {
			t.Errorf("to %s: %d bytes", host, len(b))
		}
	}
}

// TestReceiveControlOptions: a socket for IPv6 alone is asked for nothing of
// IPv4's, and what is refused changes nothing.
func TestReceiveControlOptions(t *testing.T) {
	options := [][2]int{
		{unix.SOL_IP, unix.IP_PKTINFO}, {unix.SOL_IP, unix.IP_RECVTOS}, {unix.SOL_IP, unix.IP_RECVTTL},
		{unix.SOL_IPV6, unix.IPV6_RECVPKTINFO}, {unix.SOL_IPV6, unix.IPV6_RECVTCLASS}, {unix.SOL_IPV6, unix.IPV6_RECVHOPLIMIT},
	}
	get := func(c *Conn) (values []int) {
		for _, o := range options {
			control(t, c, func(fd int) error {
				v, err := unix.GetsockoptInt(fd, o[0], o[1])
				if errors.Is(err, unix.ENOPROTOOPT) || errors.Is(err, unix.EOPNOTSUPP) {
					v, err = 0, nil // IPv6's, of an IPv4 socket
				}
				values = append(values, v)
				return err
			})
		}
		return values
	}
	for _, test := range []struct {
		network, host string
		want          []int
	}{
		{"udp4", "127.0.0.1", []int{1, 1, 1, 0, 0, 0}},
		{"udp6", "::1", []int{0, 0, 0, 1, 1, 1}},
		{"udp", "::", []int{1, 1, 1, 1, 1, 1}},
	} {
		c := controlConn(t, test.network, test.host, allControl)
		if got := get(c); !slices.Equal(got, test.want) {
			t.Errorf("%s: %d, want %d", test.network, got, test.want)
		}
		if err := c.ReceiveControl(1 << 10); !errors.Is(err, errors.ErrUnsupported) {
			t.Error(err)
		}
		if got := get(c); !slices.Equal(got, test.want) {
			t.Errorf("%s, after a refusal: %d, want %d", test.network, got, test.want)
		}
		if err := c.ReceiveControl(0); err != nil {
			t.Error(err)
		}
		if got := get(c); !slices.Equal(got, make([]int, 6)) {
			t.Errorf("%s, nothing asked for: %d", test.network, got)
		}
	}
}
