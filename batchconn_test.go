// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// TestSendAll: a blocking call sends all, however many, and says so.
func TestSendAll(t *testing.T) {
	patterns := []struct {
		name     string
		to, size func(int) int
	}{{"mixed", inTurn, mixed}, {"runs", inRuns, runSize}}
	counts := []int{0, 1, 2, maxBatch, maxBatch + 1, 1024, 1025, 5000}
	if testing.Short() {
		counts = []int{0, 1, maxBatch + 1, 1025}
	}
	forEachKind(t, 32, nil, func(t *testing.T, w *world) {
		var total uint64
		for _, p := range patterns {
			for _, n := range counts {
				t.Run(fmt.Sprint(p.name, n), func(t *testing.T) {
					m := w.write(t, n, p.to, p.size)
					got, err := w.conn.SendMessages(nil, m.msgs, 0)
					if got != n || err != nil {
						t.Fatalf("SendMessages = %d, %v; want %d, nil", got, err, n)
					}
					total += uint64(n)
					w.checkAll(t, m)
					got, err = w.conn.SendEach(context.Background(), m.msgs, 0)
					if got != n || err != nil {
						t.Fatalf("SendEach = %d, %v; want %d, nil", got, err, n)
					}
					total += uint64(n)
					w.checkAll(t, m)
				})
			}
		}
		if s := w.conn.Stats(); s.Messages != total || s.Failed != 0 || s.WouldBlock != 0 {
			t.Errorf("Stats %+v, want %d messages and no failure", s, total)
		}
	})
}

// TestSameSliceAgain: a send changes nothing of a message but BytesSent, so it
// can be sent again.
func TestSameSliceAgain(t *testing.T) {
	forEachKind(t, 3, nil, func(t *testing.T, w *world) {
		m := w.write(t, 300, inTurn, mixed)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		for range 5 {
			n, err := w.conn.SendMessages(ctx, m.msgs, 0)
			if n != len(m.msgs) || err != nil {
				t.Fatalf("SendMessages = %d, %v", n, err)
			}
			w.checkAll(t, m)
		}
	})
}

// TestOneMessage: the sends that take one.
func TestOneMessage(t *testing.T) {
	forEachKind(t, 3, nil, func(t *testing.T, w *world) {
		for i, to := range w.dest {
			for _, size := range []int{0, 1, 1200, 65507} {
				p := contents(i, size)
				msg := OutputMessage{Addr: to, Vectors: cut(p, 3), BytesSent: untouched}
				if n, err := w.conn.SendMessage(nil, &msg, 0); n != size || err != nil || msg.BytesSent != size {
					t.Fatalf("SendMessage = %d, %v, BytesSent %d; want %d", n, err, msg.BytesSent, size)
				}
				w.inboxes[i].expect(t, [][]byte{p})
				if n, err := w.conn.SendTo(nil, p, to, 0); n != size || err != nil {
					t.Fatalf("SendTo = %d, %v; want %d", n, err, size)
				}
				w.inboxes[i].expect(t, [][]byte{p})
			}
		}
	})
}

// errAnyAddr stands for a *net.AddrError.
var errAnyAddr = errors.New("a *net.AddrError")

// A bad is something wrong with a message.
type bad struct {
	name  string
	spoil func(w *world, m *OutputMessage)
	want  error
	on    func(w *world) bool // where that is wrong; nil: everywhere
}

func unconnected(w *world) bool { return !w.connected }
func onLinux(w *world) bool     { return runtime.GOOS == "linux" }

// onLinuxOrWindows is where a datagram may have all the bytes that IP allows.
func onLinuxOrWindows(w *world) bool { return onLinux(w) || runtime.GOOS == "windows" }

