// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// TestShortCounts: whatever part of a batch the kernel takes, all goes, once
// and in order; no call carries more than 1024.
func TestShortCounts(t *testing.T) {
	for seed := range uint64(20) {
		rng := rand.New(rand.NewPCG(seed, 0))
		w, s := scripted(t, plainKind, func(_ int, ms []ipv4.Message) (int, error) { return 1 + rng.IntN(len(ms)), nil })
		m := w.write(t, 1+rng.IntN(150), inTurn, mixed)
		if n, err := w.conn.SendMessages(nil, m.msgs, 0); n != len(m.msgs) || err != nil {
			t.Fatalf("seed %d: %d, %v", seed, n, err)
		}
		s.checkTaken(t, m, len(m.msgs))
	}
	w, s := scripted(t, plainKind, func(_ int, ms []ipv4.Message) (int, error) { return len(ms), nil })
	w.conn.SendMessages(nil, slices.Repeat([]OutputMessage{{Addr: w.dest[0]}}, 5000), 0)
	if s.maxCall > 1024 || len(s.taken) != 5000 {
		t.Errorf("a call carried %d messages, %d went out", s.maxCall, len(s.taken))
	}
}

// TestInterrupted: EINTR is tried again and nobody sees it.
func TestInterrupted(t *testing.T) {
	w, s := scripted(t, plainKind, func(call int, ms []ipv4.Message) (int, error) {
		if call%3 != 0 {
			return 0, os.NewSyscallError("sendmmsg", syscall.EINTR)
		}
		return min(2, len(ms)), nil
	})
	m := w.write(t, 9, inTurn, mixed)
	if n, err := w.conn.SendMessages(nil, m.msgs, 0); n != 9 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	s.checkTaken(t, m, 9)
}

// TestNoBatchCall: a kernel that does not know sendmmsg is asked once; what it
// did not take goes the portable way, and so does all that follows.
func TestNoBatchCall(t *testing.T) {
	forEachKind(t, 3, &Config{GSO: GSOOff}, func(t *testing.T, w *world) {
		if runtime.GOOS == "windows" {
			t.Skip("the portable way is the only one")
		}
		s := follow(w.conn, func(int, []ipv4.Message) (int, error) { return 0, os.NewSyscallError("sendmmsg", syscall.ENOSYS) })
		for range 2 {
			m := w.write(t, 300, inTurn, mixed)
			if n, err := w.conn.SendMessages(nil, m.msgs, 0); n != 300 || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
			w.checkAll(t, m)
		}
		if s.calls != 1 {
			t.Errorf("the kernel was asked %d times", s.calls)
		}
		for _, b := range bads {
			if b.on == nil || b.on(w) {
				w.testBad(t, b, 3)
			}
		}
	})
}

// toldOnce are the errors that the kernel reports once and forgets.
func toldOnce() []syscall.Errno {
	if runtime.GOOS == "windows" { // winsock2.h
		return []syscall.Errno{10051, 10052, 10054, 10061, 10065}
	}
	return []syscall.Errno{syscall.EACCES, syscall.ECONNREFUSED, syscall.EHOSTDOWN, syscall.EHOSTUNREACH,
		syscall.ENETUNREACH, syscall.ENOPROTOOPT, syscall.EPROTO}
}

// Two of them; refused is the one that a port without a socket leaves.
var refused, noRoute = sys.PendingErrors[0], sys.PendingErrors[1]

// TestErrorAtMessage: an error at message k, seen in a call of its own as
// sendmmsg shows it or with those before it as the portable way does.
func TestErrorAtMessage(t *testing.T) {
	for _, k := range []kind{plainKind, connectedKind} {
		for _, errno := range append([]syscall.Errno{syscall.EPERM, syscall.ENOBUFS}, toldOnce()...) {
			for _, at := range []int{0, 1, 5, 9} {
				for _, together := range []bool{false, true} {
					t.Run(fmt.Sprint(k.name, errno, at, together), func(t *testing.T) { testErrorAt(t, k, errno, at, together) })
				}
			}
		}
	}
}

