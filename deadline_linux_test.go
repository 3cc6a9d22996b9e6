// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

func TestFullSocketDontWait(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := filled(t, lo, nil)
		c := nw.c
		before := c.Stats()
		parked := nw.startWaits(nil, 1, 1)
		msgs := nw.messages(9, 0, 3)
		ms := []ipv4.Message{{Buffers: [][]byte{payload(9, 0)}, Addr: net.UDPAddrFromAddrPort(nw.to)}}
		atOnce(t, "the sends that do not wait", func() {
			n, err := c.SendMessages(context.Background(), msgs, MsgDontWait)
			checkWouldBlock(t, "SendMessages", n, err)
			n, err = c.SendMessage(nil, &msgs[0], MsgDontWait)
			checkWouldBlock(t, "SendMessage", n, err)
			n, err = c.SendTo(nil, payload(9, 0), nw.to, MsgDontWait)
			checkWouldBlock(t, "SendTo", n, err)
			n, err = c.SendEach(nil, msgs, MsgDontWait)
			checkWouldBlock(t, "SendEach", n, err)
			n, err = c.WriteBatch(ms, MsgDontWait)
			checkWouldBlock(t, "WriteBatch", n, err)
		})
		for i := range msgs {
			if msgs[i].BytesSent != untouched {
				t.Errorf("message %d: BytesSent %d, which was not sent", i, msgs[i].BytesSent)
			}
		}
		stillWaiting(t, parked)
		after := c.Stats()
		if after.WouldBlock-before.WouldBlock != 5 || after.Parked-before.Parked != 1 {
			t.Errorf("Stats: %d would block, %d parked; want 5, 1", after.WouldBlock-before.WouldBlock, after.Parked-before.Parked)
		}
		lo.setTap(open)
		allEnded(t, parked, 1, nil)
	})
}

func TestFullSocketNonBlocking(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := filled(t, lo, &Config{NonBlocking: true})
		c, p, to := nw.c, payload(9, 0), net.UDPAddrFromAddrPort(nw.to)

		// One waits as this package does, one in x/net with the lock of the
		// descriptor.
		waits, locks := make(chan error, 1), make(chan error, 1)
		xnet := &parkingConn{c, make(chan struct{}, 1000)}
		go func() { waits <- c.WaitWritable(nil) }()
		go func() {
			_, err := ipv4.NewPacketConn(xnet).WriteBatch([]ipv4.Message{{Buffers: [][]byte{p}, Addr: to}}, 0)
			locks <- err
		}()
		nw.awaitWaiting(1)
		receive(t, "x/net's park", xnet.parks)

		atOnce(t, "the sends of a NonBlocking Conn", func() {
			n, err := c.WriteTo(p, to)
			checkWouldBlock(t, "WriteTo", n, err)
			n, err = c.WriteToUDP(p, to)
			checkWouldBlock(t, "WriteToUDP", n, err)
			n, err = c.WriteToUDPAddrPort(p, nw.to)
			checkWouldBlock(t, "WriteToUDPAddrPort", n, err)
			n, _, err = c.WriteMsgUDP(p, nil, to)
			checkWouldBlock(t, "WriteMsgUDP", n, err)
			n, _, err = c.WriteMsgUDPAddrPort(p, nil, nw.to)
			checkWouldBlock(t, "WriteMsgUDPAddrPort", n, err)
			n, err = c.SendMessages(nil, nw.messages(9, 0, 3), 0)
			checkWouldBlock(t, "SendMessages", n, err)
		})
		select {
		case err := <-waits:
			t.Errorf("WaitWritable ended: %v", err)
		case err := <-locks:
			t.Errorf("x/net's WriteBatch ended: %v", err)
		default:
		}
		lo.setTap(open)
		if err := receive(t, "WaitWritable", waits); err != nil {
			t.Error(err)
		}
		if err := receive(t, "x/net's WriteBatch", locks); err != nil {
			t.Error(err)
		}
	})
}

func TestFullSocketNonBlockingWrite(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := newNarrows(t, lo, shut, nil)
		u, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(nw.to))
		if err != nil {
			t.Fatal(err)
		}
		u.SetWriteBuffer(4608)
		c, err := New(u, &Config{NonBlocking: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		atOnce(t, "Write until the socket is full", func() {
			for range 10_000 {
				if n, err := c.Write(payload(1, 0)); err != nil {
					checkWouldBlock(t, "Write", n, err)
					return
				}
			}
			t.Error("10000 datagrams fitted")
		})
	})
}

// A parkingConn tells when a write of x/net's has found no room, and so parks
// with the lock of the descriptor.
type parkingConn struct {
	*Conn
	parks chan struct{}
}

func (c *parkingConn) SyscallConn() (syscall.RawConn, error) {
	raw, err := c.Conn.SyscallConn()
	return parkingRawConn{raw, c.parks}, err
}

type parkingRawConn struct {
	syscall.RawConn
	parks chan struct{}
}

