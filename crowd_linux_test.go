// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// TestCrowd has all kinds of callers wait for room at once, and ends their
// waits in all ways: none hangs, none ends for what is not its own affair, and
// none sends a datagram twice or less than it says.
func TestCrowd(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		left := nothingLeft(t)
		nw := newNarrows(t, lo, trickle, nil)
		s := &crowd{narrows: nw, stop: make(chan struct{})}
		ty := nw.receive()
		sent := nw.fill()
		s.goAll()
		s.far()
		s.mayExpire.Store(true)
		stop, deadlines := make(chan struct{}), sync.WaitGroup{}
		deadlines.Go(func() { nw.moveDeadline(stop) })
		time.Sleep(crowdTime)
		close(stop)
		deadlines.Wait()
		nw.c.SetWriteDeadline(time.Time{})
		close(s.stop)
		atOnce(t, "the crowd goes", s.wg.Wait)
		nw.finish(ty)
		if ty.got[0] != sent {
			t.Errorf("%d of %d arrived that filled the socket", ty.got[0], sent)
		}
		for i := range s.sent {
			if ty.got[1+i] != s.sent[i] || s.sent[i] == 0 && i < crowdSends { // net is not fair to its own
				t.Errorf("sender %d: %d arrived, %d were sent by its account", 1+i, ty.got[1+i], s.sent[i])
			}
		}
		t.Logf("sent: %v; %d calls ended by contexts, %d by deadlines, %d waits for room", s.sent, s.cancelled.Load(), s.expired.Load(), nw.c.Stats().Parked)

		lo.setTap(shut)
		s.mayClose.Store(true)
		s.stop = make(chan struct{})
		s.goAll()
		nw.awaitWaiting(crowdSends + crowdWatchers)
		atOnce(t, "Close", func() { nw.c.Close() })
		close(s.stop)
		atOnce(t, "the crowd goes", s.wg.Wait)
		nw.rx.Close()
		left()
	})
}

const (
	crowdSends    = 8 // goroutines that send by this package
	crowdNets     = 3 // that write as net does
	crowdWatchers = 3
	crowdTime     = 700 * time.Millisecond
)

// A crowd is callers that wait for room.
type crowd struct {
	*narrows
	stop                chan struct{}
	wg                  sync.WaitGroup
	sent                [crowdSends + crowdNets]int
	mayExpire, mayClose atomic.Bool // deadlines may pass, the Conn may be closed
	cancelled, expired  atomic.Int32
}

// goAll starts them.
func (s *crowd) goAll() {
	for i := range crowdSends {
		s.repeat(func() error {
			ctx, cancel := s.someContext()
			defer cancel()
			n, _, err := s.sendSome(ctx, 1+i, s.sent[i])
			s.sent[i] += n
			return s.mayEnd(ctx, "a send", err)
		})
	}
	for i, write := range []func(sender, first int) (int, error){s.writeTo, s.writeBatch, s.writeRaw()} {
		at := crowdSends + i
		s.repeat(func() error {
			n, err := write(1+at, s.sent[at])
			s.sent[at] += max(n, 0) // x/net says -1 with an error
			return s.mayEnd(nil, "a write of net's", err)
		})
	}
	for range crowdWatchers {
		s.repeat(func() error {
			ctx, cancel := s.someContext()
			defer cancel()
			return s.mayEnd(ctx, "WaitWritable", s.c.WaitWritable(ctx))
		})
	}
}

// repeat calls f until the stop, or an error.
func (s *crowd) repeat(f func() error) {
	s.wg.Go(func() {
		for err := error(nil); err == nil; {
			select {
			case <-s.stop:
				return
			default:
				err = f()
			}
		}
	})
}

// someContext is none, or one that is soon cancelled.
func (s *crowd) someContext() (context.Context, context.CancelFunc) {
	if rand.IntN(3) == 0 {
		return nil, func() {}
	}
	ctx, cancel := context.WithCancel(context.Background())
	timer := time.AfterFunc(time.Duration(rand.IntN(20_000))*time.Microsecond, cancel)
	return ctx, func() { timer.Stop(); cancel() }
}

// mayEnd returns what the caller has to end for: Close, or an error that it
// must not have met.
func (s *crowd) mayEnd(ctx context.Context, what string, err error) error {
	switch {
	case err == nil:
	case ctx != nil && errors.Is(err, context.Canceled) && ctx.Err() != nil:
		s.cancelled.Add(1)
	case s.mayExpire.Load() && errors.Is(err, os.ErrDeadlineExceeded):
		s.expired.Add(1)
	case s.mayClose.Load() && errors.Is(err, net.ErrClosed):
		return err
	default:
		s.t.Errorf("%s: %v", what, err)
		return err
	}
	return nil
}

// far moves the deadline for a while, but never near.
func (s *crowd) far() {
	for end := time.Now().Add(crowdTime); time.Now().Before(end); time.Sleep(time.Millisecond) {
		s.c.SetWriteDeadline(time.Now().Add(time.Minute + time.Duration(rand.IntN(1e9))))
	}
}

func (s *crowd) writeTo(sender, first int) (int, error) {
	if _, err := s.c.WriteTo(payload(sender, first), net.UDPAddrFromAddrPort(s.to)); err != nil {
		return 0, err
	}
	return 1, nil
}

