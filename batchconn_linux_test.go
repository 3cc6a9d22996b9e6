// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/netns"
	"github.com/batchconn/batchconn/internal/sys"
)

// replaceSocket puts another socket in the place of c's.
func replaceSocket(t *testing.T, c *net.UDPConn, domain, typ, protocol int) {
	t.Helper()
	other, err := unix.Socket(domain, typ|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		t.Skipf("no such socket here: %v", err)
	}
	defer unix.Close(other)
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.Dup3(other, int(fd), unix.O_CLOEXEC) })
	if err != nil {
		t.Fatal(err)
	}
}

// TestNewRejectsOtherSockets: what is no IPv4 or IPv6 datagram socket.
func TestNewRejectsOtherSockets(t *testing.T) {
	for _, test := range []struct {
		name        string
		domain, typ int
		says        string
	}{
		{"TCP", unix.AF_INET, unix.SOCK_STREAM, "not a datagram socket"},
		{"TCP over IPv6", unix.AF_INET6, unix.SOCK_STREAM, "not a datagram socket"},
		{"unix", unix.AF_UNIX, unix.SOCK_DGRAM, "not an IPv4 or IPv6 socket"},
		{"unix stream", unix.AF_UNIX, unix.SOCK_STREAM, "not a datagram socket"},
		{"netlink", unix.AF_NETLINK, unix.SOCK_DGRAM, "not an IPv4 or IPv6 socket"},
	} {
		t.Run(test.name, func(t *testing.T) {
			bare := listen(t, "udp4", "127.0.0.1")
			replaceSocket(t, bare, test.domain, test.typ, 0)
			c, err := New(bare, nil)
			if c != nil || err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("New = %v, %v; want an error with %q", c, err, test.says)
			}
		})
	}
}

// testRefusedByKernel: messages at and after which the kernel answers errno.
func testRefusedByKernel(t *testing.T, w *world, to netip.AddrPort, errno syscall.Errno) {
	t.Helper()
	w.testBad(t, bad{spoil: func(_ *world, m *OutputMessage) { m.Addr = to }, want: errno}, 0)
	w.testBad(t, bad{spoil: func(_ *world, m *OutputMessage) { m.Addr = to }, want: errno}, 7)
}

// TestBroadcastWithoutPermission: net allows broadcast; an owner that takes
// that back gets EACCES.
func TestBroadcastWithoutPermission(t *testing.T) {
	for _, k := range []kind{kinds[0], kinds[2]} {
		w := k.world(t, 3, nil)
		if err := controlErr(w.bare, option(unix.SOL_SOCKET, unix.SO_BROADCAST, 0)); err != nil {
			t.Fatal(err)
		}
		testRefusedByKernel(t, w, netip.MustParseAddrPort("127.255.255.255:9"), syscall.EACCES)
	}
}

// TestFlagsReachTheKernel: MSG_MORE makes one datagram of many messages.
func TestFlagsReachTheKernel(t *testing.T) {
	forEachKind(t, 1, nil, func(t *testing.T, w *world) {
		to := w.dest[0]
		msgs := []OutputMessage{{Addr: to, Vectors: [][]byte{[]byte("one ")}}, {Addr: to, Vectors: [][]byte{[]byte("two ")}}}
		if n, err := w.conn.SendMessages(nil, msgs, unix.MSG_MORE); n != 2 || err != nil || msgs[1].BytesSent != 4 {
			t.Fatalf("SendMessages = %d, %v", n, err)
		}
		if n, err := w.conn.WriteBatch(xnetMessages(msgs), unix.MSG_MORE|MsgDontWait); n != 2 || err != nil {
			t.Fatalf("WriteBatch = %d, %v", n, err)
		}
		if n, err := w.conn.SendTo(nil, []byte("last"), to, 0); n != 4 || err != nil {
			t.Fatalf("SendTo = %d, %v", n, err)
		}
		w.inboxes[0].expect(t, [][]byte{[]byte("one two one two last")})
	})
}