func (c parkingRawConn) Write(f func(fd uintptr) bool) error {
	return c.RawConn.Write(func(fd uintptr) bool {
		done := f(fd)
		if !done {
			c.parks <- struct{}{}
		}
		return done
	})
}

func TestFullSocketSendsEverything(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := newNarrows(t, lo, trickle, nil)
		ty := nw.receive()
		sent := nw.fill()
		const n = 600 // more than two kernel calls
		calls := make(map[int]<-chan result)
		for sender := 1; sender <= 2; sender++ {
			calls[sender] = nw.sendAside(context.Background(), nw.messages(sender, 0, n))
		}
		for sender := range calls {
			allEnded(t, []<-chan result{calls[sender]}, n, nil)
		}
		nw.finish(ty)
		if ty.got[0] != sent || ty.got[1] != n || ty.got[2] != n {
			t.Errorf("arrived: %v; want %d, %d, %d", ty.got, sent, n, n)
		}
		if s := nw.c.Stats(); s.Parked == 0 || s.Messages != uint64(sent+2*n+1) {
			t.Errorf("Stats: %+v; want some parked, %d messages", s, sent+2*n+1)
		}
	})
}

func TestWaitWritable(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) { testWaitWritable(t, lo, false) })
}

func TestWaitWritableErrorQueue(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) { testWaitWritable(t, lo, true) })
}

func testWaitWritable(t *testing.T, lo *loopback, errorQueue bool) {
	nw := newNarrows(t, lo, shut, nil)
	if errorQueue {
		control(t, nw.u, func(fd int) error { // each datagram leaves its time in the error queue as it is queued
			return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPING,
				unix.SOF_TIMESTAMPING_TX_SCHED|unix.SOF_TIMESTAMPING_SOFTWARE|unix.SOF_TIMESTAMPING_OPT_TSONLY)
		})
	}
	atOnce(t, "WaitWritable of an empty socket", func() {
		if err := nw.c.WaitWritable(nil); err != nil {
			t.Error(err)
		}
	})
	nw.fill()
	if events := nw.poll(); events&unix.POLLOUT != 0 || (events&unix.POLLERR != 0) != errorQueue {
		t.Fatalf("poll says %#x", events)
	}

	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := nw.c.WaitWritable(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("without room: %v", err)
	}
	nw.c.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	if err := nw.c.WaitWritable(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("at the deadline: %v", err)
	}
	nw.c.SetWriteDeadline(time.Time{})

	done := make(chan error, 1)
	go func() { done <- nw.c.WaitWritable(context.Background()) }()
	nw.awaitWaiting(1)
	nw.lo.setTap(open)
	if err := receive(t, "WaitWritable", done); err != nil {
		t.Error(err)
	}
	if nw.poll()&unix.POLLOUT == 0 {
		t.Error("WaitWritable returned without room")
	}
	nw.awaitWaiting(0)

	nw.c.Close()
	if err := nw.c.WaitWritable(nil); !errors.Is(err, net.ErrClosed) {
		t.Errorf("closed: %v", err)
	}
}

// poll is what poll(2) says of the socket.
func (nw *narrows) poll() (events int16) {
	nw.t.Helper()
	control(nw.t, nw.u, func(fd int) error {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
		_, err := unix.Poll(fds, 0)
		events = fds[0].Revents
		return err
	})
	return events
}

// wakers are what ends the wait of a parked caller, each by itself.
var wakers = []struct {
	name string
	wake func(nw *narrows, cancel context.CancelFunc)
	want error
}{
	{"room", func(nw *narrows, _ context.CancelFunc) { nw.lo.setTap(open) }, nil},
	{"context", func(_ *narrows, cancel context.CancelFunc) { cancel() }, context.Canceled},
	{"deadline in the past", func(nw *narrows, _ context.CancelFunc) { nw.c.SetWriteDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
	{"both deadlines", func(nw *narrows, _ context.CancelFunc) { nw.c.SetDeadline(time.Unix(1, 0)) }, os.ErrDeadlineExceeded},
	{"deadline to come", func(nw *narrows, _ context.CancelFunc) {
		nw.c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
	}, os.ErrDeadlineExceeded},
	{"close", func(nw *narrows, _ context.CancelFunc) { nw.c.Close() }, net.ErrClosed},
}

// A waitFunc is a parkedCall.
type waitFunc func() error

func (f waitFunc) wait() error { return f() }

// TestPark parks for an hour, so that no second try hides a missed wake-up.
func TestPark(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for _, w := range wakers {
			for _, early := range []bool{false, true} { // before it is parked
				name := fmt.Sprintf("%s, early %v", w.name, early)
				nw := filled(t, lo, nil)
				q, rule := &nw.c.send.queue, waitForRoom
				rule.pause = time.Hour
				q.rule = &rule
				ctx, cancel := context.WithCancel(context.Background())
				if _, err := q.line.enter(ctx, &q.ends); err != nil {
					t.Fatal(err)
				}
				if early {
					w.wake(nw, cancel)
				}
				done, room := make(chan error, 1), false
				go func() {
					done <- q.park(ctx, waitFunc(func() error {
						return q.wait(func(fd uintptr) bool { room, _ = sys.Writable(fd); return room })
					}))
				}()
				if !early {
					nw.awaitWaiting(1)
					w.wake(nw, cancel)
				}
				if err := receive(t, name, done); !errors.Is(err, w.want) || (w.want == nil) != (err == nil) || room != (w.want == nil) {
					t.Errorf("%s: %v, %v; want %v", name, room, err, w.want)
				}
				q.leaveTurn()
				cancel()
				nw.c.Close()
			}
		}
	})
}

