// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package batchconn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/netns"
)

// refuse puts before the real adapter a kernel that refuses messages as
// sendmmsg(2) does it: those before go, and the next call fails. It takes so
// many messages in a call, or with 0 all. f is told the size of the segments, 0
// for a plain message. A send that goes on for ever ends with ECANCELED.
func refuse(t *testing.T, c *Conn, takes int, f func(size int, m *ipv4.Message) error) {
	var r *fake
	r = replaceAdapter(&c.send.kernel, func(call int, ms []ipv4.Message) (int, error) {
		if call > 100_000 {
			return 0, os.NewSyscallError("sendmmsg", syscall.ECANCELED)
		}
		if takes > 0 {
			ms = ms[:min(takes, len(ms))]
		}
		for i := range ms {
			size, _ := segmentSize(t, ms[i].OOB)
			if err := f(size, &ms[i]); err != nil {
				if i == 0 {
					return 0, os.NewSyscallError("sendmmsg", err)
				}
				ms = ms[:i]
				break
			}
		}
		return r.ask(call, ms)
	})
}

// fallBackSizes are three runs with a plain message between each two.
var fallBackSizes = slices.Concat(slices.Repeat([]int{100}, 8), []int{250}, slices.Repeat([]int{300}, 8), []int{450}, slices.Repeat([]int{500}, 8))

// The runs in fallBackSizes: where they begin, and what a batch with that one
// refused is in kernel calls and segmented datagrams, with no size at or above
// it tried again.
var fallBackRuns = []struct{ size, at, calls, segmented int }{{100, 0, 3, 0}, {300, 9, 4, 8}, {500, 18, 3, 16}}

var batchCalls = []send{sends[0], sends[1], {"WriteBatch", false, func(c *Conn, _ context.Context, msgs []OutputMessage) (int, error) {
	ms := xnetMessages(msgs)
	n, err := c.WriteBatch(ms, 0)
	for i := range msgs {
		msgs[i].BytesSent = ms[i].N
	}
	return n, err
}}}

// checkArrived makes sure that the first n of msgs arrived, and BytesSent.
func (w *world) checkArrived(t *testing.T, msgs []OutputMessage, n int) {
	t.Helper()
	want := make([][][]byte, len(w.inboxes))
	for i := range msgs {
		bytes := untouched
		if i < n {
			d := datagramOf(&msgs[i])
			bytes = len(d.p)
			to := slices.Index(w.dest, msgs[i].Addr)
			want[to] = append(want[to], d.p)
		}
		if msgs[i].BytesSent != bytes {
			t.Errorf("BytesSent of message %d is %d, want %d", i, msgs[i].BytesSent, bytes)
		}
	}
	for i, in := range w.inboxes {
		in.expect(t, want[i])
	}
}

// TestFallBack: a run that is refused, at whichever place, goes plainly, once
// and in order, and the call knows nothing of it. It is not tried again.
func TestFallBack(t *testing.T) {
	for _, k := range kinds {
		for _, errno := range fuzzErrors {
			for _, r := range fallBackRuns {
				for _, call := range batchCalls {
					t.Run(fmt.Sprintf("%s/%s/%v/%d", k.name, call.name, errno, r.size), func(t *testing.T) {
						for takes := range 4 {
							w := k.world(t, 1, nil)
							refuse(t, w.conn, takes, func(size int, _ *ipv4.Message) error {
								if size == r.size {
									return errno
								}
								return nil
							})
							testFallBack(t, w, call, errno, takes, r.calls, r.segmented)
						}
					})
				}
			}
		}
	}
}

