// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/netns"
)

// Before the loopback of a test's own network a socket fills up, as it never
// does on the machine's.
var (
	shut    = netns.Bucket{Rate: 1, Burst: 2 << 10, Limit: 1 << 20}       // the burst, and then nothing for minutes
	trickle = netns.Bucket{Rate: 125_000, Burst: 2 << 10, Limit: 1 << 20} // 1 Mbit/s
	open    = netns.Bucket{Rate: 1 << 30, Burst: 4 << 20, Limit: 1 << 20}
)

// A loopback is the lo of the test's own network, all of which it is: up, with
// MTU 1500, with 127.0.0.1 and, where the system has IPv6, ::1.
type loopback struct {
	t  *testing.T
	ns *netns.Namespace
}

// inNamespace runs f with a network of its own, as netns.Run.
func inNamespace(t *testing.T, f func(t *testing.T, lo *loopback)) {
	t.Helper()
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) { f(t, &loopback{t, ns}) })
}

// setTap puts a token bucket before all that leaves from now on, and in place
// of an earlier one: what waits there stays and goes on at the new rate.
func (lo *loopback) setTap(b netns.Bucket) {
	lo.t.Helper()
	netns.Check(lo.t, lo.ns.Loopback().SetBucket(b))
}

// oneProcessor keeps what passes a tap in order.
func (lo *loopback) oneProcessor() {
	lo.t.Helper()
	netns.Check(lo.t, netns.OneProcessor())
}