// TestControl: each message goes with its own control data.
func TestControl(t *testing.T) {
	t.Run("udp4", func(t *testing.T) {
		w := kinds[0].world(t, 1, nil)
		msgs := make([]OutputMessage, 20)
		for i := range msgs {
			cm := ipv4.ControlMessage{Src: net.IPv4(127, 0, 0, byte(2+i/3))}
			msgs[i] = OutputMessage{Addr: w.dest[0], Control: cm.Marshal()}
		}
		if n, err := w.conn.SendMessages(nil, msgs, 0); n != len(msgs) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		w.inboxes[0].conn.SetReadDeadline(time.Now().Add(patience))
		for i := range msgs {
			_, from, err := w.inboxes[0].conn.ReadFromUDPAddrPort(nil)
			if want := netip.AddrFrom4([4]byte{127, 0, 0, byte(2 + i/3)}); err != nil || from.Addr() != want {
				t.Fatalf("message %d came from %v, %v; want %v", i, from, err, want)
			}
		}
	})
	t.Run("udp6", func(t *testing.T) {
		w := kinds[1].world(t, 1, nil)
		msgs := make([]OutputMessage, 20)
		for i := range msgs {
			cm := ipv6.ControlMessage{HopLimit: 30 + i/3}
			msgs[i] = OutputMessage{Addr: w.dest[0], Control: cm.Marshal(), Vectors: [][]byte{{byte(i)}}}
		}
		in := ipv6.NewPacketConn(w.inboxes[0].conn)
		if err := in.SetControlMessage(ipv6.FlagHopLimit, true); err != nil {
			t.Fatal(err)
		}
		ms := xnetMessages(msgs)
		if n, err := w.conn.WriteBatch(ms, 0); n != len(msgs) || err != nil || ms[3].NN != len(ms[3].OOB) {
			t.Fatalf("%d, %v, NN %d of %d", n, err, ms[3].NN, len(ms[3].OOB))
		}
		in.SetReadDeadline(time.Now().Add(patience))
		p := make([]byte, 10)
		for i := range msgs {
			_, cm, _, err := in.ReadFrom(p)
			if err != nil || p[0] != byte(i) || cm.HopLimit != 30+i/3 {
				t.Fatalf("message %d: %d with %v, %v", i, p[0], cm, err)
			}
		}
	})
}

// TestNoRoute: in a network of its own, where there is none.
func TestNoRoute(t *testing.T) {
	inNamespace(t, func(t *testing.T, _ *loopback) {
		if err := sendNowhere(); err != nil {
			t.Error(err)
		}
	})
}

func sendNowhere() error {
	for _, test := range []struct{ network, to string }{
		{"udp4", "192.0.2.1:9"}, {"udp6", "[2001:db8::1]:9"}, {"udp", "192.0.2.1:9"}, {"udp", "[::ffff:192.0.2.1]:9"},
	} {
		bare, err := net.ListenUDP(test.network, nil)
		if err != nil {
			return err
		}
		c, err := New(bare, nil)
		if err != nil {
			return err
		}
		defer c.Close()
		_, netErr := bare.WriteToUDPAddrPort(nil, netip.MustParseAddrPort(test.to))
		var want syscall.Errno // ENETUNREACH; EADDRNOTAVAIL over IPv6 without any address
		if !errors.As(netErr, &want) {
			return fmt.Errorf("%s to %s: net answers %v", test.network, test.to, netErr)
		}
		msgs := slices.Repeat([]OutputMessage{{Addr: netip.MustParseAddrPort(test.to), BytesSent: untouched}}, 3)
		if n, err := c.SendMessages(nil, msgs, 0); n != 0 || !errors.Is(err, want) || msgs[2].BytesSent != untouched {
			return fmt.Errorf("%s to %s: %d, %v", test.network, test.to, n, err)
		}
		n, err := c.SendEach(nil, msgs, 0)
		var batchErr *BatchError
		if n != 3 || !errors.As(err, &batchErr) || len(batchErr.Failed) != 3 || !errors.Is(err, want) {
			return fmt.Errorf("%s to %s: SendEach = %d, %v", test.network, test.to, n, err)
		}
	}
	return nil
}

// TestZones: zoned addresses reach, or fail to reach, what they do with net.
func TestZones(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		wire, err := lo.ns.Wire(netns.WireConfig{})
		netns.Check(t, err)
		defer wire.Close()
		if !wire.Near.IPv6.IsValid() {
			t.Skip("the system has no IPv6")
		}
		ip := netip.MustParseAddr("fe80::b")
		netns.Check(t, wire.Near.Link.AddAddr(netip.PrefixFrom(ip, 64)))
		testZones(t, ip, wire.Near.Link)
	})
}