func testFallBack(t *testing.T, w *world, call send, errno syscall.Errno, takes, calls, segmented int) {
	t.Helper()
	msgs := w.messages(0, nil, fallBackSizes...)
	if n, err := call.call(w.conn, nil, msgs); n != len(msgs) || err != nil {
		t.Fatalf("takes %d: %d, %v", takes, n, err)
	}
	w.checkArrived(t, msgs, len(msgs))
	s := w.conn.Stats()
	if w.connected && errors.Is(errno, syscall.EMSGSIZE) {
		calls++ // it might have been pending
	}
	if s.Fallbacks != 1 || s.Failed != 0 || s.Segmented != uint64(segmented) || takes == 0 && s.Calls != uint64(calls) {
		t.Errorf("takes %d: %+v, want %d calls, %d segmented", takes, s, calls, segmented)
	}
	if !s.GSO {
		t.Errorf("off: %s", s.GSOReason)
	}
	msgs = w.messages(0, nil, fallBackSizes...)
	if n, err := call.call(w.conn, nil, msgs); n != len(msgs) || err != nil {
		t.Fatalf("again: %d, %v", n, err)
	}
	w.checkArrived(t, msgs, len(msgs))
	again := w.conn.Stats()
	if again.Fallbacks != 1 || takes == 0 && again.Calls != s.Calls+1 {
		t.Errorf("takes %d, again: %+v, after %+v", takes, again, s)
	}
}

// TestNoFallBack: what is no refusal of the segmentation is the user's error,
// and nothing is sent again.
func TestNoFallBack(t *testing.T) {
	for _, errno := range []syscall.Errno{syscall.ENOBUFS, syscall.ENOMEM, syscall.EACCES, syscall.ENETUNREACH, syscall.EHOSTUNREACH, syscall.ECONNREFUSED} {
		for _, r := range fallBackRuns {
			for _, call := range []send{batchCalls[0], batchCalls[2]} {
				t.Run(fmt.Sprintf("%s/%v/%d", call.name, errno, r.size), func(t *testing.T) {
					w := kinds[0].world(t, 1, nil)
					refuse(t, w.conn, 0, func(size int, _ *ipv4.Message) error {
						if size == r.size {
							return errno
						}
						return nil
					})
					msgs := w.messages(0, nil, fallBackSizes...)
					n, err := call.call(w.conn, nil, msgs)
					if n != r.at || (err != nil) != (r.at == 0) {
						t.Fatalf("%d, %v; want %d", n, err, r.at)
					}
					w.checkArrived(t, msgs, r.at)
					if n, err = call.call(w.conn, nil, msgs[r.at:]); n != 0 || !errors.Is(err, errno) {
						t.Fatalf("the rest: %d, %v", n, err)
					}
					w.checkArrived(t, msgs[r.at:], 0)
					if s := w.conn.Stats(); s.Fallbacks != 0 || s.Calls > 3 || s.Segmented > 16 {
						t.Errorf("%+v", s)
					}
				})
			}
		}
	}
}

// TestFallBackFails: if the plain message is refused as well, that is the
// user's error, and says nothing about segmentation.
func TestFallBackFails(t *testing.T) {
	for _, errno := range fuzzErrors {
		for _, r := range fallBackRuns {
			for at := range 8 { // the message of the run that cannot be sent
				w := kinds[at%3].world(t, 1, nil)
				msgs := w.messages(0, nil, fallBackSizes...)
				bad := string(datagramOf(&msgs[r.at+at]).p)
				refuse(t, w.conn, at%2, func(size int, m *ipv4.Message) error {
					if size == r.size || string(datagramOf(&OutputMessage{Vectors: m.Buffers}).p) == bad {
						return errno
					}
					return nil
				})
				want := r.at + at
				n, err := w.conn.SendMessages(nil, msgs, 0)
				if n != want || want > 0 && err != nil || want == 0 && !errors.Is(err, errno) {
					t.Fatalf("%v at %d: %d, %v", errno, want, n, err)
				}
				w.checkArrived(t, msgs, want)
				if n, err = w.conn.SendMessages(nil, msgs[want:], 0); n != 0 || !errors.Is(err, errno) {
					t.Fatalf("%v at %d, the rest: %d, %v", errno, want, n, err)
				}
				if refused := w.conn.send.gso.refusals.table().sizes.sizes; refused != nil {
					t.Errorf("%v at %d: remembered %+v", errno, want, refused)
				}
				w.inboxes[0].expect(t, nil)

				each, err := w.conn.SendEach(nil, msgs, 0)
				var failed *BatchError
				if each != len(msgs) || !errors.As(err, &failed) || len(failed.Failed) != 1 || failed.Failed[0].Index != want || !errors.Is(err, errno) {
					t.Fatalf("%v at %d, SendEach: %d, %v", errno, want, each, err)
				}
				var arrived [][]byte
				for i := range msgs {
					if i != want {
						arrived = append(arrived, datagramOf(&msgs[i]).p)
					}
				}
				w.inboxes[0].expect(t, arrived)
			}
		}
	}
}