var bads = []bad{
	{"no destination", func(w *world, m *OutputMessage) { m.Addr = netip.AddrPort{} }, syscall.EDESTADDRREQ, unconnected},
	{"destination on a connected socket", func(w *world, m *OutputMessage) { m.Addr = w.inboxes[0].addr }, net.ErrWriteToConnected,
		func(w *world) bool { return w.connected }},
	{"wrong family", func(w *world, m *OutputMessage) { m.Addr = netip.MustParseAddrPort("[::1]:9") }, errAnyAddr,
		func(w *world) bool { return w.name == "udp4" }},
	{"port without address", func(w *world, m *OutputMessage) { m.Addr = netip.AddrPortFrom(netip.Addr{}, 9) }, errAnyAddr, unconnected},
	{"too long", func(w *world, m *OutputMessage) { m.Vectors = [][]byte{make([]byte, w.tooLong(m.Addr))} }, syscall.EMSGSIZE, onLinuxOrWindows},
	{"far too long", func(w *world, m *OutputMessage) { m.Vectors = cut(make([]byte, 1<<20), 3) }, syscall.EMSGSIZE, nil},
	{"too long, flattened", func(w *world, m *OutputMessage) { m.Vectors = vectorsOf(w.tooLong(m.Addr), 1025) }, syscall.EMSGSIZE, onLinuxOrWindows},
	{"far too long, flattened", func(w *world, m *OutputMessage) { m.Vectors = slices.Repeat([][]byte{make([]byte, 700)}, 3000) }, syscall.EMSGSIZE, nil},
	{"bad control data", func(w *world, m *OutputMessage) { m.Control = make([]byte, 64) }, syscall.EINVAL, onLinux},
	{"port 0", func(w *world, m *OutputMessage) { m.Addr = netip.AddrPortFrom(w.inboxes[0].addr.Addr(), 0) }, syscall.EINVAL,
		func(w *world) bool { return onLinux(w) && !w.connected }},
	{"IPv4 over an IPv6-only socket", func(w *world, m *OutputMessage) { m.Addr = netip.MustParseAddrPort("127.0.0.1:9") }, syscall.ENETUNREACH,
		func(w *world) bool { return onLinux(w) && w.name == "udp6" }},
}

// tooLong is one byte more than a datagram can have.
func (w *world) tooLong(to netip.AddrPort) int {
	if to.Addr().Is4() || to.Addr().Is4In6() || !w.v6 || w.connected && w.inboxes[0].addr.Addr().Is4() {
		return 65508
	}
	return 65528
}

// vectorsOf cuts size bytes into n vectors.
func vectorsOf(size, n int) []OutputVector {
	p := contents(n, size)
	vs := make([]OutputVector, n)
	for i := range vs {
		vs[i] = p[i*size/n : (i+1)*size/n]
	}
	return vs
}

// TestBadMessage: a bad message ends the prefix before it; SendEach goes on
// past it.
func TestBadMessage(t *testing.T) {
	forEachKind(t, 4, nil, func(t *testing.T, w *world) {
		for _, b := range bads {
			if b.on != nil && !b.on(w) {
				continue
			}
			t.Run(b.name, func(t *testing.T) {
				w.testBadAlone(t, b)
				for _, at := range []int{0, 3, maxBatch, 299} {
					w.testBad(t, b, at)
				}
			})
		}
	})
}

func (w *world) testBad(t *testing.T, b bad, at int) {
	t.Helper()
	m := w.write(t, 300, inTurn, mixed)
	b.spoil(w, &m.msgs[at])
	n, err := w.conn.SendMessages(nil, m.msgs, 0)
	if n != at || (err != nil) != (at == 0) {
		t.Fatalf("bad message at %d: SendMessages = %d, %v", at, n, err)
	}
	w.checkPrefix(t, m, at)
	if n, err = w.conn.SendMessages(nil, m.msgs[at:], 0); n != 0 {
		t.Fatalf("bad message first: SendMessages = %d, %v", n, err)
	}
	checkError(t, err, b.want)
	for i := range m.msgs[at:] {
		if got := m.msgs[at+i].BytesSent; got != untouched {
			t.Fatalf("message %d: BytesSent %d, which was not sent", at+i, got)
		}
	}

	n, err = w.conn.SendEach(nil, m.msgs, 0)
	var batchErr *BatchError
	if n != len(m.msgs) || !errors.As(err, &batchErr) || len(batchErr.Failed) != 1 || batchErr.Err != nil {
		t.Fatalf("bad message at %d: SendEach = %d, %v", at, n, err)
	}
	if f := batchErr.Failed[0]; f.Index != at || f.Addr != m.msgs[at].Addr {
		t.Fatalf("bad message at %d to %v: reported at %d to %v", at, m.msgs[at].Addr, f.Index, f.Addr)
	}
	checkError(t, batchErr.Failed[0].Err, b.want)
	w.check(t, m, func(i int) bool { return i != at })
}

