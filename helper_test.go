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
	"runtime"
	"strings"
	"testing"
	"time"
)

// Replaced on Linux, where a receive buffer can be grown and asked for.
var (
	growBuffer = func(c *net.UDPConn) { c.SetReadBuffer(4 << 20) }
	bufferSize = func(c *net.UDPConn) int { return 200 << 10 }
)

const (
	smallCost = 1280 // the maximum that a small datagram takes of a receive buffer on Linux (skb->truesize)
	patience  = 20 * time.Second
)

// An inbox is a receiver on loopback, read by expect alone: what is sent to it
// must fit in its buffer.
type inbox struct {
	conn *net.UDPConn
	addr netip.AddrPort
}

func newInbox(t testing.TB, network, host string) *inbox {
	t.Helper()
	c := far.listen(t, network, host)
	growBuffer(c)
	return &inbox{c, addrPortOf(c)}
}

// A site is where sockets are opened: by the address of loopback that stands
// for it in the tests.
type site struct {
	addr func(host string) netip.Addr
	open func(network string, addr *net.UDPAddr) (*net.UDPConn, error)
}

// Where Conns are, and their peers. A test of both ends of a wire replaces
// them.
var (
	near = site{netip.MustParseAddr, net.ListenUDP}
	far  = near
)

func listen(t testing.TB, network, host string) *net.UDPConn {
	t.Helper()
	return near.listen(t, network, host)
}