func testErrorAt(t *testing.T, k kind, errno syscall.Errno, at int, together bool) {
	sent, reported, tries := 0, false, 1
	if errno == syscall.ENOBUFS && sys.FullIsENOBUFS {
		tries = 2 // at the first the socket may have been full
	}
	play := func(_ int, ms []ipv4.Message) (n int, err error) {
		if n = len(ms); !reported {
			if n = min(n, at-sent); n == 0 || together {
				tries--
				reported = n > 0 || tries == 0 // and forgotten, as a pending error is
				err = os.NewSyscallError("sendmmsg", errno)
			}
		}
		sent += n
		return n, err
	}
	w, s := scripted(t, k, play)
	m := w.write(t, 10, inTurn, mixed)
	n, err := w.conn.SendMessages(nil, m.msgs, 0)
	if n != at || (err != nil) != (at == 0) {
		t.Fatalf("%d, %v", n, err)
	}
	s.checkTaken(t, m, at)
	if at == 0 {
		checkError(t, err, errno)
	}
	if k.connected && slices.Contains(toldOnce(), errno) && at > 0 {
		calls := s.calls
		n, err := w.conn.SendMessages(nil, m.msgs[at:], 0)
		if n != 0 || s.calls != calls {
			t.Fatalf("the pending error: n = %d after %d calls", n, s.calls-calls)
		}
		checkError(t, err, errno)
	}
	if n, err := w.conn.SendMessages(nil, m.msgs[at:], 0); n != 10-at || err != nil {
		t.Fatalf("the rest: %d, %v", n, err)
	}
	s.taken = s.taken[at:]
	s.checkTaken(t, &mail{m.msgs[at:], m.letters[at:]}, 10-at)
}

// TestWouldBlock: what fits goes; nothing fits: ErrWouldBlock. Neither waits.
func TestWouldBlock(t *testing.T) {
	for _, at := range []int{0, 1, 7} {
		for _, together := range []bool{false, true} {
			for _, cfg := range []*Config{{GSO: GSOOff}, {GSO: GSOOff, NonBlocking: true}} {
				testWouldBlock(t, at, together, cfg)
			}
		}
	}
}

func testWouldBlock(t *testing.T, at int, together bool, cfg *Config) {
	w := plainKind.world(t, 1, cfg)
	sent := 0
	s := follow(w.conn, func(_ int, ms []ipv4.Message) (n int, err error) {
		n = min(len(ms), at-sent)
		sent += n
		if n == 0 || together {
			err = os.NewSyscallError("sendmmsg", sys.EWOULDBLOCK)
		}
		return n, err
	})
	flags := 0
	if !cfg.NonBlocking {
		flags = MsgDontWait
	}
	m := w.write(t, 10, inTurn, mixed)
	n, err := w.conn.SendMessages(nil, m.msgs, flags)
	if n != at || (err != nil) != (at == 0) {
		t.Fatalf("%d fit: %d, %v", at, n, err)
	}
	s.checkTaken(t, m, at)
	n, err = w.conn.SendMessages(nil, m.msgs[at:], flags)
	if n != 0 {
		t.Fatalf("n = %d", n)
	}
	checkError(t, err, ErrWouldBlock)
	n, err = w.conn.SendEach(nil, m.msgs[at:], flags)
	if n != 0 {
		t.Fatalf("SendEach: n = %d", n)
	}
	checkError(t, err, ErrWouldBlock)
	want := uint64(2)
	if at == 0 {
		want = 3
	}
	if got := w.conn.Stats(); got.WouldBlock != want || got.Parked != 0 {
		t.Errorf("Stats %+v, want WouldBlock %d, Parked 0", got, want)
	}
}

// TestSendEachEndedEarly: some failed, then the socket is full or the context
// done.
func TestSendEachEndedEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	for _, end := range []struct {
		err error
		do  func() error
	}{
		{ErrWouldBlock, func() error { return os.NewSyscallError("sendmmsg", sys.EWOULDBLOCK) }},
		{context.Canceled, func() error { cancel(); return nil }},
	} {
		w, s := scripted(t, plainKind, func(call int, ms []ipv4.Message) (int, error) {
			switch call {
			case 1:
				return 2, nil
			case 2:
				return 0, os.NewSyscallError("sendmmsg", syscall.EPERM)
			case 3:
				return 1, end.do()
			}
			return 0, end.do()
		})
		m := w.write(t, 10, inTurn, mixed)
		n, err := w.conn.SendEach(ctx, m.msgs, MsgDontWait)
		var batchErr *BatchError
		if n != 4 || !errors.As(err, &batchErr) || len(batchErr.Failed) != 1 || batchErr.Failed[0].Index != 2 {
			t.Fatalf("%d, %v; want 4 dealt with, the third failed", n, err)
		}
		checkError(t, batchErr.Failed[0].Err, syscall.EPERM)
		checkError(t, batchErr.Err, end.err)
		if !errors.Is(err, end.err) || !errors.Is(err, syscall.EPERM) {
			t.Errorf("%v does not tell both", err)
		}
		if len(s.taken) != 3 {
			t.Errorf("%d went out", len(s.taken))
		}
		for i := range m.msgs {
			want := untouched
			if i < 4 && i != 2 {
				want = len(m.letters[i].p)
			}
			if got := m.msgs[i].BytesSent; got != want {
				t.Errorf("message %d: BytesSent %d, want %d", i, got, want)
			}
		}
	}
}