func (w *world) testBadAlone(t *testing.T, b bad) {
	t.Helper()
	msg := OutputMessage{Addr: w.dest[0], Vectors: [][]byte{[]byte("one")}, BytesSent: untouched}
	b.spoil(w, &msg)
	n, err := w.conn.SendMessage(nil, &msg, 0)
	if n != 0 || msg.BytesSent != untouched {
		t.Errorf("SendMessage = %d, %v, BytesSent %d", n, err, msg.BytesSent)
	}
	checkError(t, err, b.want)
	if msg.Control == nil && len(msg.Vectors) == 1 {
		n, err = w.conn.SendTo(nil, msg.Vectors[0], msg.Addr, 0)
		if n != 0 {
			t.Errorf("SendTo = %d, %v", n, err)
		}
		checkError(t, err, b.want)
	}
}

// TestSendEachAllBad: every message has its own error.
func TestSendEachAllBad(t *testing.T) {
	forEachKind(t, 1, nil, func(t *testing.T, w *world) {
		m := w.write(t, 600, inTurn, mixed)
		tooLong := vectorsOf(90000, 1025)
		for i := range m.msgs {
			if i%7 != 0 {
				m.msgs[i].Vectors = tooLong
			}
		}
		failed := w.conn.Stats().Failed
		n, err := w.conn.SendEach(nil, m.msgs, 0)
		var batchErr *BatchError
		if n != 600 || !errors.As(err, &batchErr) || !errors.Is(err, syscall.EMSGSIZE) {
			t.Fatalf("SendEach = %d, %v", n, err)
		}
		i := 0
		for _, f := range batchErr.Failed {
			if i%7 == 0 {
				i++
			}
			if f.Index != i {
				t.Fatalf("failed message %d, want %d", f.Index, i)
			}
			i++
		}
		w.check(t, m, func(i int) bool { return i%7 == 0 })
		if got := w.conn.Stats().Failed - failed; got != uint64(len(batchErr.Failed)) {
			t.Errorf("Stats.Failed grew by %d, %d failed", got, len(batchErr.Failed))
		}
	})
}

// A send is one of the calls that send, for tests of what they have in common.
type send struct {
	name string
	ctx  bool // takes a context
	call func(c *Conn, ctx context.Context, msgs []OutputMessage) (int, error)
}

var sends = []send{
	{"SendMessages", true, func(c *Conn, ctx context.Context, msgs []OutputMessage) (int, error) {
		return c.SendMessages(ctx, msgs, 0)
	}},
	{"SendEach", true, func(c *Conn, ctx context.Context, msgs []OutputMessage) (int, error) { return c.SendEach(ctx, msgs, 0) }},
	{"SendMessage", true, func(c *Conn, ctx context.Context, msgs []OutputMessage) (int, error) {
		return c.SendMessage(ctx, &OutputMessage{Addr: first(msgs), Vectors: [][]byte{{1}}}, 0)
	}},
	{"SendTo", true, func(c *Conn, ctx context.Context, msgs []OutputMessage) (int, error) {
		return c.SendTo(ctx, []byte{1}, first(msgs), 0)
	}},
	{"WriteBatch", false, func(c *Conn, _ context.Context, msgs []OutputMessage) (int, error) {
		return c.WriteBatch(xnetMessages(msgs), 0)
	}},
}