// TestWakers wakes three, one parked and two in line behind it.
func TestWakers(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for _, w := range wakers {
			nw := filled(t, lo, nil)
			left := nothingLeft(t)
			ctx, cancel := context.WithCancel(context.Background())
			calls := nw.startWaits(ctx, 1, 3)
			stillWaiting(t, calls)
			w.wake(nw, cancel)
			n := 0
			if w.want == nil {
				n = 1
			}
			allEnded(t, calls, n, w.want)
			nw.awaitWaiting(0)
			cancel()
			left()
			nw.c.Close()
		}
	})
}

func TestCancelOne(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := newNarrows(t, lo, shut, nil)
		ty := nw.receive()
		sent := nw.fill()
		var calls []<-chan result
		var cancels []context.CancelFunc
		for i := range 6 {
			ctx, cancel := context.WithCancel(context.Background())
			calls, cancels = append(calls, nw.startWaits(ctx, 1+i, 1)...), append(cancels, cancel)
		}
		for i, k := range []int{0, 3, 1} { // parked, in line, then parked by having moved up
			cancels[k]()
			allEnded(t, calls[k:k+1], 0, context.Canceled)
			nw.awaitWaiting(5 - i)
		}
		others := []<-chan result{calls[2], calls[4], calls[5]}
		stillWaiting(t, others)
		lo.setTap(open)
		allEnded(t, others, 1, nil)
		nw.finish(ty)
		for i, want := range []int{sent, 0, 0, 1, 0, 1, 1} {
			if ty.got[i] != want {
				t.Errorf("sender %d: %d arrived, want %d", i, ty.got[i], want)
			}
		}
		for _, cancel := range cancels {
			cancel()
		}
	})
}

func TestDeadlinePast(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := newNarrows(t, lo, shut, nil) // there is room
		c := nw.c
		for _, set := range []func(time.Time) error{c.SetWriteDeadline, c.SetDeadline} {
			if err := set(time.Now().Add(-time.Second)); err != nil {
				t.Fatal(err)
			}
			msgs := nw.messages(1, 0, 2)
			n, err := c.SendMessages(nil, msgs, 0)
			if n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) || !os.IsTimeout(err) || msgs[0].BytesSent != untouched {
				t.Errorf("SendMessages: %d, %v", n, err)
			}
			if n, err := c.SendTo(nil, payload(1, 0), nw.to, MsgDontWait); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("SendTo: %d, %v", n, err)
			}
			if n, err := c.WriteTo(payload(1, 0), net.UDPAddrFromAddrPort(nw.to)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("WriteTo: %d, %v", n, err)
			}
			if err := c.WaitWritable(nil); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("WaitWritable: %v", err)
			}
			set(time.Time{})
			if n, err := c.SendMessages(nil, msgs, 0); n != 2 || err != nil {
				t.Errorf("cleared: %d, %v", n, err)
			}
		}
	})
}

func TestDeadlineReached(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := filled(t, lo, nil)
		at := time.Now().Add(200 * time.Millisecond)
		nw.c.SetWriteDeadline(at)
		calls := make([]<-chan result, 3)
		for i := range calls {
			calls[i] = nw.sendAside(context.Background(), nw.messages(1+i, 0, 1))
		}
		allEnded(t, calls, 0, os.ErrDeadlineExceeded)
		if early := time.Until(at); early > 0 {
			t.Errorf("the deadline came %v early", early)
		}

		nw.c.SetWriteDeadline(time.Now().Add(time.Hour)) // then sooner, while they wait
		calls = nw.startWaits(nil, 1, 3)
		at = time.Now().Add(50 * time.Millisecond)
		nw.c.SetWriteDeadline(at)
		allEnded(t, calls, 0, os.ErrDeadlineExceeded)
		if early := time.Until(at); early > 0 {
			t.Errorf("the shortened deadline came %v early", early)
		}
	})
}