func (s *crowd) writeBatch(sender, first int) (int, error) {
	return ipv4.NewPacketConn(s.c).WriteBatch(xnetMessages(s.messages(sender, first, 3)), 0)
}

// writeRaw writes by the RawConn that the user gets.
func (s *crowd) writeRaw() func(sender, first int) (int, error) {
	raw := rawOf(s.t, s.c)
	to := &unix.SockaddrInet4{Addr: s.to.Addr().As4(), Port: int(s.to.Port())}
	return func(sender, first int) (int, error) {
		var errOfF error
		err := raw.Write(func(fd uintptr) bool {
			errOfF = unix.Sendto(int(fd), payload(sender, first), unix.MSG_DONTWAIT, to)
			return errOfF != syscall.EAGAIN
		})
		if err == nil {
			err = errOfF
		}
		if err != nil {
			return 0, err
		}
		return 1, nil
	}
}

// TestKickEndsNobody: a kick that is of no caller that waits, as one is that
// comes too late, ends none of them, net's own writes included, and changes
// nothing of the deadline.
func TestKickEndsNobody(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		nw := filled(t, lo, nil)
		deadline := time.Now().Add(time.Hour)
		nw.c.SetWriteDeadline(deadline)
		q := &nw.c.send.queue
		calls := nw.startWaits(nil, 1, 2)
		calls = append(calls, nw.startWaits(t.Context(), 3, 2)...)
		others := make(chan error, 4)
		s := &crowd{narrows: nw}
		go func() { others <- nw.c.WaitWritable(nil) }()
		for i, write := range []func(sender, first int) (int, error){s.writeTo, s.writeBatch, s.writeRaw()} {
			go func() { _, err := write(5+i, 0); others <- err }()
		}
		for range 100 {
			runtime.Gosched() // until they wait
		}
		nw.awaitWaiting(5)
		for range 300 {
			q.kick()
			q.watcher().kick()
			nw.c.SetWriteDeadline(deadline) // before they run
			await(t, "the kicked park again", func() bool { return q.state.Load() == parked && q.watcher().state.Load() == parked })
		}
		stillWaiting(t, calls)
		if len(others) > 0 {
			t.Fatalf("a kick ended another: %v", <-others)
		}
		if got := q.until(); got.Sub(deadline).Abs() > time.Millisecond { // the clocks are read apart
			t.Errorf("the deadline is %v, and was set to %v", got, deadline)
		}
		lo.setTap(open)
		allEnded(t, calls, 1, nil)
		for range cap(others) {
			if err := receive(t, "net's write", others); err != nil {
				t.Error(err)
			}
		}
	})
}

// TestNetWritesGetIn: writes of net's own are not kept waiting by sends that
// wait for room again and again, nor the other way round. With one processor
// that would be for ever.
func TestNetWritesGetIn(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		nw := newNarrows(t, lo, trickle, nil)
		nw.fill()
		s := &crowd{narrows: nw, stop: make(chan struct{})}
		var sends, writes atomic.Int32
		msgs := nw.messages(1, 0, 64)
		s.repeat(func() error {
			_, err := nw.c.SendMessages(nil, msgs, 0)
			sends.Add(1)
			return s.mayEnd(nil, "SendMessages", err)
		})
		for _, write := range []func(sender, first int) (int, error){s.writeTo, s.writeBatch, s.writeRaw()} {
			before := sends.Load()
			for i := range 20 {
				n, err := write(2, i)
				if n < 1 || s.mayEnd(nil, "a write of net's", err) != nil {
					t.Fatalf("%d, %v", n, err)
				}
			}
			await(t, "sends get in", func() bool { return sends.Load() > before })
		}
		s.repeat(func() error {
			_, err := s.writeTo(2, 0)
			writes.Add(1)
			return s.mayEnd(nil, "WriteTo", err)
		})
		before := sends.Load()
		await(t, "sends and writes get in", func() bool { return writes.Load() > 100 && sends.Load() > before+3 })
		t.Logf("%d calls of SendMessages beside %d writes", sends.Load()-before, writes.Load())
		close(s.stop)
		lo.setTap(open)
		s.wg.Wait()
	})
}

// TestSendGetsTheLock: a send that waits for the lock of net's writes gets it,
// though they take it again and again. It waits there when it began to wait
// before the first of them was seen.
func TestSendGetsTheLock(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
		nw := newNarrows(t, lo, trickle, nil)
		rule := waitForRoom
		rule.dupExpiry = -1 // none is ever seen
		nw.c.send.queue.rule = &rule
		nw.fill()
		s := &crowd{narrows: nw, stop: make(chan struct{})}
		var writes atomic.Int32
		for range 2 { // so that one waits for the lock when the other gives it up
			s.repeat(func() error {
				_, err := s.writeTo(2, 0)
				writes.Add(1)
				return s.mayEnd(nil, "WriteTo", err)
			})
		}
		await(t, "writes get in", func() bool { return writes.Load() > 10 })
		for i := range 20 {
			if _, _, err := s.sendSome(t.Context(), 1, i); err != nil {
				t.Fatal(err)
			}
		}
		close(s.stop)
		lo.setTap(open)
		s.wg.Wait()
	})
}