func first(msgs []OutputMessage) netip.AddrPort {
	if len(msgs) == 0 {
		return netip.AddrPort{}
	}
	return msgs[0].Addr
}

func xnetMessages(msgs []OutputMessage) []ipv4.Message {
	ms := make([]ipv4.Message, len(msgs))
	for i, m := range msgs {
		ms[i] = ipv4.Message{Buffers: m.Vectors, OOB: m.Control, N: -1, NN: -1}
		if m.Addr.IsValid() {
			ms[i].Addr = net.UDPAddrFromAddrPort(m.Addr)
		}
	}
	return ms
}

// TestOrderOfChecks: closed, then the context, then no messages.
func TestOrderOfChecks(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, s := range sends {
		t.Run(s.name, func(t *testing.T) {
			w := kinds[0].world(t, 1, nil)
			takesMany := s.name != "SendMessage" && s.name != "SendTo"
			if takesMany {
				w.conn.SetWriteDeadline(time.Unix(1, 0)) // not looked at if there is nothing to send
				if n, err := s.call(w.conn, nil, nil); n != 0 || err != nil {
					t.Errorf("no messages: %d, %v", n, err)
				}
				w.conn.SetWriteDeadline(time.Time{})
			}
			if s.ctx {
				n, err := s.call(w.conn, cancelled, nil) // also no destination
				if n != 0 {
					t.Errorf("cancelled: n = %d", n)
				}
				checkError(t, err, context.Canceled)
			}
			w.conn.Close()
			n, err := s.call(w.conn, cancelled, nil)
			if n != 0 {
				t.Errorf("closed: n = %d", n)
			}
			checkError(t, err, net.ErrClosed)
			w.inboxes[0].expect(t, nil)
		})
	}
}

// TestClosed: sends after Close, also when it was the inner conn that was
// closed.
func TestClosed(t *testing.T) {
	forEachKind(t, 1, nil, func(t *testing.T, w *world) {
		m := w.write(t, 3, inTurn, mixed)
		w.bare.Close()
		for _, s := range sends {
			n, err := s.call(w.conn, nil, m.msgs)
			if n != 0 {
				t.Errorf("%s after the UDPConn's Close: n = %d", s.name, n)
			}
			var batchErr *BatchError
			if errors.As(err, &batchErr) {
				t.Errorf("%s: %v, want net.ErrClosed alone", s.name, err)
			}
			checkError(t, err, net.ErrClosed)
		}
		w.conn.Close()
		for _, s := range sends {
			_, err := s.call(w.conn, nil, m.msgs)
			checkError(t, err, net.ErrClosed)
		}
		checkError(t, w.conn.WaitWritable(nil), net.ErrClosed)
	})
}

// TestDeadlinePassed: no send after the write deadline, until it is moved.
func TestDeadlinePassed(t *testing.T) {
	forEachKind(t, 1, nil, func(t *testing.T, w *world) {
		m := w.write(t, 3, inTurn, mixed)
		set := []func(time.Time) error{w.conn.SetWriteDeadline, w.conn.SetDeadline}
		for i, s := range sends {
			set[i%2](time.Now().Add(-time.Hour))
			n, err := s.call(w.conn, nil, m.msgs)
			if n != 0 {
				t.Errorf("%s: n = %d", s.name, n)
			}
			checkError(t, err, os.ErrDeadlineExceeded)
			if e, ok := err.(net.Error); !ok || !e.Timeout() {
				t.Errorf("%s: %v is no timeout", s.name, err)
			}
			set[i%2](time.Now().Add(time.Hour))
			if n, err := s.call(w.conn, nil, m.msgs); n == 0 || err != nil {
				t.Errorf("%s in time: %d, %v", s.name, n, err)
			}
			set[i%2](time.Time{})
		}
	})
}

var errFickle = errors.New("an error of the context's own")