// TestRefusingPeer: one peer that refuses is tried once in ten seconds, and
// slows no other.
func TestRefusingPeer(t *testing.T) {
	w := kinds[0].world(t, 3, nil)
	// The peer is an address: ports do not matter.
	far := newInbox(t, "udp4", "127.0.0.2")
	w.inboxes[1], w.dest[1] = far, far.addr
	refuse(t, w.conn, 0, func(size int, m *ipv4.Message) error {
		if m.Addr.(*net.UDPAddr).IP.Equal(net.IPv4(127, 0, 0, 2)) && size >= 1000 {
			return syscall.EMSGSIZE
		}
		return nil
	})
	var last Stats
	send := func(what string, size, calls, fallbacks, segmented int) {
		t.Helper()
		sizes := slices.Repeat([]int{size}, 8)
		msgs := slices.Concat(w.messages(0, nil, sizes...), w.messages(1, nil, sizes...), w.messages(2, nil, sizes...))
		if n, err := w.conn.SendMessages(nil, msgs, 0); n != 24 || err != nil {
			t.Fatalf("%s: %d, %v", what, n, err)
		}
		w.checkArrived(t, msgs, 24)
		s := w.conn.Stats()
		if s.Calls-last.Calls != uint64(calls) || s.Fallbacks-last.Fallbacks != uint64(fallbacks) || s.Segmented-last.Segmented != uint64(segmented) {
			t.Errorf("%s: %+v after %+v, want %d calls, %d fallbacks, %d segmented", what, s, last, calls, fallbacks, segmented)
		}
		last = s
	}
	send("at first", 1200, 4, 1, 16)
	for range 20 {
		send("then", 1200, 1, 0, 16)
	}
	send("smaller", 900, 1, 0, 24)
	send("smaller, but too large", 1000, 4, 1, 16)
	send("larger", 1100, 1, 0, 16)
	w.conn.send.gso.age(refusalExpiry)
	send("after a while", 1200, 4, 1, 16)
	send("and then", 1200, 1, 0, 16)
}

// TestManyRefusingPeers: of more peers behind a small MTU than fit in a batch
// each is remembered.
func TestManyRefusingPeers(t *testing.T) {
	const peers, rounds = 500, 3
	inNamespace(t, func(t *testing.T, lo *loopback) {
		netns.Check(t, lo.ns.Loopback().SetMTU(1000))
		w := plainKind.world(t, 1, nil)
		var msgs []OutputMessage
		for p := range peers {
			to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1, byte(p >> 8), byte(p)}), 9)
			msgs = AppendSegments(msgs, to, make([]byte, 2400), 1200, nil)
		}
		for range rounds {
			if n, err := w.conn.SendMessages(nil, msgs, 0); n != len(msgs) || err != nil {
				t.Fatal(n, err)
			}
		}
		if s := w.conn.Stats(); s.Fallbacks != peers || s.Segmented != 0 {
			t.Errorf("%d fallbacks for %d peers, %d times each; %+v", s.Fallbacks, peers, rounds, s)
		}
	})
}

// udpLite makes an IPv4 UDP-Lite socket, whose segmentation is refused by EIO.
func udpLite(t *testing.T, addr [4]byte) *net.UDPConn {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.IPPROTO_UDPLITE)
	if err != nil {
		t.Skipf("no UDP-Lite: %v", err)
	}
	file := os.NewFile(uintptr(fd), "udplite")
	defer file.Close()
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: addr}); err != nil {
		t.Fatal(err)
	}
	c, err := net.FilePacketConn(file)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// TestEIOOfTheKernel: a device that cannot segment, and the socket's turning
