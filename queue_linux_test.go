// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"math"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

// TestLateContext: such a context ends the call, with the place and in line,
// and the queue goes on.
func TestLateContext(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := filled(t, lo, nil)
		late := func() *lateContext {
			ctx := &lateContext{Context: context.Background(), done: make(chan struct{})}
			ctx.looks.Store(2)
			return ctx
		}
		parked, inLine := late(), late()
		calls := nw.startWaits(parked, 1, 1)
		calls = append(calls, nw.startWaits(inLine, 2, 1)...)
		others := nw.startWaits(nil, 3, 2)
		close(inLine.done)
		allEnded(t, calls[1:], 0, context.Canceled)
		close(parked.done)
		allEnded(t, calls[:1], 0, context.Canceled)
		lo.setTap(open)
		allEnded(t, others, 1, nil)
	})
}

// TestLateContextFlush: a context that never says why ends Flush as well.
func TestLateContextFlush(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := filled(t, lo, nil)
		w := NewWriter(nw.c, &WriterConfig{Linger: time.Millisecond})
		mustWrite(t, w, []byte("x"), nw.messages(1, 0, 1)[0].Addr)
		late := &lateContext{Context: context.Background(), done: make(chan struct{})}
		late.looks.Store(math.MaxInt32)
		close(late.done)
		atOnce(t, "Flush", func() {
			if err := w.Flush(late); !errors.Is(err, context.Canceled) {
				t.Errorf("Flush = %v", err)
			}
		})
		w.Close()
	})
}

// TestDoneBetweenLooks: a context that times out between a look at Err and one
// at Done has timed out, and was not canceled.
func TestDoneBetweenLooks(t *testing.T) {
	conn := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
	done, cancel := context.WithCancel(t.Context())
	cancel()
	ctx := &fickleContext{Context: done, err: context.DeadlineExceeded}
	ctx.left.Store(1)
	if err := conn.send.queue.ends.checkWaited(ctx); err != context.DeadlineExceeded {
		t.Errorf("the call ends with %v", err)
	}
}

// TestNoDescriptorAllowed: poll(2) takes no descriptor where the limit is 0,
// and a send waits all the same.
func TestNoDescriptorAllowed(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := newNarrows(t, lo, shut, nil)
		nw.fill()
		var was unix.Rlimit
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
		none := unix.Rlimit{Cur: 0, Max: was.Max}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
			t.Skip(err)
		}
		calls := nw.startWaits(nil, 1, 2)
		stillWaiting(t, calls)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &was); err != nil { // to open the tap
			t.Fatal(err)
		}
		lo.setTap(open)
		allEnded(t, calls, 1, nil)
	})
}

// TestWatchersTakeNoTurns: callers of WaitWritable wait for the same, so all
// wake at once, one of them parked for all; and no sender stands behind them.
func TestWatchersTakeNoTurns(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := filled(t, lo, nil)
		q := &nw.c.send.queue
		var looks atomic.Int32
		rule := waitForRoom
		rule.ready = func(fd uintptr) (bool, error) {
			looks.Add(1)
			return sys.Writable(fd)
		}
		q.watcher().rule = &rule
		watchers := make(chan error, 100)
		for range cap(watchers) {
			go func() { watchers <- nw.c.WaitWritable(nil) }()
		}
		nw.awaitWaiting(cap(watchers))
		atOnce(t, "taking the place of senders", func() { q.line.enter(nil, &q.ends) })
		lo.setTap(open)
		for range cap(watchers) {
			if err := receive(t, "a watcher", watchers); err != nil {
				t.Error(err)
			}
		}
		q.leaveTurn()
		if n := looks.Load(); n > 20 {
			t.Errorf("the watchers looked at the socket %d times", n)
		}
	})
}

// TestDuplicateReused: one wait after the other is on the same duplicate, which
// is closed a while after the last.
func TestDuplicateReused(t *testing.T) {
	if _, err := sys.Dup(rawOf(t, plainKind.world(t, 1, nil).conn)); err != nil {
		t.Skip(err)
	}
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := newNarrows(t, lo, shut, nil)
		rule := waitForRoom
		rule.dupExpiry = 200 * time.Millisecond
		watch := nw.c.send.queue.watcher()
		watch.rule = &rule
		nw.fill()
		before := openDescriptors(t)
		duplicates := map[*duplicate]bool{}
		for range 5 {
			ctx, cancel := context.WithCancel(context.Background())
			watcher := make(chan error, 1)
			go func() { watcher <- nw.c.WaitWritable(ctx) }()
			nw.awaitWaiting(1)
			await(t, "it is parked", func() bool {
				watch.mu.Lock()
				defer watch.mu.Unlock()
				duplicates[watch.dup] = true
				return watch.dup != nil
			})
			cancel()
			checkError(t, receive(t, "the watcher", watcher), context.Canceled)
		}
		if len(duplicates) > 3 { // nil is one, and a stall of this machine may let one expire
			t.Errorf("5 waits had %d duplicates", len(duplicates))
		}
		await(t, "the duplicate is closed", func() bool { return openDescriptors(t) == before })
		calls := nw.startWaits(nil, 1, 1)
		lo.setTap(open)
		allEnded(t, calls, 1, nil)
		nw.c.Close()
		if n := openDescriptors(t); n >= before {
			t.Errorf("%d descriptors after Close, %d with the socket", n, before)
		}
	})
}