// TestContextDone: whenever a context is done, n is what was sent, and else the
// error is the context's.
func TestContextDone(t *testing.T) {
	forEachKind(t, 32, nil, func(t *testing.T, w *world) {
		for _, call := range sends[:2] {
			for k := range int64(6) {
				m := w.write(t, 1000, inTurn, mixed)
				ctx := &fickleContext{Context: t.Context(), err: errFickle}
				ctx.left.Store(k)
				n, err := call.call(w.conn, ctx, m.msgs)
				if n == 1000 && k < 3 || n < 1000 && k > 5 {
					t.Fatalf("%s: done after %d questions: n = %d", call.name, k, n)
				}
				if n == 0 || n < 1000 && call.name == "SendEach" {
					checkError(t, err, errFickle)
				} else if err != nil {
					t.Fatalf("%s = %d, %v", call.name, n, err)
				}
				w.checkPrefix(t, m, n)
			}
		}
	})
}

// TestContextErrors: the error Is ctx.Err() for every kind of context.
func TestContextErrors(t *testing.T) {
	w := kinds[0].world(t, 1, nil)
	expired, cancel := context.WithDeadline(t.Context(), time.Unix(1, 0))
	defer cancel()
	caused, cancelCause := context.WithCancelCause(t.Context())
	cancelCause(errFickle)
	for _, ctx := range []context.Context{expired, caused, &fickleContext{Context: t.Context(), err: errFickle}} {
		for _, s := range sends[:4] {
			n, err := s.call(w.conn, ctx, w.write(t, 2, inTurn, mixed).msgs)
			if n != 0 {
				t.Errorf("%s: n = %d", s.name, n)
			}
			checkError(t, err, ctx.Err())
		}
		checkError(t, w.conn.WaitWritable(ctx), ctx.Err())
	}
	w.inboxes[0].expect(t, nil)
}

// TestCancelInTheMiddle: of 400,000 messages that never wait, as many are sent
// as n says.
func TestCancelInTheMiddle(t *testing.T) {
	const many = 400_000
	w := kinds[0].world(t, 1, nil)
	msgs := make([]OutputMessage, many)
	p := [][]byte{make([]byte, 10)}
	for i := range msgs {
		msgs[i] = OutputMessage{Addr: w.dest[0], Vectors: p, BytesSent: untouched}
	}
	for _, s := range sends[:2] {
		for i := range msgs {
			msgs[i].BytesSent = untouched
		}
		ctx, cancel := context.WithCancel(t.Context())
		before := w.conn.Stats().Messages
		var wg sync.WaitGroup
		wg.Go(func() { // cancel while the call is under way, for certain
			for w.conn.Stats().Messages < before+1000 {
				runtime.Gosched()
			}
			cancel()
		})
		n, err := s.call(w.conn, ctx, msgs)
		wg.Wait()
		if n < 1000 || n == many {
			t.Fatalf("%s: n = %d, %v: not cancelled in the middle", s.name, n, err)
		}
		if s.name == "SendEach" {
			checkError(t, err, context.Canceled)
		} else if err != nil {
			t.Fatalf("%s = %d, %v", s.name, n, err)
		}
		if sent := w.conn.Stats().Messages - before; sent != uint64(n) {
			t.Fatalf("%s: n = %d, but %d were sent", s.name, n, sent)
		}
		for i := range msgs {
			if got := msgs[i].BytesSent; got != 10 && i < n || got != untouched && i >= n {
				t.Fatalf("%s: n = %d, BytesSent of %d is %d", s.name, n, i, got)
			}
		}
		n, err = s.call(w.conn, ctx, msgs[n:])
		if n != 0 {
			t.Fatalf("%s: cancelled call sent %d", s.name, n)
		}
		checkError(t, err, context.Canceled)
	}
}