// TestDeadlineMovedAway: calls that wait outlive a deadline that was extended
// or cleared while they did.
func TestDeadlineMovedAway(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for name, later := range map[string]time.Time{"extended": time.Now().Add(time.Hour), "cleared": {}} {
			nw := filled(t, lo, nil)
			var calls []<-chan result
			for left := 500 * time.Millisecond; ; left *= 2 { // a busy machine may miss it
				at := time.Now().Add(left)
				nw.c.SetWriteDeadline(at)
				calls = nil
				for i := range 3 {
					calls = append(calls, nw.sendAside(nil, nw.messages(1+i, 0, 1)))
				}
				await(t, "the three wait", func() bool { n, _ := nw.waiting(); return n == 3 || time.Now().After(at) })
				nw.c.SetWriteDeadline(later)
				if time.Now().Before(at) {
					time.Sleep(time.Until(at) + 100*time.Millisecond)
					break
				}
				nw.c.SetWriteDeadline(time.Unix(1, 0))
				for _, call := range calls {
					receive(t, "a late try", call)
				}
			}
			stillWaiting(t, calls)
			if n, _ := nw.waiting(); n != 3 {
				t.Errorf("%s: %d wait, want 3", name, n)
			}
			lo.setTap(open)
			allEnded(t, calls, 1, nil)
			nw.c.Close()
		}
	})
}

// TestPlaceInLine: those that wait go in the order they came, also after the
// deadline has moved to and fro.
func TestPlaceInLine(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := filled(t, lo, nil)
		lo.oneProcessor()
		const n = 12
		calls := nw.startWaits(nil, 1, n)
		for _, left := range []time.Duration{3 * time.Hour, 2 * time.Hour, time.Hour} {
			nw.c.SetWriteDeadline(time.Now().Add(left))
			time.Sleep(5 * time.Millisecond) // those it woke are to be back in line
		}
		lo.setTap(trickle)
		allEnded(t, calls, 1, nil)
		p := make([]byte, 2048)
		for sender := 1; sender <= n; {
			nw.rx.SetReadDeadline(time.Now().Add(patience))
			if _, err := nw.rx.Read(p); err != nil {
				t.Fatal(err)
			}
			got := int(binary.BigEndian.Uint32(p))
			if got == 0 {
				continue
			}
			if got != sender {
				t.Fatalf("sender %d's turn, but %d's datagram arrived", sender, got)
			}
			sender++
		}
	})
}

// TestTurns: a sender that may wait queues behind those that wait, even if
// there is room, and one that may not wait takes the room, unless it is
// reserved.
func TestTurns(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := newNarrows(t, lo, open, nil)
		nw.c.send.queue.takers.Add(1) // one that waits to send from now on
		if _, err := nw.c.send.queue.line.enter(nil, &nw.c.send.queue.ends); err != nil {
			t.Fatal(err)
		}
		try := func() (n int, err error) {
			atOnce(t, "a send that does not wait", func() { n, err = nw.c.SendTo(nil, payload(1, 0), nw.to, MsgDontWait) })
			return n, err
		}
		if n, err := try(); n != payloadSize || err != nil {
			t.Errorf("with room, while another waits: %d, %v", n, err)
		}
		call := nw.sendAside(nil, nw.messages(2, 0, 1))
		await(t, "it queues", func() bool { n, _ := nw.waiting(); return n == 2 })
		stillWaiting(t, []<-chan result{call})
		nw.c.send.queue.since.Store(-int64(time.Hour))
		n, err := try()
		checkWouldBlock(t, "with room that is reserved for another", n, err)
		nw.c.send.queue.leaveTurn()
		nw.c.send.queue.takers.Add(-1)
		allEnded(t, []<-chan result{call}, 1, nil)
		if n, err := try(); n != payloadSize || err != nil {
			t.Errorf("after the room was reserved: %d, %v", n, err)
		}
	})
}

// TestWaitWritableInNobodysWay: while others wait for half of the buffer to be
// free, senders go on in the rest.
func TestWaitWritableInNobodysWay(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := newNarrows(t, lo, shut, nil)
		nw.c.SetWriteBuffer(40_000)
		nw.fill()
		nw.c.SetWriteBuffer(60_000)
		ctx, cancel := context.WithCancel(context.Background())
		var waiters sync.WaitGroup
		for range 8 {
			waiters.Go(func() {
				if err := nw.c.WaitWritable(ctx); !errors.Is(err, context.Canceled) {
					t.Errorf("WaitWritable: %v", err)
				}
			})
		}
		nw.awaitWaiting(8)
		for i := range 10 {
			if n, err := nw.c.SendMessages(ctx, nw.messages(1, 2*i, 2), 0); n != 2 || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
			if _, err := nw.c.SendTo(ctx, payload(2, i), nw.to, 0); err != nil {
				t.Fatal(err)
			}
		}
		if s := nw.c.Stats(); s.Parked != 0 {
			t.Errorf("senders waited %d times", s.Parked)
		}
		cancel()
		waiters.Wait()
	})
}

// TestWaitWritableReserved: what is reserved for a sender that starved is no
// room for those that watch, and they look at the socket now and then only.
func TestWaitWritableReserved(t *testing.T) {
	w := plainKind.world(t, 1, nil)
	q := &w.conn.send.queue
	var looks atomic.Int32
	rule := waitForRoom
	rule.ready = func(fd uintptr) (bool, error) {
		looks.Add(1)
		return sys.Writable(fd)
	}
	q.rule, q.watcher().rule = &rule, &rule
	q.since.Store(sinceEpoch(time.Now().Add(-time.Hour)))
	start, done := time.Now(), make(chan error, 2)
	for range cap(done) {
		go func() { done <- w.conn.WaitWritable(nil) }()
	}
	await(t, "they have looked often", func() bool { return looks.Load() >= 8 || len(done) > 0 })
	if n, limit := int(looks.Load()), 8+int(time.Since(start)/rule.pause); n > limit {
		t.Errorf("they looked %d times in %v, want at most %d", n, time.Since(start), limit)
	}
	if len(done) > 0 {
		t.Errorf("%d callers were told of room that is another's", len(done))
	}
	q.since.Store(0)
	for range cap(done) {
		if err := receive(t, "room", done); err != nil {
			t.Error(err)
		}
	}
}