// off and on again.
func TestEIOOfTheKernel(t *testing.T) {
	r := udpLite(t, [4]byte{})
	c, err := New(udpLite(t, [4]byte{127, 0, 0, 1}), nil)
	if err != nil {
		t.Fatal(err)
	}
	port := addrPortOf(r).Port()
	send := func(host byte, fallbacks uint64, on bool) {
		t.Helper()
		to := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, host}), port)
		msgs := AppendSegments(nil, to, contents(int(host), 1500), 100, nil)
		if n, err := c.SendMessages(nil, msgs, 0); n != 15 || err != nil {
			t.Fatalf("to %v: %d, %v", to, n, err)
		}
		for i := range msgs {
			in := &inbox{conn: r}
			if got := in.read(t, make([]byte, 200)); string(got) != string(msgs[i].Vectors[0]) || msgs[i].BytesSent != 100 {
				t.Fatalf("to %v: datagram %d is %s", to, i, brief(got))
			}
		}
		s := c.Stats()
		if s.Fallbacks != fallbacks || s.Segmented != 0 || s.GSO != on || strings.Contains(s.GSOReason, "EIO") == on {
			t.Errorf("to %v: %+v", to, s)
		}
	}
	send(1, 1, true)
	send(1, 1, true) // any size is remembered
	send(2, 2, true)
	send(3, 3, false)
	send(4, 3, false)
	control(t, c, func(int) error { return nil })
	send(5, 3, false)
	c.send.gso.age(eioRetry)
	send(6, 4, true)
}