// TestDeadlineSurvivesCancel: the user's deadline holds after another call was
// cancelled, and ends no call before it has passed.
func TestDeadlineSurvivesCancel(t *testing.T) {
	w := kinds[0].world(t, 1, nil)
	m := w.write(t, 2, inTurn, mixed)
	deadline := time.Now().Add(300 * time.Millisecond)
	w.conn.SetWriteDeadline(deadline)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for time.Now().Before(deadline) {
		w.conn.SendMessages(cancelled, m.msgs, 0)
		if _, err := w.conn.SendMessages(nil, m.msgs, 0); err != nil && time.Now().Before(deadline) {
			t.Fatalf("before the deadline: %v", err)
		}
	}
	_, err := w.conn.SendMessages(nil, m.msgs, 0)
	checkError(t, err, os.ErrDeadlineExceeded)
}

// TestConcurrent: senders share a Conn; the messages of each keep their order.
func TestConcurrent(t *testing.T) {
	const senders, rounds, each = 4, 4, 100
	forEachKind(t, senders, nil, func(t *testing.T, w *world) {
		if w.connected {
			return // one receiver cannot tell the senders apart
		}
		var wg sync.WaitGroup
		mails := make([]*mail, senders)
		for g := range mails {
			mails[g] = w.write(t, each, func(int) int { return g }, mixed)
			wg.Go(func() {
				for range rounds {
					if n, err := w.conn.SendMessages(nil, mails[g].msgs, 0); n != each || err != nil {
						t.Errorf("sender %d: %d, %v", g, n, err)
					}
				}
			})
		}
		wg.Wait()
		for g, m := range mails {
			var want [][]byte
			for range rounds {
				for _, l := range m.letters {
					want = append(want, l.p)
				}
			}
			w.inboxes[g].expect(t, want)
		}
	})
}

// TestBuffersAreTheCallersAgain: what is written to a buffer after the send
// does not reach anybody, and the send wrote nothing to it.
func TestBuffersAreTheCallersAgain(t *testing.T) {
	forEachKind(t, 2, nil, func(t *testing.T, w *world) {
		for _, vectors := range []int{1, 3, sys.MaxVectors, sys.MaxVectors + 1, 3000} {
			want := contents(vectors, 3000)
			vs := vectorsOf(3000, vectors)
			msgs := []OutputMessage{{Addr: w.dest[0], Vectors: vs}}
			if n, err := w.conn.SendMessages(nil, msgs, 0); n != 1 || err != nil {
				t.Fatalf("%d vectors: %d, %v", vectors, n, err)
			}
			if got := bytes.Join(vs, nil); !bytes.Equal(got, want) {
				t.Fatalf("%d vectors: the send wrote to them", vectors)
			}
			for _, v := range vs {
				clear(v)
			}
			w.inboxes[0].expect(t, [][]byte{want})
		}
	})
}

// TestNew: what New does to the conn it is given.
func TestNew(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			bare, in := k.open(t, 1)
			bare.SetWriteDeadline(time.Unix(1, 0))
			c, err := New(bare, &Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			to := in[0].addr
			if k.connected {
				to = netip.AddrPort{}
			}
			if n, err := c.SendTo(nil, []byte("hello"), to, 0); n != 5 || err != nil {
				t.Errorf("SendTo = %d, %v", n, err)
			}
			// net's own writes go by the socket's deadline.
			if _, _, err := c.WriteMsgUDPAddrPort([]byte("again"), nil, to); err != nil {
				t.Errorf("WriteMsgUDPAddrPort: %v: the old write deadline still holds", err)
			}
			in[0].expect(t, [][]byte{[]byte("hello"), []byte("again")})
		})
	}
}

func TestNewRejects(t *testing.T) {
	closed := listen(t, "udp4", "127.0.0.1")
	closed.Close()
	for _, test := range []struct {
		name string
		conn *net.UDPConn
		cfg  *Config
		says string
	}{
		{"nil", nil, nil, "nil"},
		{"zero", new(net.UDPConn), nil, syscall.EINVAL.Error()},
		{"closed", closed, nil, net.ErrClosed.Error()},
		{"GSO below", listen(t, "udp4", "127.0.0.1"), &Config{GSO: -1}, "Config.GSO"},
		{"GSO above", listen(t, "udp4", "127.0.0.1"), &Config{GSO: GSOOn + 1}, "Config.GSO"},
		{"MaxSegments", listen(t, "udp4", "127.0.0.1"), &Config{MaxSegments: -1}, "Config.MaxSegments"},
	} {
		c, err := New(test.conn, test.cfg)
		if c != nil || err == nil || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%s: New = %v, %v; want an error with %q", test.name, c, err, test.says)
		}
	}
	if _, err := New(closed, nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v is not net.ErrClosed", err)
	}
}

