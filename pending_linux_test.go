// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"encoding/binary"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

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
	msgs := slices.Repeat([]OutputMessage{{Vectors: vectorsOf(60000, sys.MaxVectors+1), BytesSent: untouched}}, 100)
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
		if i < n && m.BytesSent != 60000 || i >= n && m.BytesSent != untouched {
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
	n, err = w.conn.SendTo(nil, []byte("pending"), netip.AddrPort{}, 0)
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

// TestPending: whatever ICMP leaves pending on a connected socket, met after n
// > 0, is told by the next send, before it sends.
func TestPending(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for code, errno := range map[byte]syscall.Errno{ // net/ipv4/icmp.c, icmp_err_convert
			2: unix.ENOPROTOOPT, 3: unix.ECONNREFUSED, 6: unix.ENETUNREACH, 7: unix.EHOSTDOWN, 8: unix.ENONET,
			9: unix.ENETUNREACH, 10: unix.EHOSTUNREACH, 13: unix.EHOSTUNREACH, 14: unix.EHOSTUNREACH, 15: unix.EHOSTUNREACH,
		} {
			testPending(t, connectedKind, errno, func(c *net.UDPConn) { unreachable(t, c, code, 0) })
		}
	})
}

// TestPending6 is TestPending over IPv6, with the errors that only that has.
func TestPending6(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for _, c := range []struct {
			typ, code byte
			errno     syscall.Errno
		}{ // net/ipv6/icmp.c, icmpv6_err_convert
			{1, 1, unix.EACCES}, {1, 5, unix.EACCES}, {1, 6, unix.EACCES},
			{1, 4, unix.ECONNREFUSED}, {1, 100, unix.EPROTO}, {4, 0, unix.EPROTO},
		} {
			testPending(t, kinds[4], c.errno, func(u *net.UDPConn) { unreachable6(t, u, c.typ, c.code) })
		}
	})
}

// testPending has icmp arrive after the kernel took the first batch.
func testPending(t *testing.T, k kind, errno syscall.Errno, icmp func(c *net.UDPConn)) {
	t.Helper()
	w := k.world(t, 1, &Config{GSO: GSOOff})
	var after *fake
	taken := 0 // by the first call
	after = follow(w.conn, func(call int, ms []ipv4.Message) (int, error) {
		n, err := after.ask(call, ms)
		if call == 1 {
			taken = n
			icmp(w.bare)
		}
		return n, err
	})
	m := w.write(t, maxBatch+1, inTurn, mixed)
	first, err := w.conn.SendMessages(nil, m.msgs, 0)
	if first != taken || first == 0 || err != nil {
		t.Fatalf("%v: %d, %v; want %d", errno, first, err, taken)
	}
	calls := w.conn.Stats().Calls
	n, err := w.conn.SendMessages(nil, m.msgs[first:], 0)
	if n != 0 || w.conn.Stats().Calls != calls {
		t.Errorf("%v: %d were sent before the error was told", errno, n)
	}
	checkError(t, err, errno)
	if n, err := w.conn.SendMessages(nil, m.msgs[first:], 0); n != len(m.msgs)-first || err != nil {
		t.Fatalf("after the error was told: %d, %v", n, err)
	}
	w.checkAll(t, m)
}

// TestWriterIdlePending: an idle write returns what is pending, as net's does:
// in the kernel, or here since an earlier send. It was not accepted then, and
// nobody else hears of it. A write in a burst returns nothing, and Flush does.
func TestWriterIdlePending(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for _, control := range [][]byte{nil, cmsgInt(unix.SOL_IP, unix.IP_TTL, 77)} {
			w := connectedKind.world(t, 1, nil)
			wr := NewWriter(w.conn, &WriterConfig{OnError: func(to netip.AddrPort, err error) { t.Errorf("OnError(%v, %v)", to, err) }})
			write := func(newest int64) error {
				wr.mu.Lock()
				wr.newest = newest
				wr.mu.Unlock()
				_, _, err := wr.WriteMsgUDPAddrPort([]byte("x"), control, netip.AddrPort{})
				return err
			}
			for _, pending := range []func(){
				func() { unreachable(t, w.bare, 3, 0) },
				func() { w.conn.send.pending.add(ended(os.NewSyscallError("sendmsg", refused))) },
			} {
				pending()
				checkError(t, write(0), refused)
				if err := errors.Join(write(0), wr.Flush(nil)); err != nil {
					t.Errorf("told again: %v", err)
				}
				w.inboxes[0].expect(t, [][]byte{[]byte("x")})
				pending()
				if err := write(math.MaxInt64); err != nil {
					t.Errorf("a write in a burst: %v", err)
				}
				checkError(t, wr.Flush(nil), refused)
				w.inboxes[0].expect(t, [][]byte{[]byte("x")})
			}
		}
	})
}

// TestPendingErrors: of the errors that several sends left pending none is
// lost.
func TestPendingErrors(t *testing.T) {
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

// unreachable answers a datagram of c, which is connected, with the ICMP
// message that its destination is unreachable, and waits until c has it
// pending. It needs a network namespace of the test's own.
func unreachable(t *testing.T, c *net.UDPConn, code byte, mtu uint16) {
	t.Helper()
	sendUnreachable(t, c.LocalAddr().(*net.UDPAddr), c.RemoteAddr().(*net.UDPAddr), code, mtu)
	awaitError(t, c)
}

// sendUnreachable says to from that its destination to is unreachable.
func sendUnreachable(t *testing.T, from, to *net.UDPAddr, code byte, mtu uint16) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
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
}

// unreachable6 is unreachable over IPv6, with the ICMPv6 message of a type and
// code.
func unreachable6(t *testing.T, c *net.UDPConn, typ, code byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMPV6)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	from, to := c.LocalAddr().(*net.UDPAddr), c.RemoteAddr().(*net.UDPAddr)
	m := []byte{typ, code, 0, 0, 0, 0, 0, 0} // RFC 4443; the kernel sums it up
	m = append(m, 0x60, 0, 0, 0, 0, 80, unix.IPPROTO_UDP, 64)
	m = append(append(m, from.IP.To16()...), to.IP.To16()...)
	for _, v := range []int{from.Port, to.Port, 80, 0} {
		m = binary.BigEndian.AppendUint16(m, uint16(v))
	}
	if err := unix.Sendto(fd, m, 0, &unix.SockaddrInet6{Addr: [16]byte(from.IP.To16())}); err != nil {
		t.Fatal(err)
	}
	awaitError(t, c)
}

// awaitError waits until an error is pending.
func awaitError(t *testing.T, c *net.UDPConn) {
	t.Helper()
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
