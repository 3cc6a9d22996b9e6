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

func init() {
	growBuffer = func(c *net.UDPConn) {
		if setOption(c, unix.SO_RCVBUFFORCE, 16<<20) != nil { // needs CAP_NET_ADMIN
			c.SetReadBuffer(16 << 20)
		}
	}
	bufferSize = func(c *net.UDPConn) int {
		raw, err := c.SyscallConn()
		if err != nil {
			return 0
		}
		size := 0
		raw.Control(func(fd uintptr) { size, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF) })
		return size
	}
}

// setOption sets an option of SOL_SOCKET.
func setOption(c *net.UDPConn, option, value int) (err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, value) })
	return err
}

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

// TestNewRefusesOtherSockets: what is no IPv4 or IPv6 datagram socket.
func TestNewRefusesOtherSockets(t *testing.T) {
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

// TestBroadcastWithoutPermission: net allows broadcast; who takes that back
// gets EACCES.
func TestBroadcastWithoutPermission(t *testing.T) {
	for _, k := range []kind{kinds[0], kinds[2]} {
		w := k.world(t, 3, nil)
		if err := setOption(w.bare, unix.SO_BROADCAST, 0); err != nil {
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

// TestReceiverGone: the error of a connected peer that is gone, met after
// others were sent, is told by the next send, before it sends.
func TestReceiverGone(t *testing.T) {
	for _, k := range []kind{kinds[3], kinds[4], kinds[5]} {
		t.Run(k.name, func(t *testing.T) {
			for end := time.Now().Add(3 * time.Second); !testReceiverGone(t, k); time.Sleep(20 * time.Millisecond) {
				if time.Now().Before(end) {
					continue
				}
				if k.name != "udp6-connected" { // ICMPv6 is not limited on loopback
					t.Skip("the kernel makes too few ICMP errors over IPv4 at the moment")
				}
				t.Fatal("the kernel's error never came between two of its calls")
			}
		})
	}
}

// testReceiverGone reports false if the kernel told of the peer at another
// moment than the one that is tested: only an error that comes between two of
// its calls is seen after n > 0, and it makes but 50 in a burst over IPv4
// (icmp_msgs_burst). So the messages are such that few fit in a call.
func testReceiverGone(t *testing.T, k kind) bool {
	t.Helper()
	w := k.world(t, 1, nil)
	in := w.inboxes[0]
	in.conn.Close()
	msgs := slices.Repeat([]OutputMessage{{Vectors: vectorsOf(60000, sys.MaxVectors+1), BytesSent: -1}}, 100)
	n, err := w.conn.SendMessages(nil, msgs, 0)
	if err != nil {
		if n != 0 {
			t.Fatalf("n = %d with %v", n, err)
		}
		checkError(t, err, syscall.ECONNREFUSED)
		return false
	}
	if n == len(msgs) {
		return false
	}
	for i, m := range msgs {
		if i < n && m.BytesSent != 60000 || i >= n && m.BytesSent != 0 {
			t.Fatalf("n = %d: BytesSent of %d is %d", n, i, m.BytesSent)
		}
	}
	again, err := net.ListenUDP(networkOfHost(in.addr.Addr().String()), net.UDPAddrFromAddrPort(in.addr))
	if err != nil {
		return false // somebody else took the port
	}
	defer again.Close()
	socketError(t, w.bare) // of the last that was sent, if it came late
	calls := w.conn.Stats().Calls
	n, err = w.conn.SendTo(nil, []byte("kept"), netip.AddrPort{}, 0)
	if n != 0 || w.conn.Stats().Calls != calls {
		t.Fatalf("n = %d, %v after %d calls of the kernel", n, err, w.conn.Stats().Calls-calls)
	}
	checkError(t, err, syscall.ECONNREFUSED)
	if n, err := w.conn.SendTo(nil, []byte("next"), netip.AddrPort{}, 0); n != 4 || err != nil {
		t.Fatalf("after the error was told: %d, %v", n, err)
	}
	(&inbox{again, in.addr}).expect(t, [][]byte{[]byte("next")})
	return true
}

// TestKept: whatever ICMP leaves pending on a connected socket, met after n > 0,
// is told by the next send, before it sends.
func TestKept(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for code, errno := range map[byte]syscall.Errno{ // net/ipv4/icmp.c, icmp_err_convert
			2: unix.ENOPROTOOPT, 3: unix.ECONNREFUSED, 6: unix.ENETUNREACH, 7: unix.EHOSTDOWN, 8: unix.ENONET,
			9: unix.ENETUNREACH, 10: unix.EHOSTUNREACH, 13: unix.EHOSTUNREACH, 14: unix.EHOSTUNREACH, 15: unix.EHOSTUNREACH,
		} {
			w := connectedKind.world(t, 1, &Config{GSO: GSOOff})
			after := &afterFirst{adapter: w.conn.send.kernel, do: func() { unreachable(t, w.bare, code, 0) }}
			w.conn.send.kernel = after
			if !sys.HaveBatchCall {
				after.adapter, w.conn.send.portable = w.conn.send.portable, after
			}
			m := w.write(t, maxBatch+1, inTurn, mixed)
			first, err := w.conn.SendMessages(nil, m.msgs, 0)
			if first != after.sent || first == 0 || err != nil {
				t.Fatalf("ICMP code %d: %d, %v; want %d", code, first, err, after.sent)
			}
			calls := w.conn.Stats().Calls
			n, err := w.conn.SendMessages(nil, m.msgs[first:], 0)
			if n != 0 || w.conn.Stats().Calls != calls {
				t.Errorf("ICMP code %d: %d were sent before the error was told", code, n)
			}
			checkError(t, err, errno)
			if n, err := w.conn.SendMessages(nil, m.msgs[first:], 0); n != len(m.msgs)-first || err != nil {
				t.Fatalf("after the error was told: %d, %v", n, err)
			}
			w.checkAll(t, m)
		}
	})
}

// TestKeptErrors: of the errors that several sends kept none is lost.
func TestKeptErrors(t *testing.T) {
	w := connectedKind.world(t, 1, nil)
	first, second := errors.New("first"), errors.New("second")
	w.conn.send.pending.add(ended(first))
	w.conn.send.pending.add(ended(second))
	told := map[error]bool{}
	for range 2 {
		n, err := w.conn.SendTo(nil, []byte("x"), netip.AddrPort{}, 0)
		if n != 0 {
			t.Errorf("%d bytes were sent before all was told", n)
		}
		told[cause(err)] = true
	}
	if !told[first] || !told[second] {
		t.Errorf("told of %v", told)
	}
	if n, err := w.conn.SendTo(nil, []byte("x"), netip.AddrPort{}, 0); n != 1 || err != nil {
		t.Errorf("after all was told: %d, %v", n, err)
	}
}

// An afterFirst does something when the kernel has taken the first batch.
type afterFirst struct {
	adapter
	do   func()
	sent int
}

func (a *afterFirst) writeBatch(ms []ipv4.Message, flags int) (int, error) {
	n, err := a.adapter.writeBatch(ms, flags)
	if a.sent == 0 {
		a.sent = n
		a.do()
	}
	return n, err
}

// unreachable answers a datagram of c, which is connected, with the ICMP message
// that its destination is unreachable, and waits until c has it pending. It
// needs a network namespace of the test's own.
func unreachable(t *testing.T, c *net.UDPConn, code byte, mtu uint16) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	from, to := c.LocalAddr().(*net.UDPAddr), c.RemoteAddr().(*net.UDPAddr)
	m := []byte{3, code, 0, 0, 0, 0, byte(mtu >> 8), byte(mtu)} // RFC 792, RFC 1191
	m = append(m, 0x45, 0, 0, 100, 0, 0, 0x40, 0, 64, unix.IPPROTO_UDP, 0, 0)
	m = append(append(m, from.IP.To4()...), to.IP.To4()...)
	for _, v := range []int{from.Port, to.Port, 80, 0} {
		m = binary.BigEndian.AppendUint16(m, uint16(v))
	}
	sum := uint32(0)
	for i := 0; i < len(m); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(m[i:]))
	}
	binary.BigEndian.PutUint16(m[2:], ^uint16(sum+sum>>16))
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrInet4{Addr: [4]byte(from.IP.To4())}); err != nil {
		t.Fatal(err)
	}
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	await(t, "an error is pending", func() bool {
		fds := []unix.PollFd{{}}
		raw.Control(func(fd uintptr) {
			fds[0].Fd = int32(fd)
			unix.Poll(fds, 0)
		})
		return fds[0].Revents&unix.POLLERR != 0
	})
}

// pendingError takes the socket's pending error.
func socketError(t *testing.T, c *net.UDPConn) (errno int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { errno, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR) })
	if err != nil {
		t.Fatal(err)
	}
	return errno
}

// TestUnconnectedDoesNotHear: an unconnected socket is told nothing of a
// receiver that is gone, and sends on.
func TestUnconnectedDoesNotHear(t *testing.T) {
	for _, k := range kinds[:3] {
		w := k.world(t, 3, nil)
		m := w.write(t, 300, inTurn, mixed)
		w.inboxes[0].conn.Close()
		if n, err := w.conn.SendMessages(nil, m.msgs, 0); n != 300 || err != nil {
			t.Errorf("%s: %d, %v", k.name, n, err)
		}
	}
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
		msgs := slices.Repeat([]OutputMessage{{Addr: netip.MustParseAddrPort(test.to), BytesSent: -1}}, 3)
		if n, err := c.SendMessages(nil, msgs, 0); n != 0 || !errors.Is(err, want) || msgs[2].BytesSent != 0 {
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
// that nothing may be gathered into a buffer of ours.
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