func init() {
	growBuffer = func(c *net.UDPConn) {
		if controlErr(c, option(unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20)) != nil { // needs CAP_NET_ADMIN
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

func control(t testing.TB, c syscall.Conn, f func(fd int) error) {
	t.Helper()
	if err := controlErr(c, f); err != nil {
		t.Fatal(err)
	}
}

func controlErr(c syscall.Conn, f func(fd int) error) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var errOfF error
	if err := raw.Control(func(fd uintptr) { errOfF = f(int(fd)) }); err != nil {
		return err
	}
	return errOfF
}

func option(level, name, value int) func(fd int) error {
	return func(fd int) error { return unix.SetsockoptInt(fd, level, name, value) }
}

func optionBytes(level, name int, value ...byte) func(fd int) error {
	return func(fd int) error { return unix.SetsockoptString(fd, level, name, string(value)) }
}

// A narrows is a Conn with a small send buffer and a receiver in a network of
// their own.
type narrows struct {
	t  *testing.T
	lo *loopback
	c  *Conn
	u  *net.UDPConn // what c was made of
	to netip.AddrPort
	rx *net.UDPConn
}

// newNarrows opens both behind a tap.
func newNarrows(t *testing.T, lo *loopback, tap netns.Bucket, cfg *Config) *narrows {
	t.Helper()
	rx, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { rx.Close() })
	rx.SetReadBuffer(1 << 20)
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	if err := u.SetWriteBuffer(4608); err != nil { // the minimum: about ten datagrams
		t.Fatal(err)
	}
	c, err := New(u, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	lo.setTap(tap)
	return &narrows{t, lo, c, u, rx.LocalAddr().(*net.UDPAddr).AddrPort(), rx}
}

// filled is newNarrows behind a shut tap, with the socket full.
func filled(t *testing.T, lo *loopback, cfg *Config) *narrows {
	t.Helper()
	nw := newNarrows(t, lo, shut, cfg)
	nw.fill()
	return nw
}

// fill sends until nothing more fits. The receiver knows these as sender 0.
func (nw *narrows) fill() (sent int) {
	nw.t.Helper()
	for ; ; sent++ {
		_, err := nw.c.SendTo(nil, payload(0, sent), nw.to, MsgDontWait)
		if errors.Is(err, ErrWouldBlock) {
			return sent
		}
		if err != nil || sent > 10_000 {
			nw.t.Fatalf("filling the socket: %d sent, %v", sent, err)
		}
	}
}

const payloadSize = 32

// payload is datagram seq of a sender.
func payload(sender, seq int) []byte {
	p := make([]byte, payloadSize)
	binary.BigEndian.PutUint32(p, uint32(sender))
	binary.BigEndian.PutUint32(p[4:], uint32(seq))
	for i := range p[8:] {
		p[8+i] = byte(sender + seq + i)
	}
	return p
}

// messages are datagrams of a sender from first on.
func (nw *narrows) messages(sender, first, n int) []OutputMessage {
	msgs := make([]OutputMessage, n)
	for i := range msgs {
		msgs[i] = OutputMessage{Addr: nw.to, Vectors: [][]byte{payload(sender, first+i)}, BytesSent: untouched}
	}
	return msgs
}

// An arrivals is what arrived from each sender.
type arrivals struct {
	got  map[int]int // of each sender the datagrams 0 to got-1, in order
	done chan struct{}
	err  error
}

// lastSender ends an arrivals: what it sent after all others arrives after all
// others.
const lastSender = 1 << 30

// receive checks all that arrives until the datagram of lastSender, each
// datagram once and in order.
func (nw *narrows) receive() *arrivals {
	nw.t.Helper()
	nw.lo.oneProcessor()
	ty := &arrivals{got: map[int]int{}, done: make(chan struct{})}
	go func() {
		defer close(ty.done)
		p := make([]byte, 2048)
		for {
			n, _, err := nw.rx.ReadFromUDPAddrPort(p)
			if err != nil {
				ty.err = errors.Join(ty.err, err)
				return
			}
			sender, seq := int(binary.BigEndian.Uint32(p)), int(binary.BigEndian.Uint32(p[4:]))
			if sender == lastSender {
				return
			}
			if string(p[:n]) != string(payload(sender, seq)) {
				ty.err = errors.Join(ty.err, fmt.Errorf("damaged: % x", p[:n]))
			}
			if seq != ty.got[sender] {
				ty.err = errors.Join(ty.err, fmt.Errorf("sender %d: datagram %d arrived after %d", sender, seq, ty.got[sender]-1))
			}
			ty.got[sender] = seq + 1
		}
	}()
	return ty
}

// finish opens the tap, sends the last datagram and waits for it.
func (nw *narrows) finish(ty *arrivals) {
	nw.t.Helper()
	nw.c.SetWriteDeadline(time.Time{})
	nw.lo.setTap(open)
	if _, err := nw.c.SendTo(nil, payload(lastSender, 0), nw.to, 0); err != nil {
		nw.t.Fatal(err)
	}
	receive(nw.t, "the last datagram", ty.done)
	if ty.err != nil {
		nw.t.Error(ty.err)
	}
}

// awaitWaiting waits until n calls wait for room, the first of them parked.
func (nw *narrows) awaitWaiting(n int) {
	nw.t.Helper()
	await(nw.t, fmt.Sprintf("%d wait for room", n), func() bool {
		waiting, parked := nw.waiting()
		return waiting == n && (n == 0 || parked)
	})
}

// waiting is how many calls wait for room, the one that has the place included,
// and whether that is parked.
func (nw *narrows) waiting() (n int, parked bool) {
	for _, p := range []*roomPlace{&nw.c.send.queue.roomPlace, nw.c.send.queue.watcher()} {
		p.line.mu.Lock()
		if n += len(p.line.waiters); p.line.taken {
			n++
		}
		p.line.mu.Unlock()
		parked = parked || p.state.Load() != unparked
	}
	return n, parked
}

type result struct {
	n   int
	err error
}

// sendAside sends in another goroutine.
func (nw *narrows) sendAside(ctx context.Context, msgs []OutputMessage) <-chan result {
	ch := make(chan result, 1)
	go func() {
		n, err := nw.c.SendMessages(ctx, msgs, 0)
		ch <- result{n, err}
	}()
	return ch
}

// startWaits makes n calls wait, the first of them parked and the others in
// line behind it, in order. Each has one message; first is the first one's
// sender.
func (nw *narrows) startWaits(ctx context.Context, first, n int) []<-chan result {
	nw.t.Helper()
	before, _ := nw.waiting()
	calls := make([]<-chan result, n)
	for i := range calls {
		calls[i] = nw.sendAside(ctx, nw.messages(first+i, 0, 1))
		nw.awaitWaiting(before + i + 1)
	}
	return calls
}

// allEnded checks how calls ended.
func allEnded(t *testing.T, calls []<-chan result, n int, want error) {
	t.Helper()
	for i, ch := range calls {
		r := receive(t, fmt.Sprintf("the end of call %d", i), ch)
		if r.n != n || !errors.Is(r.err, want) || (want == nil && r.err != nil) {
			t.Errorf("call %d: %d, %v; want %d, %v", i, r.n, r.err, n, want)
		}
	}
}

// stillWaiting checks that no call has ended.
func stillWaiting(t *testing.T, calls []<-chan result) {
	t.Helper()
	for i, ch := range calls {
		select {
		case r := <-ch:
			t.Fatalf("call %d ended: %d, %v", i, r.n, r.err)
		default:
		}
	}
}

// openDescriptors counts them.
func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

// nothingLeft returns a check that no more goroutines and descriptors are there
// than now.
func nothingLeft(t *testing.T) func() {
	t.Helper()
	goroutines, descriptors := runtime.NumGoroutine(), openDescriptors(t)
	return func() {
		t.Helper()
		await(t, fmt.Sprintf("no more than %d goroutines", goroutines), func() bool { return runtime.NumGoroutine() <= goroutines })
		await(t, fmt.Sprintf("no more than %d descriptors", descriptors), func() bool { return openDescriptors(t) <= descriptors }) // a duplicate is kept for a second
	}
}

// checkWouldBlock checks what a send that may not wait returned.
func checkWouldBlock(t *testing.T, what string, n int, err error) {
	t.Helper()
	var ne net.Error
	var op *net.OpError
	switch {
	case n != 0 || !errors.Is(err, ErrWouldBlock):
		t.Errorf("%s: %d, %v; want 0, ErrWouldBlock", what, n, err)
	case !errors.Is(err, syscall.EAGAIN):
		t.Errorf("%s: %v is not EAGAIN", what, err)
	case !errors.As(err, &ne) || ne.Timeout() || os.IsTimeout(err) || errors.Is(err, os.ErrDeadlineExceeded):
		t.Errorf("%s: %v is a timeout", what, err)
	case !isTemporary(err):
		t.Errorf("%s: %v is not temporary", what, err)
	case !errors.As(err, &op) || op.Op != "write" || op.Err != ErrWouldBlock:
		t.Errorf("%s: %#v is not one OpError around ErrWouldBlock", what, err)
	}
}

// cmsg is a control message as x/net's Marshal makes it (cmsg(3)).
func cmsg(level, typ int, data ...byte) []byte {
	var b []byte
	length := uint64(unix.CmsgLen(len(data)))
	if unix.SizeofCmsghdr == 12 { // size_t has 32 bits
		b = binary.NativeEndian.AppendUint32(b, uint32(length))
	} else {
		b = binary.NativeEndian.AppendUint64(b, length)
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(level))
	b = append(binary.NativeEndian.AppendUint32(b, uint32(typ)), data...)
	return append(b, make([]byte, unix.CmsgSpace(len(data))-len(b))...)
}

func cmsgInt(level, typ, value int) []byte {
	return cmsg(level, typ, binary.NativeEndian.AppendUint32(nil, uint32(value))...)
}

func uint16s(vs ...uint16) (b []byte) {
	for _, v := range vs {
		b = binary.NativeEndian.AppendUint16(b, v)
	}
	return b
}

func uint32s(vs ...uint32) (b []byte) {
	for _, v := range vs {
		b = binary.NativeEndian.AppendUint32(b, v)
	}
	return b
}

// sendRuns sends n runs of three datagrams of ten bytes: aaaaaaaaaa,
// bbbbbbbbbb...
func sendRuns(t testing.TB, out *Conn, to netip.AddrPort, n int, first *int) {
	t.Helper()
	for range n {
		var p []byte
		for range 3 {
			p = append(p, []byte(strings.Repeat(string(rune('a'+*first%26)), 10))...)
			*first++
		}
		if err := sendAll(out, nil, AppendSegments(nil, to, p, 10, nil)); err != nil {
			t.Fatal(err)
		}
	}
}

// readRuns reads n datagrams of sendRuns.
func readRuns(t testing.TB, read func(p []byte) (int, error), n int, first *int) {
	t.Helper()
	for range n {
		p := make([]byte, 1000)
		k, err := read(p)
		for end := time.Now().Add(patience); errors.Is(err, ErrWouldBlock) && time.Now().Before(end); k, err = read(p) {
			runtime.Gosched() // a busy kernel delivers late
		}
		if want := strings.Repeat(string(rune('a'+*first%26)), 10); string(p[:k]) != want || err != nil {
			t.Fatalf("datagram %d is %q, %v; want %q", *first, p[:k], err, want)
		}
		*first++
	}
}

func readNow(c *Conn) func(p []byte) (int, error) {
	return func(p []byte) (int, error) {
		n, _, err := c.ReceiveFrom(nil, p, MsgDontWait)
		return n, err
	}
}

// expectTTL reads datagrams, each with the TTL wanted, or any if that is 0.
func (in *inbox) expectTTL(t *testing.T, want []string, ttl []int) {
	t.Helper()
	buf, oob := make([]byte, 2048), make([]byte, 256)
	for i := range want {
		in.conn.SetReadDeadline(time.Now().Add(patience))
		n, oobn, _, _, err := in.conn.ReadMsgUDP(buf, oob)
		if err != nil {
			t.Fatal(err)
		}
		cm, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil || len(cm) != 1 {
			t.Fatalf("control data % x: %v", oob[:oobn], err)
		}
		if got := int(binary.NativeEndian.Uint32(cm[0].Data)); string(buf[:n]) != want[i] || ttl[i] != 0 && got != ttl[i] {
			t.Fatalf("datagram %d is %q with TTL %d, want %q with %d", i, buf[:n], got, want[i], ttl[i])
		}
	}
	in.conn.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, err := in.conn.Read(buf); err == nil {
		t.Errorf("%q arrived besides", buf[:n])
	}
}

// setDear has system calls taken to be dear, or cheap, until the test ends.
func setDear(t *testing.T, dear bool) {
	took := int64(1)
	if dear {
		took = int64(dearCall)
	}
	was := fastestPoll.Swap(took)
	t.Cleanup(func() { fastestPoll.Store(was) })
}

// startQuick has the Read family of c read quickly, as if its queue had been
// found deep.
func startQuick(c *Conn) {
	r := &c.recv
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.isQuick.Load() {
		r.startQuickLocked()
	}
}