// TestRoomThatIsNone: where the kernel says that there is room and takes
// nothing all the same, a sender asks again, but not all the time.
func TestRoomThatIsNone(t *testing.T) {
	w, s := scripted(t, plainKind, func(int, []ipv4.Message) (int, error) { return 0, unix.EAGAIN })
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	start := time.Now()
	n, err := w.conn.SendTo(ctx, []byte("x"), w.dest[0], 0)
	if n != 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d, %v", n, err)
	}
	// Two a pause, whose first are shorter.
	if limit := 12 + 2*int(time.Since(start)/waitForRoom.pause); s.calls < 3 || s.calls > limit {
		t.Errorf("%d tries in %v, want at most %d", s.calls, time.Since(start), limit)
	}
}

// TestStarved: a sender that waits long has the next room reserved, and asks
// for it without keeping a processor busy.
func TestStarved(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := filled(t, lo, nil)
		ctx, cancel := context.WithCancel(context.Background())
		first := nw.startWaits(ctx, 1, 1)
		second := nw.startWaits(nil, 2, 1)
		tries := nw.c.Stats().Calls
		cancel()
		allEnded(t, first, 0, context.Canceled)
		await(t, "room is reserved", nw.c.send.queue.starved)
		// The pauses of 30 ms are five.
		if n := nw.c.Stats().Calls - tries; n > 10 {
			t.Errorf("room is reserved only after %d tries", n)
		}
		before, start := nw.c.Stats().Calls, time.Now()
		time.Sleep(200 * time.Millisecond)
		calls, limit := nw.c.Stats().Calls-before, uint64(time.Since(start)/waitForRoom.pause)+2
		if calls > limit {
			t.Errorf("%d tries in %v, want at most %d", calls, time.Since(start), limit)
		}
		lo.setTap(open)
		allEnded(t, second, 1, nil)
		if nw.c.send.queue.starved() {
			t.Error("room is reserved for nobody")
		}
	})
}

func TestCloseWhileParked(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for range 10 {
			left := nothingLeft(t)
			nw := filled(t, lo, nil)
			calls := nw.startWaits(context.Background(), 1, 4)
			ctx, cancel := context.WithCancel(context.Background())
			calls = append(calls, nw.startWaits(ctx, 5, 4)...)
			other := make(chan error, 3)
			go func() { other <- nw.c.WaitWritable(ctx) }()
			go func() { _, err := nw.c.WriteTo(payload(9, 0), net.UDPAddrFromAddrPort(nw.to)); other <- err }()
			go func() { // in line behind WriteTo, for the lock of the descriptor
				_, err := ipv4.NewPacketConn(nw.c).WriteBatch([]ipv4.Message{{Buffers: [][]byte{payload(9, 0)}, Addr: net.UDPAddrFromAddrPort(nw.to)}}, 0)
				other <- err
			}()
			nw.awaitWaiting(9)
			stillWaiting(t, calls)
			addr := nw.c.LocalAddr().(*net.UDPAddr)
			atOnce(t, "Close", func() {
				if err := nw.c.Close(); err != nil {
					t.Error(err)
				}
			})
			again, err := net.ListenUDP("udp4", addr)
			if err != nil {
				t.Errorf("the port after Close: %v", err)
			} else {
				again.Close()
			}
			allEnded(t, calls, 0, net.ErrClosed)
			for range 3 {
				if err := receive(t, "the others", other); !errors.Is(err, net.ErrClosed) {
					t.Errorf("others: %v", err)
				}
			}
			if _, err := nw.c.SendMessages(nil, nil, 0); !errors.Is(err, net.ErrClosed) {
				t.Errorf("after Close: %v", err)
			}
			nw.rx.Close()
			cancel()
			left()
		}
	})
}