func (p site) listen(t testing.TB, network, host string) *net.UDPConn {
	t.Helper()
	c, err := p.open(network, &net.UDPAddr{IP: p.addr(host).AsSlice()})
	if err != nil && network != "udp4" {
		t.Skipf("no IPv6 here: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// newConn is New, and Close at the end of the test.
func newConn(t testing.TB, u *net.UDPConn, cfg *Config) *Conn {
	t.Helper()
	c, err := New(u, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func addrPortOf(c net.PacketConn) netip.AddrPort {
	a := c.LocalAddr().(*net.UDPAddr).AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}

var endMark = []byte("-- no more was sent --")

// expect reads want, in order, and makes sure that there is nothing after it.
func (in *inbox) expect(t testing.TB, want [][]byte) {
	t.Helper()
	buf := make([]byte, 1<<16)
	for i, p := range want {
		if got := in.read(t, buf); !bytes.Equal(got, p) {
			t.Fatalf("%v: datagram %d of %d is %s, want %s", in.addr, i, len(want), brief(got), brief(p))
		}
	}
	marker, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(in.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer marker.Close()
	if _, err := marker.Write(endMark); err != nil {
		t.Fatal(err)
	}
	if got := in.read(t, buf); !bytes.Equal(got, endMark) {
		t.Fatalf("%v: one datagram too many after %d: %s", in.addr, len(want), brief(got))
	}
}

func (in *inbox) read(t testing.TB, buf []byte) []byte {
	t.Helper()
	in.conn.SetReadDeadline(time.Now().Add(patience))
	n, _, err := in.conn.ReadFromUDPAddrPort(buf)
	if err != nil {
		t.Fatalf("%v: %v", in.addr, err)
	}
	return buf[:n]
}

func brief(p []byte) string { return fmt.Sprintf("%d bytes %.40q", len(p), p) }

// readPair is a Conn to read from and one to send to it.
func readPair(t testing.TB, cfg *Config) (in, out *Conn, to netip.AddrPort) {
	t.Helper()
	u := listen(t, "udp4", "127.0.0.1")
	growBuffer(u)
	in, err := New(u, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	if out, err = New(far.listen(t, "udp4", "127.0.0.1"), nil); err != nil {
		t.Fatal(err)
	}
	return in, out, addrPortOf(u)
}

// sendAll sends all of msgs.
func sendAll(c *Conn, ctx context.Context, msgs []OutputMessage) error {
	n, err := c.SendMessages(ctx, msgs, 0)
	if err == nil && n != len(msgs) {
		return fmt.Errorf("sent %d of %d", n, len(msgs))
	}
	return err
}

// makeDeep lets a Conn find its queue deep, so that coalescing is on.
func makeDeep(t testing.TB, in, out *Conn, to netip.AddrPort) {
	t.Helper()
	msgs := AppendSegments(nil, to, make([]byte, 200*10), 10, nil)
	if err := sendAll(out, nil, msgs); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 100)
	for range msgs {
		if _, _, err := in.ReadFromUDPAddrPort(p); err != nil {
			t.Fatal(err)
		}
	}
}

// A kind is a kind of socket to send from.
type kind struct {
	name      string
	v6        bool
	connected bool
	network   string
	from      string
	to        []string // hosts of its receivers, in turn
}

var kinds = []kind{
	{"udp4", false, false, "udp4", "127.0.0.1", []string{"127.0.0.1"}},
	{"udp6", true, false, "udp6", "::1", []string{"::1"}},
	{"dual", true, false, "udp", "::", []string{"127.0.0.1", "::1", "127.0.0.1"}},
	{"udp4-connected", false, true, "udp4", "127.0.0.1", []string{"127.0.0.1"}},
	{"udp6-connected", true, true, "udp6", "::1", []string{"::1"}},
	{"dual-connected", true, true, "udp", "::", []string{"127.0.0.1"}},
}

// open makes a socket and n receivers, or one if it is connected to that.
func (k kind) open(t testing.TB, n int) (*net.UDPConn, []*inbox) {
	t.Helper()
	if k.connected {
		n = 1
	}
	in := inboxes(t, n, k.to...)
	return k.socket(t, in[0]), in
}

func (k kind) socket(t testing.TB, peer *inbox) *net.UDPConn {
	t.Helper()
	if !k.connected {
		return listen(t, k.network, k.from)
	}
	c, err := net.DialUDP(k.network, &net.UDPAddr{IP: near.addr(k.from).AsSlice()}, net.UDPAddrFromAddrPort(peer.addr))
	if err != nil {
		t.Skipf("cannot connect %s from %s to %v: %v", k.network, k.from, peer.addr, err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// inboxes opens n of them on the hosts in turn.
func inboxes(t testing.TB, n int, hosts ...string) []*inbox {
	t.Helper()
	in := make([]*inbox, n)
	for i := range in {
		in[i] = newInbox(t, networkOfHost(hosts[i%len(hosts)]), hosts[i%len(hosts)])
	}
	return in
}

func networkOfHost(host string) string {
	if strings.Contains(host, ":") {
		return "udp6"
	}
	return "udp4"
}

// A world is a Conn and those that receive from it.
type world struct {
	kind
	conn    *Conn
	bare    *net.UDPConn // what conn was made of
	inboxes []*inbox
	dest    []netip.AddrPort // dest[i] reaches inboxes[i]
}

func (k kind) world(t testing.TB, n int, cfg *Config) *world {
	t.Helper()
	bare, in := k.open(t, n)
	conn, err := New(bare, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w := &world{kind: k, conn: conn, bare: bare, inboxes: in, dest: make([]netip.AddrPort, len(in))}
	for i := range w.dest {
		if k.connected {
			continue
		}
		w.dest[i] = in[i].addr
		if i%3 == 2 && in[i].addr.Addr().Is4() {
			w.dest[i] = mapped(in[i].addr)
		}
	}
	return w
}

func mapped(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

// forEachKind runs f on a world with n inboxes of each kind.
func forEachKind(t *testing.T, n int, cfg *Config, f func(t *testing.T, w *world)) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) { f(t, k.world(t, n, cfg)) })
	}
}

// A letter is what a message is to bring, and where.
type letter struct {
	to int
	p  []byte
}

// mail is messages and what is to become of them.
type mail struct {
	msgs    []OutputMessage
	letters []letter
}

// untouched is what BytesSent is before a send, and after it if the message was
// not sent.
const untouched = -1

// write makes n messages, each with contents of its own.
func (w *world) write(t testing.TB, n int, to func(i int) int, size func(i int) int) *mail {
	t.Helper()
	m := &mail{make([]OutputMessage, n), make([]letter, n)}
	cost := make([]int, len(w.inboxes))
	for i := range m.msgs {
		l := letter{to(i) % len(w.inboxes), contents(i, size(i))}
		m.letters[i] = l
		m.msgs[i] = OutputMessage{Addr: w.dest[l.to], Vectors: cut(l.p, i%5), BytesSent: untouched}
		cost[l.to] += smallCost + len(l.p)
	}
	for i, in := range w.inboxes {
		if room := bufferSize(in.conn); cost[i] > room {
			t.Skipf("%d messages do not fit in a receive buffer of %d bytes: raise net.core.rmem_max", n, room)
		}
	}
	return m
}

func contents(i, size int) []byte {
	p := make([]byte, size)
	for j := range p {
		p[j] = byte(i + i>>8 + 31*j)
	}
	copy(p, fmt.Sprintf("%d:", i))
	return p
}

// cut makes vectors of p, some of them empty. Each has room behind it that is
// not part of the message.
func cut(p []byte, pieces int) []OutputVector {
	var vs []OutputVector
	spare := func(p []byte) []byte { return append(bytes.Clone(p), "beyond the length"...)[:len(p)] }
	for range pieces {
		n := len(p) / 2
		vs = append(vs, spare(p[:n]))
		p = p[n:]
	}
	if len(p) > 0 {
		vs = append(vs, spare(p))
	}
	return vs
}

// Sizes and destinations of messages: nothing to coalesce, and runs with a
// shorter last datagram.
func mixed(i int) int   { return []int{17, 0, 100, 1, 63, 8}[i%6] }
func inTurn(i int) int  { return i }
func inRuns(i int) int  { return i / 40 }
func runSize(i int) int { return []int{64, 21}[(i % 40 / 39)] }

// check makes sure that exactly the messages for which sent is true arrived,
// each at its inbox, once and in order, and that BytesSent says so of all.
func (w *world) check(t testing.TB, m *mail, sent func(i int) bool) {
	t.Helper()
	want := make([][][]byte, len(w.inboxes))
	for i, l := range m.letters {
		bytes := untouched
		if sent(i) {
			bytes = len(l.p)
			want[l.to] = append(want[l.to], l.p)
		}
		if got := m.msgs[i].BytesSent; got != bytes {
			t.Fatalf("message %d of %d: BytesSent %d, want %d", i, len(m.msgs), got, bytes)
		}
	}
	for i, in := range w.inboxes {
		in.expect(t, want[i])
	}
}

func (w *world) checkPrefix(t testing.TB, m *mail, n int) {
	t.Helper()
	w.check(t, m, func(i int) bool { return i < n })
}

func (w *world) checkAll(t testing.TB, m *mail) {
	t.Helper()
	w.checkPrefix(t, m, len(m.msgs))
}

var (
	plainKind     = kinds[0]
	connectedKind = kinds[3]
)

// checkError makes sure that err is one OpError around something that Is want.
func checkError(t testing.TB, err, want error) {
	t.Helper()
	op, ok := err.(*net.OpError)
	if !ok || op.Op != "write" {
		t.Fatalf("error %#v (%v) is no OpError of a write; want %v", err, err, want)
	}
	var addrErr *net.AddrError
	if want == errAnyAddr && !errors.As(err, &addrErr) || want != errAnyAddr && !errors.Is(err, want) {
		t.Fatalf("error %v is not %v", err, want)
	}
	for e := op.Err; e != nil; e = errors.Unwrap(e) {
		if _, ok := e.(*net.OpError); ok {
			t.Fatalf("OpError within OpError: %v", err)
		}
	}
	if _, ok := op.Err.(*os.SyscallError); !ok && op.Err != want && want != errAnyAddr {
		t.Fatalf("OpError around %#v, want a SyscallError or %v itself", op.Err, want)
	}
}

// isTemporary is the deprecated method of net.Error, which is part of what
// net's errors are.
func isTemporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// receive waits for what must come at once.
func receive[T any](t testing.TB, what string, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		buf := make([]byte, 1<<20)
		t.Fatalf("waited in vain for %s\n%s", what, buf[:runtime.Stack(buf, true)])
	}
	panic("unreachable")
}

// atOnce runs what must not wait.
func atOnce(t testing.TB, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() { defer close(done); f() }()
	receive(t, what, done)
}

// await waits until something is so.
func await(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("waited in vain: %s\n%s", what, buf[:runtime.Stack(buf, true)])
		}
	}
}