// TestEINVALOfTheKernel: a socket without checksums does not segment.
func TestEINVALOfTheKernel(t *testing.T) {
	for _, k := range kinds {
		if !hasIPv4(k) {
			continue
		}
		t.Run(k.name, func(t *testing.T) {
			w := k.world(t, 3, nil)
			control(t, w.conn, option(unix.SOL_SOCKET, unix.SO_NO_CHECK, 1))
			var sum uint64
			for round := range 2 {
				for i, in := range w.inboxes {
					msgs := w.messages(i, nil, runSizes...)
					if n, err := w.conn.SendMessages(nil, msgs, 0); n != len(msgs) || err != nil {
						t.Fatal(n, err)
					}
					w.checkArrived(t, msgs, len(msgs))
					if s := w.conn.Stats(); in.addr.Addr().Is4() && s.Segmented != sum {
						t.Errorf("round %d: %+v", round, s)
					} else {
						sum = s.Segmented
					}
				}
			}
			if s := w.conn.Stats(); s.Fallbacks == 0 || s.Fallbacks > 2 || !s.GSO { // 127.0.0.1, and as mapped
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestPortZero: EINVAL of the user's making stays that.
func TestPortZero(t *testing.T) {
	for _, k := range kinds[:3] {
		w := k.world(t, 2, nil)
		off, err := New(w.bare, &Config{GSO: GSOOff})
		if err != nil {
			t.Fatal(err)
		}
		msgs := slices.Concat(w.messages(0, nil, runSizes...), w.messages(1, nil, runSizes...))
		for i := range runSizes {
			msgs[len(runSizes)+i].Addr = netip.AddrPortFrom(w.dest[0].Addr(), 0)
		}
		for _, c := range []*Conn{w.conn, off} {
			if n, err := c.SendMessages(nil, msgs, 0); n != len(runSizes) || err != nil {
				t.Fatalf("%s: %d, %v", k.name, n, err)
			}
			w.checkArrived(t, msgs[:len(runSizes)], len(runSizes))
			rest := msgs[len(runSizes):]
			if n, err := c.SendMessages(nil, rest, 0); n != 0 || !errors.Is(err, syscall.EINVAL) {
				t.Fatalf("%s, port 0: %d, %v", k.name, n, err)
			}
			n, err := c.SendEach(nil, rest, 0)
			var failed *BatchError
			if n != len(rest) || !errors.As(err, &failed) || len(failed.Failed) != len(rest) {
				t.Fatalf("%s, port 0, each: %d, %v", k.name, n, err)
			}
		}
		if w.conn.send.gso.refusals.table().sizes.sizes != nil {
			t.Error("remembered")
		}
	}
}

// TestSmallMTU: datagrams that do not fit are not segmented but fragmented, as
// without segmentation, at the edge and one past it.
func TestSmallMTU(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for _, k := range kinds {
			t.Run(k.name, func(t *testing.T) {
				for i := range k.to {
					fits := 1472
					if strings.Contains(k.to[i], ":") {
						fits = 1452
					}
					for size, segmented := range map[int]bool{fits: true, fits + 1: false, 2000: false} {
						testSmallMTU(t, k, i, size, segmented)
					}
				}
			})
		}
	})
}

func testSmallMTU(t *testing.T, k kind, inbox, size int, segmented bool) {
	t.Helper()
	w := k.world(t, 3, nil)
	for round := range uint64(3) {
		msgs := w.messages(inbox, nil, append(slices.Repeat([]int{size}, 8), 10)...)
		if n, err := w.conn.SendMessages(nil, msgs, 0); n != 9 || err != nil {
			t.Fatalf("%d bytes: %d, %v", size, n, err)
		}
		w.checkArrived(t, msgs, 9)
		s, want := w.conn.Stats(), Stats{Segmented: 9 * (round + 1), Calls: round + 1}
		if !segmented {
			want = Stats{Fallbacks: 1, Calls: round + 2}
			if w.connected {
				want.Calls++ // the error might have been pending
			}
		}
		if s.Segmented != want.Segmented || s.Fallbacks != want.Fallbacks || s.Calls != want.Calls {
			t.Errorf("%d bytes, round %d: %+v, want segmented %d, fallbacks %d, calls %d", size, round, s, want.Segmented, want.Fallbacks, want.Calls)
		}
	}
}

// rerouted makes routes by which datagrams to fd03::3, port 9000, are taken to
// have an MTU of 1500, and after a firewall has marked them have one of 1400.
const rerouted = `ip link add va type veth peer name va2
ip link add vb mtu 1400 type veth peer name vb2
ip link set va up; ip link set va2 up; ip link set vb up; ip link set vb2 up
ip addr add fd01::1/64 dev va nodad; ip addr add fd02::1/64 dev vb nodad
ip -6 neigh add fd01::2 lladdr 02:00:00:00:00:01 dev va
ip -6 neigh add fd02::2 lladdr 02:00:00:00:00:02 dev vb
ip -6 route add fd03::/64 via fd01::2 dev va
ip -6 route add default via fd02::2 dev vb table 100
ip -6 rule add fwmark 1 lookup 100
nft add table ip6 t
nft 'add chain ip6 t o { type route hook output priority mangle; }'
nft add rule ip6 t o udp dport 9000 meta mark set 1`

// TestRefusedInPart: of a run that the kernel refuses nothing has left, so that
// no datagram leaves twice, though it is cut before it is refused.
func TestRefusedInPart(t *testing.T) {
	for _, tool := range []string{"sh", "ip", "nft"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	inNamespace(t, func(t *testing.T, lo *loopback) {
		if out, err := exec.Command("sh", "-ec", rerouted).CombinedOutput(); err != nil {
			t.Skipf("no such routes here: %v\n%s", err, out)
		}
		left := framesFrom(t, "vb2", unix.ETH_P_IPV6)
		for _, mode := range []int{unix.IPV6_PMTUDISC_PROBE, unix.IPV6_PMTUDISC_DO, unix.IPV6_PMTUDISC_INTERFACE} {
			u := listen(t, "udp6", "::")
			control(t, u, option(unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, mode))
			c, err := New(u, nil)
			if err != nil {
				t.Fatal(err)
			}
			msgs := make([]OutputMessage, 5)
			for i := range msgs {
				size := 1400 // of payload: too long
				if i == 4 {
					size = 100
				}
				msgs[i] = OutputMessage{Addr: netip.MustParseAddrPort("[fd03::3]:9000"), Vectors: [][]byte{append([]byte{byte(i)}, contents(i, size-1)...)}}
			}
			if n, err := c.SendMessages(nil, msgs, 0); n != 0 || !errors.Is(err, syscall.EMSGSIZE) {
				t.Errorf("mode %d: SendMessages: %d, %v", mode, n, err)
			}
			if n := len(left(9000, 0)); n != 0 {
				t.Errorf("mode %d: %d left, of none that were sent", mode, n)
			}
			n, err := c.SendEach(nil, msgs, 0)
			var each *BatchError
			if n != 5 || !errors.As(err, &each) || len(each.Failed) != 4 {
				t.Errorf("mode %d: SendEach: %d, %v", mode, n, err)
			}
			if got := left(9000, 1); len(got) != 1 || got[0].payload[0] != 4 {
				t.Errorf("mode %d: %d left, of one that was sent", mode, len(got))
			}
			if s := c.Stats(); !s.GSO || s.Fallbacks == 0 {
				t.Errorf("mode %d: nothing was segmented and refused: %+v", mode, s)
			}
		}
	})
}

// A frame is a UDP datagram over IPv4 or IPv6 without options, as it is on the
// way.
type frame struct {
	ip      []byte // the header
	payload []byte
}

// framesFrom captures what comes out of a device. The function it returns waits
// for n datagrams to a port, and a little for those that are too many.
func framesFrom(t *testing.T, dev string, etherType uint16) func(port uint16, n int) []frame {
	t.Helper()
	etherType = binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, etherType))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, int(etherType))
	if err != nil {
		t.Skipf("no packet socket: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	ifi, err := net.InterfaceByName(dev)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: etherType, Ifindex: ifi.Index}); err != nil {
		t.Fatal(err)
	}
	return func(port uint16, want int) (fs []frame) {
		start, last := time.Now(), time.Now()
		for len(fs) < want && time.Since(start) < patience || time.Since(last) < 20*time.Millisecond {
			p := make([]byte, 1<<16)
			n, from, err := unix.Recvfrom(fd, p, 0)
			if err != nil {
				time.Sleep(time.Millisecond)
				continue
			}
			header := 20
			if p[0]>>4 == 6 {
				header = 40
			}
			if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING && n >= header+8 && binary.BigEndian.Uint16(p[header+2:]) == port {
				fs, last = append(fs, frame{p[:header], p[header+8 : n]}), time.Now()
			}
		}
		return fs
	}
}

// TestPendingTooLong: a router's wish for shorter datagrams, which is pending
// as EMSGSIZE when a run is sent that is short enough, does not end
// segmentation, and is told by the next send.
func TestPendingTooLong(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		w := connectedKind.world(t, 1, nil)
		unreachable(t, w.bare, 4, 1400)
		sizes := slices.Repeat([]int{1000}, 4)
		msgs := w.messages(0, nil, sizes...)
		if n, err := w.conn.SendMessages(nil, msgs, 0); n != 4 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		w.checkArrived(t, msgs, 4)
		if s := w.conn.Stats(); s.Segmented != 4 || s.Fallbacks != 0 {
			t.Errorf("%+v, want four in a segmented message", s)
		}
		n, err := w.conn.SendMessages(nil, msgs, 0)
		if n != 0 {
			t.Errorf("%d were sent before the error was told", n)
		}
		checkError(t, err, syscall.EMSGSIZE)
		msgs = w.messages(0, nil, sizes...)
		if n, err := w.conn.SendMessages(nil, msgs, 0); n != 4 || err != nil {
			t.Fatalf("after the error was told: %d, %v", n, err)
		}
		w.checkArrived(t, msgs, 4)
		if s := w.conn.Stats(); s.Segmented != 8 || s.Fallbacks != 0 {
			t.Errorf("%+v, want eight in segmented messages", s)
		}
	})
}