// TestEverythingAtOnce ends waits in all ways in the same moment: room, cancel,
// deadline and Close.
func TestEverythingAtOnce(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		left := nothingLeft(t)
		for round := range 60 {
			nw := filled(t, lo, nil)
			ctx, cancel := context.WithCancel(context.Background())
			var calls []<-chan result
			for i := range 8 {
				of := ctx
				if i%2 == 1 {
					of = nil
				}
				calls = append(calls, nw.sendAside(of, nw.messages(1+i, 0, 3)))
			}
			if round%3 != 0 {
				nw.awaitWaiting(8)
			}
			var wg sync.WaitGroup
			wg.Go(cancel)
			wg.Go(func() { nw.c.SetWriteDeadline(time.Now().Add(time.Duration(rand.IntN(200)) * time.Microsecond)) })
			wg.Go(func() { nw.c.SetWriteDeadline(time.Time{}) })
			if round%2 == 0 {
				wg.Go(func() { time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond); lo.setTap(open) })
			}
			wg.Go(func() {
				time.Sleep(time.Duration(rand.IntN(300)) * time.Microsecond)
				nw.c.Close()
			})
			for i, ch := range calls {
				r := receive(t, "a call that everything ends", ch)
				ok := errors.Is(r.err, net.ErrClosed) || errors.Is(r.err, os.ErrDeadlineExceeded) || errors.Is(r.err, context.Canceled)
				if (r.n > 0) != (r.err == nil) || (r.err != nil && !ok) || r.n > 3 {
					t.Errorf("call %d: %d, %v", i, r.n, r.err)
				}
			}
			wg.Wait()
			nw.rx.Close()
		}
		left()
	})
}

// TestNoStarvationByTries: two that never wait keep the socket full.
func TestNoStarvationByTries(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := newNarrows(t, lo, trickle, nil)
		nw.fill()
		stop, tries := make(chan struct{}), sync.WaitGroup{}
		var taken atomic.Int64
		for range 2 {
			tries.Go(func() {
				p := payload(7, 0)
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := nw.c.SendTo(nil, p, nw.to, MsgDontWait); err == nil {
						taken.Add(1)
					} else if !errors.Is(err, ErrWouldBlock) {
						t.Error(err)
						return
					}
				}
			})
		}
		await(t, "the two take all room", func() bool { return taken.Load() > 100 })
		before, start := taken.Load(), time.Now()
		allEnded(t, []<-chan result{nw.sendAside(context.Background(), nw.messages(1, 0, 20))}, 20, nil)
		t.Logf("20 messages in %v, meanwhile %d of those that never wait", time.Since(start), taken.Load()-before)
		close(stop)
		tries.Wait()
	})
}

// TestNoStarvationByNewcomers: a call that waits gets its turn however many
// come after it.
func TestNoStarvationByNewcomers(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := newNarrows(t, lo, trickle, nil)
		nw.fill()
		const newcomers, n = 16, 20
		stop, callers := make(chan struct{}), sync.WaitGroup{}
		var done atomic.Int64
		for range newcomers {
			callers.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
					}
					if _, err := nw.c.SendTo(context.Background(), payload(7, 0), nw.to, 0); err != nil {
						t.Error(err)
						return
					}
					done.Add(1)
				}
			})
		}
		await(t, "newcomers keep coming", func() bool { return done.Load() > 10*newcomers })
		before, start := done.Load(), time.Now()
		allEnded(t, []<-chan result{nw.sendAside(context.Background(), nw.messages(1, 0, n))}, n, nil)
		passed := done.Load() - before
		t.Logf("%d messages in %v, meanwhile %d newcomers", n, time.Since(start), passed)
		// One message a turn at least, and each newcomer has one turn between two of
		// ours.
		if limit := int64(2 * n * (newcomers + 1)); passed > limit {
			t.Errorf("%d newcomers passed by, want at most %d", passed, limit)
		}
		close(stop)
		callers.Wait()
	})
}

// A storm is senders that are never cancelled beside senders that are, again
// and again.
type storm struct {
	*narrows
	stop      chan struct{}
	steady    sync.WaitGroup
	sent      atomic.Int64
	mu        sync.Mutex
	latencies []time.Duration // from cancel to the end of the call
	cutOff    int             // calls that ended with an error
}

// goSteady runs a sender that must never fail.
func (s *storm) goSteady(name string, send func() (int, error)) {
	s.steady.Go(func() {
		for {
			select {
			case <-s.stop:
				return
			default:
			}
			n, err := send()
			if err != nil {
				s.t.Errorf("%s, never cancelled: %v", name, err)
				return
			}
			s.sent.Add(int64(n))
		}
	})
}

// cancelled runs a sender whose calls are cancelled at random moments.
func (s *storm) cancelled(calls int, allowed ...error) {
	msgs := s.messages(5, 0, 2000) // more than would leave in a second
	for range calls {
		ctx, cancel := context.WithCancel(context.Background())
		at := make(chan time.Time, 1)
		time.AfterFunc(time.Duration(rand.IntN(3000))*time.Microsecond, func() {
			at <- time.Now()
			cancel()
		})
		n, err := s.c.SendMessages(ctx, msgs, 0)
		end := time.Now()
		latency := end.Sub(<-at)
		s.mu.Lock()
		s.latencies = append(s.latencies, latency)
		if err != nil {
			s.cutOff++
		}
		s.mu.Unlock()
		is := func(want error) bool { return errors.Is(err, want) }
		if n == len(msgs) || (n == 0) != (err != nil) || err != nil && !slices.ContainsFunc(append(allowed, context.Canceled), is) {
			s.t.Errorf("cancelled call: %d, %v", n, err)
		}
	}
}