// TestCancelBetweenCalls: a call that is cancelled goes to the kernel no more.
func TestCancelBetweenCalls(t *testing.T) {
	for _, call := range sends[:2] {
		for at := 1; at < 4; at++ {
			ctx, cancel := context.WithCancel(t.Context())
			w, s := scripted(t, plainKind, func(call int, ms []ipv4.Message) (int, error) {
				if call == at {
					cancel()
				}
				return len(ms), nil
			})
			msgs := slices.Repeat([]OutputMessage{{Addr: w.dest[0]}}, 5000)
			n, err := call.call(w.conn, ctx, msgs)
			if s.calls != at || n != len(s.taken) {
				t.Errorf("%s: n = %d, %v; %d went out in %d calls, want %d", call.name, n, err, len(s.taken), s.calls, at)
			}
			cancel()
		}
	}
}

// TestFlags: flags reach the adapter as they are, except our own.
func TestFlags(t *testing.T) {
	w, s := scripted(t, plainKind, func(_ int, ms []ipv4.Message) (int, error) { return len(ms), nil })
	for _, flags := range []int{0, 4, MsgDontWait, 4 | MsgDontWait} {
		s.flags = nil
		w.conn.SendMessages(nil, make([]OutputMessage, 0), flags)
		w.conn.SendMessages(nil, []OutputMessage{{Addr: w.dest[0]}}, flags)
		w.conn.SendMessage(nil, &OutputMessage{Addr: w.dest[0]}, flags)
		w.conn.SendTo(nil, nil, w.dest[0], flags)
		w.conn.SendEach(nil, []OutputMessage{{Addr: w.dest[0]}}, flags)
		w.conn.WriteBatch([]ipv4.Message{{Addr: net.UDPAddrFromAddrPort(w.dest[0])}}, flags)
		if want := slices.Repeat([]int{flags &^ sys.PrivateFlags}, 5); !slices.Equal(s.flags, want) {
			t.Errorf("flags %#x: the adapter got %#x", flags, s.flags)
		}
	}
}

// TestSingle: a datagram by itself takes one call and no batch, and where that
// is interrupted, full or not to be had the batch's way, each once.
func TestSingle(t *testing.T) {
	for _, test := range []struct {
		name  string
		first error
		calls int
	}{
		{"sent", nil, 1},
		{"interrupted", syscall.EINTR, 2},
		{"full", sys.EWOULDBLOCK, 2},
		{"not asked", errors.ErrUnsupported, 2},
	} {
		w, s := scripted(t, plainKind, func(call int, ms []ipv4.Message) (int, error) {
			if call == 1 && test.first != nil {
				return 0, test.first
			}
			return len(ms), nil
		})
		n, err := w.conn.SendTo(nil, contents(1, 100), w.dest[0], 0)
		if n != 100 || err != nil || s.calls != test.calls || len(s.taken) != 1 {
			t.Errorf("%s: %d, %v; %d went out in %d calls, want 1 in %d", test.name, n, err, len(s.taken), s.calls, test.calls)
		}
		if st := w.conn.Stats(); st.Messages != 1 || st.Bytes != 100 {
			t.Errorf("%s: %+v", test.name, st)
		}
	}
}

// TestSingleRefused: the kernel's error is told once, as that of the datagram,
// and the datagram is not sent again.
func TestSingleRefused(t *testing.T) {
	w, s := scripted(t, plainKind, func(int, []ipv4.Message) (int, error) {
		return 0, os.NewSyscallError("sendto", syscall.EPERM)
	})
	msg := OutputMessage{Addr: w.dest[0], Vectors: [][]byte{contents(1, 100)}, BytesSent: 7}
	n, err := w.conn.SendMessage(context.Background(), &msg, 0)
	checkError(t, err, syscall.EPERM)
	if n != 0 || msg.BytesSent != 7 || s.calls != 1 || w.conn.Stats().Failed != 1 {
		t.Errorf("%d, BytesSent %d in %d calls; %+v", n, msg.BytesSent, s.calls, w.conn.Stats())
	}
}

// TestStatsSegmented: while senders run Stats never shows more segmented
// datagrams than datagrams.
func TestStatsSegmented(t *testing.T) {
	c := plainKind.world(t, 1, nil).conn
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				c.send.counters.sent(tally{messages: 64, bytes: 64, segmented: 64})
			}
		}
	}()
	for range 200_000 {
		if s := c.Stats(); s.Segmented > s.Messages {
			t.Errorf("%d of %d", s.Segmented, s.Messages)
			break
		}
	}
	close(stop)
	<-ended
}