// TestPendingTooLongWriter: the Writer tells it by Flush, and sends everything.
func TestPendingTooLongWriter(t *testing.T) {
	w := connectedKind.world(t, 1, nil)
	first := true
	refuse(t, w.conn, 1, func(size int, _ *ipv4.Message) error {
		if size > 0 && first {
			first = false
			return syscall.EMSGSIZE
		}
		return nil
	})
	var failed failures
	wr := NewWriter(w.conn, &WriterConfig{MaxDelay: -1, OnError: failed.add})
	var want [][]byte
	for i := range 600 {
		p := contents(i, 100)
		want = append(want, p)
		if _, err := wr.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	checkError(t, wr.Flush(nil), syscall.EMSGSIZE)
	if len(failed.errs) != 0 {
		t.Errorf("%d reported", len(failed.errs))
	}
	w.inboxes[0].expect(t, want)
}

// TestPendingTooLongEnded: one is told also if the call ended at the second
// try, for want of room or for another refusal.
func TestPendingTooLongEnded(t *testing.T) {
	for _, second := range []syscall.Errno{syscall.EAGAIN, syscall.EINVAL, syscall.ENOBUFS} {
		w := connectedKind.world(t, 1, nil)
		errs := []error{syscall.EMSGSIZE, second}
		refuse(t, w.conn, 0, func(size int, _ *ipv4.Message) error {
			if size == 0 || len(errs) == 0 {
				return nil
			}
			err := errs[0]
			errs = errs[1:]
			return err
		})
		msgs := w.messages(0, nil, 100, 100, 100)
		n, err := w.conn.SendMessages(nil, msgs, unix.MSG_DONTWAIT)
		if second == syscall.EINVAL { // the datagrams left plainly
			if n != 3 || err != nil {
				t.Fatalf("%v: %d, %v", second, n, err)
			}
			w.checkArrived(t, msgs, 3)
		} else if n != 0 || !errors.Is(err, second) {
			t.Fatalf("%v: %d, %v", second, n, err)
		}
		n, err = w.conn.SendMessages(nil, msgs, 0)
		if n != 0 {
			t.Errorf("%v: %d were sent before the error was told", second, n)
		}
		checkError(t, err, syscall.EMSGSIZE)
		if n, err = w.conn.SendMessages(nil, msgs, 0); n != 3 || err != nil {
			t.Fatalf("%v: %d, %v", second, n, err)
		}
		w.checkArrived(t, msgs, 3)
	}
}

// TestSegmentAllocs: segmentation allocates nothing.
func TestSegmentAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools")
	}
	forEachKind(t, 3, nil, func(t *testing.T, w *world) {
		for _, in := range w.inboxes { // nobody reads
			in.conn.SetReadBuffer(4096)
		}
		buf := make([]byte, 20*100)
		var msgs []OutputMessage
		var controls [][]byte
		fill := func(i int, to netip.AddrPort) {
			msgs = AppendSegments(msgs, to, buf, 100, controls[i])
		}
		for i, to := range w.dest {
			controls = append(controls, tos(w.isV6(i)))
			fill(i, to)
		}
		ms := xnetMessages(msgs)
		for name, send := range map[string]func() (int, error){
			"SendMessages": func() (int, error) { return w.conn.SendMessages(nil, msgs, 0) },
			"SendEach":     func() (int, error) { return w.conn.SendEach(nil, msgs, 0) },
			"WriteBatch":   func() (int, error) { return w.conn.WriteBatch(ms, 0) },
			"AppendSegments": func() (int, error) {
				msgs = msgs[:0]
				for i, to := range w.dest {
					fill(i, to)
				}
				return w.conn.SendMessages(nil, msgs, 0)
			},
		} {
			before := w.conn.Stats()
			allocs := testing.AllocsPerRun(50, func() {
				if n, err := send(); n != len(msgs) || err != nil {
					t.Fatalf("%s: %d, %v", name, n, err)
				}
			})
			s := w.conn.Stats()
			if allocs != 0 || s.Segmented-before.Segmented != s.Messages-before.Messages || s.Calls-before.Calls != 51 {
				t.Errorf("%s: %v allocations; %+v", name, allocs, s)
			}
		}
	})
}