func TestStorm(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		s := &storm{narrows: newNarrows(t, lo, trickle, nil), stop: make(chan struct{})}
		s.fill()
		left := nothingLeft(t)
		to := net.UDPAddrFromAddrPort(s.to)
		for range 2 {
			msgs := s.messages(1, 0, 20)
			s.goSteady("SendMessages", func() (int, error) { return s.c.SendMessages(nil, msgs, 0) })
		}
		s.goSteady("WriteTo", func() (int, error) { _, err := s.c.WriteTo(payload(2, 0), to); return 1, err })
		pc := ipv4.NewPacketConn(s.c)
		ms := []ipv4.Message{{Buffers: [][]byte{payload(3, 0)}, Addr: to}, {Buffers: [][]byte{payload(3, 1)}, Addr: to}}
		s.goSteady("x/net WriteBatch", func() (int, error) { return pc.WriteBatch(ms, 0) })
		s.goSteady("x/net WriteTo", func() (int, error) { _, err := pc.WriteTo(payload(4, 0), nil, to); return 1, err })
		s.steady.Go(func() { // keeps moving the deadline into the future
			for {
				select {
				case <-s.stop:
					return
				case <-time.After(time.Millisecond):
					s.c.SetWriteDeadline(time.Now().Add(time.Minute + time.Duration(rand.IntN(1e9))))
				}
			}
		})
		var cancelled sync.WaitGroup
		for range 4 {
			cancelled.Go(func() { s.cancelled(150) })
		}
		cancelled.Wait()
		close(s.stop)
		s.steady.Wait()
		s.checkLatency()
		s.checkLastDeadline()
		left()
	})
}

// checkLatency prints how soon the cancelled calls ended. The bound is for
// machines that are busy otherwise.
func (s *storm) checkLatency() {
	l := s.latencies
	slices.Sort(l)
	p50, p99, worst := l[len(l)/2], l[len(l)*99/100], l[len(l)-1]
	s.t.Logf("%d calls cancelled, %d with an error: ended after p50 %v, p99 %v, worst %v; meanwhile %d datagrams of those never cancelled",
		len(l), s.cutOff, p50, p99, worst, s.sent.Load())
	if p50 > 100*time.Millisecond || worst > patience {
		s.t.Errorf("cancelled calls ended after p50 %v, worst %v", p50, worst)
	}
	if s.sent.Load() == 0 || s.cutOff == 0 {
		s.t.Errorf("%d datagrams of those never cancelled, %d calls cut off before their first; want some", s.sent.Load(), s.cutOff)
	}
}

// checkLastDeadline: cancels change nothing of the deadline that is set.
func (s *storm) checkLastDeadline() {
	at := time.Now().Add(300 * time.Millisecond)
	s.c.SetWriteDeadline(at)
	s.cancelled(20, os.ErrDeadlineExceeded)
	s.lo.setTap(shut)
	for i, send := range []func() error{
		func() error { // until the socket is full, and then until the deadline
			for {
				if _, err := s.c.SendTo(context.Background(), payload(6, 0), s.to, 0); err != nil {
					return err
				}
			}
		},
		func() error { _, err := s.c.WriteTo(payload(6, 0), net.UDPAddrFromAddrPort(s.to)); return err },
	} {
		done := make(chan error, 1)
		go func() { done <- send() }()
		if err := receive(s.t, "the last deadline", done); !errors.Is(err, os.ErrDeadlineExceeded) || time.Until(at) > 0 {
			s.t.Errorf("sender %d: %v, %v before the last deadline", i, err, time.Until(at))
		}
	}
}

// TestExactCounts cuts sends off by contexts and deadlines. Each sender goes on
// where the last call ended of its own account, so a datagram lost or
// doubled, by a wrong count, shows at the receiver.
func TestExactCounts(t *testing.T) { testExactCounts(t, GSOOff) }

func TestExactCountsSegmented(t *testing.T) { testExactCounts(t, GSOAuto) }

func testExactCounts(t *testing.T, mode GSOMode) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := newNarrows(t, lo, trickle, &Config{GSO: mode})
		ty := nw.receive()
		const senders, goal = 6, 150
		var wg sync.WaitGroup
		var sent [senders]int
		var cut, short atomic.Int64
		stop := make(chan struct{})
		for i := range senders {
			wg.Go(func() {
				for sent[i] < goal {
					ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rand.IntN(40_000))*time.Microsecond)
					n, of, err := nw.sendSome(ctx, i, sent[i])
					cancel()
					switch {
					case err != nil && (n != 0 || !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, os.ErrDeadlineExceeded)):
						t.Errorf("sender %d: %d, %v", i, n, err)
					case err != nil:
						cut.Add(1)
					case n < of:
						short.Add(1)
					}
					sent[i] += n
				}
			})
		}
		var deadlines sync.WaitGroup
		deadlines.Go(func() { nw.moveDeadline(stop) })
		wg.Wait()
		close(stop)
		deadlines.Wait()
		nw.finish(ty)
		total := 0
		for i := range senders {
			total += sent[i]
			if ty.got[i] != sent[i] {
				t.Errorf("sender %d: %d arrived, %d were sent by its account", i, ty.got[i], sent[i])
			}
		}
		if s := nw.c.Stats(); s.Messages != uint64(total+1) || s.Bytes != uint64((total+1)*payloadSize) {
			t.Errorf("Stats: %+v, want %d messages", s, total+1)
		}
		if cut.Load() == 0 || short.Load() == 0 && !nw.c.Stats().GSO { // a run is sent whole
			t.Errorf("%d calls cut off, %d short; want some of each", cut.Load(), short.Load())
		}
		t.Logf("%d datagrams, %d calls cut off, %d short", total, cut.Load(), short.Load())
	})
}