// TestDuplicateClosesOnExec: no child inherits the duplicate.
func TestDuplicateClosesOnExec(t *testing.T) {
	f, err := sys.Dup(rawOf(t, plainKind.world(t, 1, nil).conn))
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0)
	if err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
}

func rawOf(t *testing.T, c *Conn) syscall.RawConn {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// TestStarvedAfter: room is reserved for a taker that has waited for 30 ms, and
// not before.
func TestStarvedAfter(t *testing.T) {
	q := roomQueue{roomPlace: roomPlace{rule: &waitForRoom}}
	q.takers.Store(1)
	for ago, want := range map[time.Duration]bool{0: false, 20 * time.Millisecond: false, 31 * time.Millisecond: true, time.Hour: true} {
		q.since.Store(sinceEpoch(time.Now().Add(-ago)))
		began := time.Now()
		got := q.mustWait(false)
		if time.Since(began) < 5*time.Millisecond && got != want {
			t.Errorf("after %v: %v", ago, got)
		}
	}
	q.since.Store(0)
	if q.mustWait(false) {
		t.Error("room is reserved though nobody has the place")
	}
	if !q.mustWait(true) {
		t.Error("a sender that may wait passed others")
	}
}

// TestTriesAgain: a sender alone, whose socket says that there is room and
// takes nothing, tries again after pauses that stay short.
func TestTriesAgain(t *testing.T) {
	const tries = 9
	w, s := scripted(t, plainKind, func(call int, ms []ipv4.Message) (int, error) {
		if call < tries {
			return 0, os.NewSyscallError("sendmmsg", unix.EAGAIN)
		}
		return len(ms), nil
	})
	atOnce(t, "the send", func() {
		msgs := []OutputMessage{{Addr: w.dest[0], Vectors: [][]byte{{1}}}}
		if n, err := w.conn.SendMessages(nil, msgs, 0); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
	})
	if s.calls < tries {
		t.Errorf("%d tries", s.calls)
	}
	if rule := waitForRoom; rule.pause > 100*time.Millisecond {
		t.Errorf("pauses of %v", rule.pause)
	}
}

// TestDeadlineSinceEpoch: deadlines go by the time that is left, hold at the
// ends of the range, and only none is 0.
func TestDeadlineSinceEpoch(t *testing.T) {
	now := sinceEpoch(time.Now())
	near := func(got int64, want time.Duration) bool {
		d := time.Duration(got-now) - want
		return d > -time.Second && d < time.Minute
	}
	if got := deadlineSinceEpoch(time.Time{}); got != 0 {
		t.Errorf("none: %d", got)
	}
	for name, test := range map[string]struct {
		t    time.Time
		want time.Duration
	}{
		"to come":             {time.Now().Add(time.Hour), time.Hour},
		"without a monotonic": {time.Now().Add(time.Hour).Round(0), time.Hour},
		"the wall clock set":  {wallClockSet(t, time.Now().Add(time.Hour)), time.Hour},
		"past":                {time.Now().Add(-time.Hour), -time.Hour},
		"past, wall clock":    {time.Now().Add(-time.Hour).Round(0), -time.Hour},
	} {
		if got := deadlineSinceEpoch(test.t); !near(got, test.want) {
			t.Errorf("%s: %v from now, want %v", name, time.Duration(got-now), test.want)
		}
	}
	for name, at := range map[string]time.Time{"far": time.Unix(1<<40, 0), "farther": time.Unix(1<<55, 0)} {
		if got := deadlineSinceEpoch(at); got < now+int64(24*time.Hour) {
			t.Errorf("%s: %d", name, got)
		}
	}
	for name, at := range map[string]time.Time{"epoch": epoch, "long ago": time.Unix(1, 0), "first": time.Unix(-1<<40, 0)} {
		if got := deadlineSinceEpoch(at); got == 0 || got > now {
			t.Errorf("%s: %d", name, got)
		}
	}
}

// wallClockSet is a time that was read before somebody set the wall clock back
// by a day.
func wallClockSet(t *testing.T, read time.Time) time.Time {
	t.Helper()
	const day = 24 * time.Hour
	set := read.Add(day)
	parts := (*struct { // time.Time
		wall uint64
		ext  int64 // of the monotonic clock
		loc  *time.Location
	})(unsafe.Pointer(&set))
	parts.ext -= int64(day)
	if set.Sub(read) != 0 || set.Round(0).Sub(read.Round(0)) != day {
		t.Skip("a time.Time is made of something else now")
	}
	return set
}

// TestDeadlineOfNow: a deadline of exactly now has passed.
func TestDeadlineOfNow(t *testing.T) {
	w := plainKind.world(t, 1, nil)
	for range 100 {
		if err := w.conn.SetWriteDeadline(time.Now()); err != nil {
			t.Fatal(err)
		}
		_, err := w.conn.SendTo(nil, []byte("x"), w.dest[0], 0)
		checkError(t, err, os.ErrDeadlineExceeded)
	}
}