func testZones(t *testing.T, ip netip.Addr, link *netns.Link) {
	t.Helper()
	rcv, err := net.ListenUDP("udp6", &net.UDPAddr{IP: ip.AsSlice(), Zone: link.Name()})
	if err != nil {
		t.Fatal(err)
	}
	defer rcv.Close()
	port := uint16(rcv.LocalAddr().(*net.UDPAddr).Port)
	in := &inbox{rcv, netip.AddrPortFrom(ip.WithZone(link.Name()), port)}
	for _, network := range []string{"udp", "udp6"} {
		bare := listen(t, network, "::")
		c, err := New(listen(t, network, "::"), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for _, zone := range []string{link.Name(), strconv.Itoa(link.Index()), "", "nosuch0", "lo", "4000000"} {
			to := netip.AddrPortFrom(ip.WithZone(zone), port)
			_, netErr := bare.WriteToUDPAddrPort([]byte("net"), to)
			n, err := c.SendMessages(nil, []OutputMessage{{Addr: to, Vectors: [][]byte{[]byte("we")}}}, 0)
			var errno syscall.Errno
			if errors.As(netErr, &errno) {
				checkError(t, err, errno)
			} else if n != 1 || err != nil {
				t.Errorf("zone %q: %d, %v where net sends", zone, n, err)
			}
			got := (&world{inboxes: []*inbox{in}}).collect(t)
			mine := zone == link.Name() || zone == strconv.Itoa(link.Index())
			if mine && got != `"net" "we" | ` || strings.Contains(got, "net") != strings.Contains(got, "we") {
				t.Errorf("zone %q: arrived %s", zone, got)
			}
		}
	}
}

// guarded is size bytes that cannot be written to, with nothing behind them.
func guarded(t *testing.T, size int) []byte {
	t.Helper()
	page := unix.Getpagesize()
	pages := (size + page - 1) / page * page
	mem, err := unix.Mmap(-1, 0, pages+page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Munmap(mem) })
	p := mem[pages-size : pages]
	copy(p, contents(size, size))
	if err := errors.Join(unix.Mprotect(mem[:pages], unix.PROT_READ), unix.Mprotect(mem[pages:], unix.PROT_NONE)); err != nil {
		t.Fatal(err)
	}
	return p
}

// TestBuffersAreOnlyRead: a write to them, or a read past them, would end the
// process or be EFAULT.
func TestBuffersAreOnlyRead(t *testing.T) {
	forEachKind(t, 2, nil, func(t *testing.T, w *world) {
		p := guarded(t, 5000)
		for _, vectors := range []int{1, 1024, 1025, 3000} {
			var vs []OutputVector
			for i := range vectors {
				vs = append(vs, p[i*len(p)/vectors:(i+1)*len(p)/vectors])
			}
			msgs := []OutputMessage{{Addr: w.dest[0], Vectors: vs}, {Addr: w.dest[0], Vectors: vs}}
			if n, err := w.conn.SendMessages(nil, msgs, 0); n != 2 || err != nil {
				t.Fatalf("%d vectors: %d, %v", vectors, n, err)
			}
			if n, err := w.conn.WriteBatch(xnetMessages(msgs), 0); n != 2 || err != nil {
				t.Fatalf("WriteBatch, %d vectors: %d, %v", vectors, n, err)
			}
			w.inboxes[0].expect(t, [][]byte{p, p, p, p})
		}
		msgs := AppendSegments(nil, w.dest[0], p, 1200, nil)
		if n, err := w.conn.SendMessages(nil, msgs, 0); n != len(msgs) || err != nil {
			t.Fatalf("segments: %d, %v", n, err)
		}
		w.inboxes[0].expect(t, [][]byte{p[:1200], p[1200:2400], p[2400:3600], p[3600:4800], p[4800:]})
	})
}

// TestZeroCopyVectors: with MSG_ZEROCOPY the kernel reads after the call, so
// that nothing may be copied into a buffer of ours.
func TestZeroCopyVectors(t *testing.T) {
	if !sys.HaveBatchCall {
		t.Skip("flags of Linux are not looked at by the portable path")
	}
	forEachKind(t, 1, nil, func(t *testing.T, w *world) {
		vectors := make([][]byte, sys.MaxVectors+1)
		for i := range vectors {
			vectors[i] = []byte{byte(i)}
		}
		msgs := []OutputMessage{{Addr: w.dest[0], Vectors: vectors}}
		if n, err := w.conn.SendMessages(nil, msgs, unix.MSG_ZEROCOPY); n != 0 || !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("%d vectors: %d, %v", len(vectors), n, err)
		}
		if n, err := w.conn.SendMessages(nil, msgs, 0); n != 1 || err != nil {
			t.Errorf("without the flag: %d, %v", n, err)
		}
	})
}