// TestConfig: what is valid, and that MsgDontWait is a flag.
func TestConfig(t *testing.T) {
	for _, cfg := range []*Config{nil, {}, {GSO: GSOOff}, {GSO: GSOOn}, {MaxSegments: 1}, {NonBlocking: true, MaxSegments: 1 << 30}} {
		w := kinds[0].world(t, 1, cfg)
		m := w.write(t, 50, inRuns, runSize)
		if n, err := w.conn.SendMessages(nil, m.msgs, 0); n != 50 || err != nil {
			t.Errorf("%+v: %d, %v", cfg, n, err)
		}
		w.checkAll(t, m)
		if n, err := w.conn.SendMessages(nil, m.msgs, MsgDontWait); n != 50 || err != nil {
			t.Errorf("%+v, MsgDontWait: %d, %v", cfg, n, err)
		}
		w.checkAll(t, m)
	}
	if MsgDontWait == 0 {
		t.Error("MsgDontWait is 0")
	}
}

// TestZeroConn: all methods of a zero Conn return an error, or nothing, and
// none panics.
func TestZeroConn(t *testing.T) {
	errorType := reflect.TypeFor[error]()
	typ := reflect.TypeFor[*Conn]()
	for i := range typ.NumMethod() {
		m := typ.Method(i)
		t.Run(m.Name, func(t *testing.T) {
			v := reflect.ValueOf(new(Conn))
			for _, args := range [][]reflect.Value{zeroArgs(m.Type), oneArgs(m.Type)} {
				out := v.MethodByName(m.Name).Call(args)
				if len(out) == 0 || out[len(out)-1].Type() != errorType {
					continue // LocalAddr, RemoteAddr, Stats
				}
				if out[len(out)-1].IsNil() {
					t.Errorf("no error")
				}
			}
		})
	}
}

func zeroArgs(method reflect.Type) []reflect.Value {
	args := make([]reflect.Value, method.NumIn()-1)
	for i := range args {
		args[i] = reflect.Zero(method.In(i + 1))
	}
	return args
}

// oneArgs are arguments with something in them.
func oneArgs(method reflect.Type) []reflect.Value {
	to := netip.MustParseAddrPort("127.0.0.1:9")
	given := map[reflect.Type]any{
		reflect.TypeFor[[]byte]():          []byte{1},
		reflect.TypeFor[[]OutputMessage](): []OutputMessage{{Addr: to}},
		reflect.TypeFor[*OutputMessage]():  &OutputMessage{Addr: to},
		reflect.TypeFor[[]ipv4.Message]():  []ipv4.Message{{Buffers: [][]byte{{1}}, Addr: net.UDPAddrFromAddrPort(to)}},
		reflect.TypeFor[netip.AddrPort]():  to,
		reflect.TypeFor[*net.UDPAddr]():    net.UDPAddrFromAddrPort(to),
		reflect.TypeFor[time.Time]():       time.Now(),
		reflect.TypeFor[int]():             1,
	}
	args := zeroArgs(method)
	for i := range args {
		if v, ok := given[args[i].Type()]; ok {
			args[i] = reflect.ValueOf(v)
		}
		switch method.In(i + 1) {
		case reflect.TypeFor[context.Context]():
			args[i] = reflect.ValueOf(context.Background())
		case reflect.TypeFor[net.Addr]():
			args[i] = reflect.ValueOf(net.UDPAddrFromAddrPort(to))
		}
	}
	return args
}