// moveDeadline sets a deadline that soon passes, or has, and clears it, again
// and again.
func (nw *narrows) moveDeadline(stop <-chan struct{}) {
	pause := func(limit int) bool {
		select {
		case <-stop:
			return false
		case <-time.After(time.Duration(rand.IntN(limit)) * time.Microsecond):
			return true
		}
	}
	for pause(30_000) {
		nw.c.SetWriteDeadline(time.Now().Add(time.Duration(rand.IntN(5000)-500) * time.Microsecond))
		if !pause(3000) {
			return
		}
		nw.c.SetWriteDeadline(time.Time{})
	}
}

// sendSome sends some datagrams of a sender from first on, by one of the calls,
// and returns how many of how many were sent by its account.
func (nw *narrows) sendSome(ctx context.Context, sender, first int) (n, of int, err error) {
	msgs := nw.messages(sender, first, 1+rand.IntN(40))
	switch rand.IntN(4) {
	case 0:
		n, err = nw.c.SendEach(ctx, msgs, 0)
		if n > 0 { // what ended it comes beside n
			err = nil
		}
	case 1:
		msgs = msgs[:1]
		bytes, sendErr := nw.c.SendMessage(ctx, &msgs[0], 0)
		n, err = bytes/payloadSize, sendErr
	case 2:
		msgs = msgs[:1]
		bytes, sendErr := nw.c.SendTo(ctx, msgs[0].Vectors[0], nw.to, 0)
		if sendErr == nil {
			msgs[0].BytesSent = bytes
		}
		n, err = bytes/payloadSize, sendErr
	default:
		n, err = nw.c.SendMessages(ctx, msgs, 0)
	}
	for i := range msgs {
		want := untouched
		if i < n {
			want = payloadSize
		}
		if msgs[i].BytesSent != want {
			nw.t.Errorf("sender %d, %d of %d sent: message %d has BytesSent %d", sender, n, len(msgs), i, msgs[i].BytesSent)
		}
	}
	return n, len(msgs), err
}

// TestNoDescriptorLeft: a caller that cannot duplicate the socket waits all the
// same.
func TestNoDescriptorLeft(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := newNarrows(t, lo, shut, nil)
		ty := nw.receive()
		sent := nw.fill()
		giveBack := useUpDescriptors(t)
		defer giveBack()

		ctx, cancel := context.WithCancel(context.Background())
		calls := nw.startWaits(ctx, 1, 2)
		watcher := make(chan error, 1)
		go func() { watcher <- nw.c.WaitWritable(ctx) }()
		nw.awaitWaiting(3)
		watch := nw.c.send.queue.watcher()
		await(t, "it is parked", func() bool { return watch.state.Load() == parked })
		if raw, err := watch.ready(); raw != nil || err != nil {
			t.Errorf("a descriptor was left, or %v", err)
		}
		cancel()
		allEnded(t, calls, 0, context.Canceled)
		checkError(t, receive(t, "the watcher", watcher), context.Canceled)
		calls = nw.startWaits(nil, 1, 2)
		nw.c.SetWriteDeadline(time.Now().Add(time.Millisecond))
		allEnded(t, calls, 0, os.ErrDeadlineExceeded)
		nw.c.SetWriteDeadline(time.Time{})
		calls = nw.startWaits(nil, 1, 2)
		lo.setTap(open)
		allEnded(t, calls, 1, nil)
		nw.finish(ty)
		if ty.got[0] != sent || ty.got[1] != 1 || ty.got[2] != 1 {
			t.Errorf("arrived: %v; want %d, 1, 1", ty.got, sent)
		}
		lo.setTap(shut)
		nw.fill()
		calls = nw.startWaits(nil, 1, 8)
		nw.c.Close()
		allEnded(t, calls, 0, net.ErrClosed)
	})
}

// useUpDescriptors leaves none to be opened until giveBack.
func useUpDescriptors(t *testing.T) (giveBack func()) {
	t.Helper()
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	few := was
	few.Cur = 128
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &few); err != nil {
		t.Fatal(err)
	}
	var used []int
	for {
		fd, err := unix.FcntlInt(0, unix.F_DUPFD_CLOEXEC, 0)
		if err == unix.EMFILE {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		used = append(used, fd)
	}
	return func() {
		for _, fd := range used {
			unix.Close(fd)
		}
		unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	}
}
