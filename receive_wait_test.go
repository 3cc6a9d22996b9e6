// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

var readersFor = flag.Duration("readers", 2*time.Second, "how long TestReaders lets many readers wait for few datagrams")

// A readerKind reads once, or is cancelled, and says which datagrams it got.
type readerKind struct {
	name string
	read func(c *Conn, got func(p []byte)) error
}

func receiveInto(c *Conn, ctx context.Context, n, flags int, got func(p []byte)) error {
	msgs := make([]InputMessage, n)
	for i := range msgs {
		msgs[i].Vectors = [][]byte{make([]byte, 64)}
	}
	n, err := c.ReceiveMessages(ctx, msgs, flags)
	for _, m := range msgs[:n] {
		got(m.Vectors[0][:m.BytesReceived])
	}
	return err
}

func fickle() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), time.Duration(rand.IntN(2000))*time.Microsecond)
}

var readerKinds = []readerKind{
	{"ReceiveMessages", func(c *Conn, got func([]byte)) error { return receiveInto(c, nil, 1+rand.IntN(5), 0, got) }},
	{"ReceiveMessages, cancelled", func(c *Conn, got func([]byte)) error {
		ctx, cancel := fickle()
		defer cancel()
		return receiveInto(c, ctx, 1+rand.IntN(5), 0, got)
	}},
	{"MsgWaitAll, cancelled", func(c *Conn, got func([]byte)) error {
		ctx, cancel := fickle()
		defer cancel()
		return receiveInto(c, ctx, 3, MsgWaitAll, got)
	}},
	{"ReceiveFrom", func(c *Conn, got func([]byte)) error {
		p := make([]byte, 64)
		n, _, err := c.ReceiveFrom(context.Background(), p, 0)
		if err == nil {
			got(p[:n])
		}
		return err
	}},
	{"ReadFromUDPAddrPort", func(c *Conn, got func([]byte)) error {
		p := make([]byte, 64)
		n, _, err := c.ReadFromUDPAddrPort(p)
		if err == nil {
			got(p[:n])
		}
		return err
	}},
	{"ReadBatch", func(c *Conn, got func([]byte)) error {
		ms := make([]ipv4.Message, 3)
		for i := range ms {
			ms[i].Buffers = [][]byte{make([]byte, 64)}
		}
		n, err := c.ReadBatch(ms, 0)
		for _, m := range ms[:n] {
			got(m.Buffers[0][:m.N])
		}
		return err
	}},
	{"WaitReadable", func(c *Conn, got func([]byte)) error {
		ctx, cancel := fickle()
		defer cancel()
		if err := c.WaitReadable(ctx); err != nil {
			return err
		}
		return receiveInto(c, nil, 1, MsgDontWait, got)
	}},
}

// TestReaders: readers of all kinds wait for datagrams that trickle, and each
// datagram gets to one of them, at once: none sleeps while there is one, in the
// kernel or held. Meanwhile deadlines pass, and are taken back.
func TestReaders(t *testing.T) {
	for _, mode := range []GROMode{GROAuto, GROOff, GROOn} {
		for _, set := range [][]int{{0, 1, 2, 3, 4, 5, 6}, {0, 4}, {1, 1, 6, 6}, {4, 4, 4, 4}, {2, 3, 6}} {
			t.Run(fmt.Sprint(mode, set), func(t *testing.T) {
				t.Parallel()
				testReaders(t, mode, set)
			})
		}
	}
}

// readersFailed has what comes after a failure of TestReaders skipped, which
// would wait long to fail too.
var readersFailed atomic.Bool

func testReaders(t *testing.T, mode GROMode, set []int) {
	if readersFailed.Load() {
		t.Skip("another set of readers has failed")
	}
	defer func() {
		if t.Failed() {
			readersFailed.Store(true)
		}
	}()
	in, out, to := readPair(t, &Config{GRO: mode})
	if mode == GROAuto {
		makeDeep(t, in, out, to)
	}
	var read readOnce
	var wg sync.WaitGroup
	for _, k := range set {
		wg.Go(func() { read.untilClosed(t, in, readerKinds[k]) })
	}
	sent := uint32(0)
	for end := time.Now().Add(*readersFor); time.Now().Before(end) && !t.Failed(); {
		var p []byte
		for range 1 + rand.IntN(30)*rand.IntN(2) {
			p = binary.BigEndian.AppendUint32(p, sent)
			p = binary.BigEndian.AppendUint32(p, ^sent)
			sent++
		}
		if err := sendAll(out, nil, AppendSegments(nil, to, p, 8, nil)); err != nil {
			t.Fatal(err)
		}
		if rand.IntN(8) == 0 {
			in.SetReadDeadline(time.Now().Add(-time.Second))
			in.SetReadDeadline(time.Time{})
		}
		for limit := time.Now().Add(patience); read.count.Load() < int64(sent); time.Sleep(20 * time.Microsecond) {
			if time.Now().After(limit) {
				t.Errorf("%d of %d datagrams were read; state %d, held %v", read.count.Load(), sent, in.recv.queue.state.Load(), in.recv.hasHeld.Load())
				break
			}
		}
	}
	in.Close()
	atOnce(t, "the end of the readers", wg.Wait)
	t.Logf("%d datagrams; %+v", sent, in.Stats())
}

// readOnce counts the datagrams of TestReaders, each of which is its number and
// the complement of that. Its readers may be many.
type readOnce struct {
	by    sync.Map // the kind of reader, of each number
	count atomic.Int64
}

// untilClosed reads until in is closed, whatever else ends a read.
func (r *readOnce) untilClosed(t *testing.T, in *Conn, kind readerKind) {
	for {
		err := kind.read(in, func(p []byte) {
			id := binary.BigEndian.Uint32(p)
			if len(p) != 8 || binary.BigEndian.Uint32(p[4:]) != ^id {
				t.Errorf("%s: %x", kind.name, p)
			}
			if by, twice := r.by.LoadOrStore(id, kind.name); twice {
				t.Errorf("%d was read by %v and %v", id, by, kind.name)
			}
			r.count.Add(1)
		})
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil && !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, ErrWouldBlock) && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s: %v", kind.name, err)
		}
	}
}

// TestNetReadIsSeen: a read of package net's own that begins while such reads
// are to end is seen by what ends them, or does not begin.
func TestNetReadIsSeen(t *testing.T) {
	if runtime.GOMAXPROCS(0) == 1 {
		t.Skip("nothing happens at once")
	}
	const rounds = 500_000
	var r receiver
	var begun, over atomic.Int64 // rounds
	unseen := 0
	meet := func(at *atomic.Int64, round int64) {
		for spins := 0; at.Load() < round; spins++ {
			if spins > 1000 {
				runtime.Gosched()
			}
		}
	}
	done := make(chan struct{})
	var entered bool
	go func() {
		defer close(done)
		for round := int64(1); round <= rounds; round++ {
			meet(&begun, round)
			entered = r.enterNet()
			over.Store(round)
		}
	}()
	for round := int64(1); round <= rounds; round++ {
		r.ours.Store(false)
		begun.Store(round)
		for range round % 64 { // the other has to wake
		}
		r.ours.Swap(true) // and not Store, which a load passes on QEMU's arm64 as on no real one
		seen := r.net.underWay() != 0
		meet(&over, round)
		if entered {
			if !seen {
				unseen++
			}
			r.net.fail()
		}
	}
	<-done
	if unseen != 0 || r.net.underWay() != 0 {
		t.Errorf("%d of %d reads began unseen, %d have not ended", unseen, rounds, r.net.underWay())
	}
}

// TestPassingReader: a read that does not wait, takes one datagram of a run and
// goes, wakes one that waits for the rest.
func TestPassingReader(t *testing.T) {
	in, out, to := readPair(t, &Config{GRO: GROOn})
	if !in.Stats().GRO {
		t.Skip(in.Stats().GROReason)
	}
	run := AppendSegments(nil, to, []byte("aabbcc"), 2, nil)
	passed := 0
	for _, waiter := range []int{0, 3, 4, 5} {
		read := make(chan []byte, 3)
		ended := make(chan error, 1)
		go func() {
			for {
				if err := readerKinds[waiter].read(in, func(p []byte) { read <- slices.Clone(p) }); err != nil {
					ended <- err
					return
				}
			}
		}()
		for range 300 {
			awaitReader(t, in)
			if err := sendAll(out, nil, run); err != nil {
				t.Fatal(err)
			}
			left := 3
			if n, _, err := in.ReceiveFrom(nil, make([]byte, 10), MsgDontWait); err == nil && n == 2 {
				left--
				passed++
			}
			for range left {
				select {
				case <-read:
				case <-time.After(patience):
					t.Fatalf("%s sleeps while datagrams are held", readerKinds[waiter].name)
				}
			}
		}
		in.SetReadDeadline(time.Unix(1, 0))
		if err := receiveWithin(t, "a read", ended); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		in.SetReadDeadline(time.Time{})
	}
	t.Logf("%d of 1200 runs were met by the one that passes", passed)
}

// TestRestIsTheNextReaders: readers that stand in line, and read once, share
// the datagrams of a run, though none comes later and reads what is held.
func TestRestIsTheNextReaders(t *testing.T) {
	in, out, to := readPair(t, &Config{GRO: GROOn})
	if !in.Stats().GRO {
		t.Skip(in.Stats().GROReason)
	}
	once := []func() error{
		func() error { return waits["ReceiveFrom"](in, nil) },
		func() error { return receiveInto(in, nil, 1, 0, func([]byte) {}) },
		func() error { _, err := in.Read(make([]byte, 64)); return err },
		func() error { _, _, err := in.ReadFromUDPAddrPort(make([]byte, 64)); return err },
		func() error { _, err := in.ReceiveMessage(nil, &InputMessage{}, 0); return err },
		func() error { _, err := in.ReadBatch(make([]ipv4.Message, 1), 0); return err },
	}
	run := AppendSegments(nil, to, make([]byte, 10*len(once)), 10, nil)
	for first := range once { // is parked, and the others are behind it
		ended := make(chan error, len(once))
		for i := range once {
			go func() { ended <- once[(first+i)%len(once)]() }()
			await(t, "one more is in line", func() bool { return in.waitingReads() == i+1 })
		}
		if err := sendAll(out, nil, run); err != nil {
			t.Fatal(err)
		}
		for i := range once {
			if err := receiveWithin(t, fmt.Sprintf("reader %d of %d", i, len(once)), ended); err != nil {
				t.Error(err)
			}
		}
	}
}

// waitingReads is how many reads are in line, the one that has the place
// included.
func (c *Conn) waitingReads() int {
	l := &c.recv.queue.line
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.taken {
		return 0
	}
	return 1 + len(l.waiters)
}

// waits are the reads that can wait, with the context that they are given.
var waits = map[string]func(c *Conn, ctx context.Context) error{
	"ReceiveMessages": func(c *Conn, ctx context.Context) error { return receiveInto(c, ctx, 3, 0, func([]byte) {}) },
	"MsgWaitAll":      func(c *Conn, ctx context.Context) error { return receiveInto(c, ctx, 3, MsgWaitAll, func([]byte) {}) },
	"ReceiveMessage": func(c *Conn, ctx context.Context) error {
		_, err := c.ReceiveMessage(ctx, &InputMessage{Vectors: [][]byte{make([]byte, 64)}}, 0)
		return err
	},
	"ReceiveFrom": func(c *Conn, ctx context.Context) error {
		_, _, err := c.ReceiveFrom(ctx, make([]byte, 64), 0)
		return err
	},
	"WaitReadable": func(c *Conn, ctx context.Context) error { return c.WaitReadable(ctx) },
}

// readModes are the ways in which a Conn can stand: never deep, coalescing, and
// never to coalesce.
func readModes(t *testing.T, f func(t *testing.T, in, out *Conn, to netip.AddrPort)) {
	for _, mode := range []GROMode{GROAuto, GROOn, GROOff} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			in, out, to := readPair(t, &Config{GRO: mode})
			f(t, in, out, to)
		})
	}
}

// awaitReader waits until a read has parked, or is in package net's.
func awaitReader(t *testing.T, c *Conn) {
	t.Helper()
	for end := time.Now().Add(patience); c.recv.queue.state.Load() != parked && c.recv.net.underWay() == 0; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("nobody waits")
		}
	}
}

// TestReadCancelled: the context of a read that waits ends it, and nothing
// else: neither the reads behind it nor the deadline.
func TestReadCancelled(t *testing.T) {
	readModes(t, func(t *testing.T, in, out *Conn, to netip.AddrPort) {
		deadline := time.Now().Add(time.Hour)
		in.SetReadDeadline(deadline)
		for name, wait := range waits {
			ctx, cancel := context.WithCancel(context.Background())
			ended, other := make(chan error, 1), make(chan error, 1)
			go func() { ended <- wait(in, ctx) }()
			awaitReader(t, in)
			go func() { other <- waits["ReceiveFrom"](in, context.Background()) }()
			cancel()
			if err := receiveWithin(t, name, ended); !errors.Is(err, context.Canceled) {
				t.Errorf("%s: %v", name, err)
			}
			if _, err := out.SendTo(nil, []byte("x"), to, 0); err != nil {
				t.Fatal(err)
			}
			if err := receiveWithin(t, "the other", other); err != nil {
				t.Errorf("the read behind a cancelled %s: %v", name, err)
			}
		}
		if got := in.recv.queue.until(); got.Sub(deadline).Abs() > time.Millisecond { // the clocks are read apart
			t.Errorf("the deadline is %v", got)
		}
	})
}

func receiveWithin(t *testing.T, what string, c <-chan error) error {
	t.Helper()
	select {
	case err := <-c:
		return err
	case <-time.After(patience):
		buf := make([]byte, 1<<16)
		t.Fatalf("%s did not end\n%s", what, buf[:runtime.Stack(buf, true)])
	}
	return nil
}

// TestReadCancelledSoon prints how long a parked read takes to end.
func TestReadCancelledSoon(t *testing.T) {
	readModes(t, func(t *testing.T, in, out *Conn, to netip.AddrPort) {
		var took []time.Duration
		for range 300 {
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan time.Time, 1)
			go func() {
				waits["ReceiveFrom"](in, ctx)
				ended <- time.Now()
			}()
			awaitReader(t, in)
			time.Sleep(200 * time.Microsecond) // for it to be asleep, and not about to be
			start := time.Now()
			cancel()
			took = append(took, (<-ended).Sub(start))
		}
		slices.Sort(took)
		t.Logf("a parked read ended p50 %v, p99 %v, worst %v after its context", took[150], took[296], took[299])
	})
}

// TestReadDeadlines: in the past, reached, extended and cleared while a read of
// each kind waits.
func TestReadDeadlines(t *testing.T) {
	reads := map[string]func(c *Conn, ctx context.Context) error{
		"ReadFromUDPAddrPort": func(c *Conn, _ context.Context) error { return readerKinds[4].read(c, func([]byte) {}) },
		"ReadBatch":           func(c *Conn, _ context.Context) error { return readerKinds[5].read(c, func([]byte) {}) },
	}
	for name, wait := range waits {
		reads[name] = wait
	}
	readModes(t, func(t *testing.T, in, out *Conn, to netip.AddrPort) {
		cancellable, cancel := context.WithCancel(context.Background())
		defer cancel()
		for name, read := range reads {
			for _, ctx := range []context.Context{context.Background(), cancellable} {
				ended := make(chan error, 1)
				expect := func(what string, want error) {
					t.Helper()
					err := receiveWithin(t, name+", "+what, ended)
					if want == nil && err != nil || want != nil && !errors.Is(err, want) {
						t.Errorf("%s, %s: %v", name, what, err)
					}
				}
				in.SetReadDeadline(time.Now().Add(-time.Second))
				go func() { ended <- read(in, ctx) }()
				expect("past", os.ErrDeadlineExceeded)
				in.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
				go func() { ended <- read(in, ctx) }()
				expect("reached", os.ErrDeadlineExceeded)
				in.SetReadDeadline(time.Time{})
				go func() { ended <- read(in, ctx) }()
				awaitReader(t, in)
				in.SetReadDeadline(time.Now().Add(-time.Second))
				expect("past while waiting", os.ErrDeadlineExceeded)
				in.SetReadDeadline(time.Now().Add(time.Hour))
				go func() { ended <- read(in, ctx) }()
				awaitReader(t, in)
				in.SetReadDeadline(time.Now().Add(2 * time.Hour))
				in.SetReadDeadline(time.Time{})
				was := in.Stats().Received
				for range 3 {
					out.SendTo(nil, []byte("x"), to, 0)
				}
				expect("cleared while waiting", nil)
				await(t, "all three are read", func() bool {
					receiveInto(in, nil, 10, MsgDontWait, func([]byte) {})
					return in.Stats().Received == was+3
				})
			}
		}
	})
}

// TestReadDeadlineStays: what ended one read for a reason of its own has left
// the user's deadline on the socket, and it ends the next, whatever that is.
func TestReadDeadlineStays(t *testing.T) {
	next := map[string]func(c *Conn) error{
		"Read":        func(c *Conn) error { _, err := c.Read(make([]byte, 10)); return err },
		"ReceiveFrom": func(c *Conn) error { return waits["ReceiveFrom"](c, nil) },
	}
	disturb := map[string]func(c *Conn) error{
		"a context": func(c *Conn) error {
			ctx, cancel := context.WithCancel(context.Background())
			ended := make(chan error, 1)
			go func() { ended <- waits["ReceiveFrom"](c, ctx) }()
			awaitReader(t, c)
			cancel()
			return <-ended
		},
		"a File": func(c *Conn) error {
			ended := make(chan error, 1)
			go func() { ended <- next["Read"](c) }()
			awaitReader(t, c)
			if f, err := c.File(); err == nil { // not every system has one
				f.Close()
			}
			return receiveWithin(t, "the read beside a File", ended)
		},
	}
	readModes(t, func(t *testing.T, in, out *Conn, to netip.AddrPort) {
		for what, disturb := range disturb {
			for name, read := range next {
				in.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
				if err := disturb(in); !errors.Is(err, context.Canceled) && !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Fatalf("%s: %v", what, err)
				}
				ended := make(chan error, 1)
				go func() { ended <- read(in) }()
				if err := receiveWithin(t, name+" at its deadline after "+what, ended); !errors.Is(err, os.ErrDeadlineExceeded) {
					t.Errorf("%s after %s: %v", name, what, err)
				}
				in.SetReadDeadline(time.Time{})
			}
		}
	})
}

// TestDeadlinePastConn: a deadline that is set on the UDPConn, and not on the
// Conn, is not seen by a read that waits, of ours or of net's own.
func TestDeadlinePastConn(t *testing.T) {
	for name, read := range map[string]func(c *Conn, p []byte) (int, error){
		"ReceiveFrom": func(c *Conn, p []byte) (int, error) { n, _, err := c.ReceiveFrom(nil, p, 0); return n, err },
		"Read":        (*Conn).Read,
	} {
		t.Run(name, func(t *testing.T) {
			in, out, to := readPair(t, nil)
			ended := make(chan error, 1)
			go func() {
				_, err := read(in, make([]byte, 10))
				ended <- err
			}()
			awaitReader(t, in)
			in.conn().SetReadDeadline(time.Unix(1, 0))
			if _, err := out.SendTo(nil, []byte("x"), to, 0); err != nil {
				t.Fatal(err)
			}
			if err := receiveWithin(t, name, ended); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestHeldPastDeadline: a deadline in the past fails a read though something is
// held. The next read gets that once the deadline is taken back.
func TestHeldPastDeadline(t *testing.T) {
	in, out, to := readPair(t, &Config{GRO: GROOn})
	if !in.Stats().GRO {
		t.Skip(in.Stats().GROReason)
	}
	if err := sendAll(out, nil, AppendSegments(nil, to, []byte("aabbcc"), 2, nil)); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 10)
	read := func(want string, wantErr error) {
		t.Helper()
		for _, r := range []func() (int, error){
			func() (int, error) { return in.Read(p) },
			func() (int, error) { n, _, err := in.ReceiveFrom(nil, p, MsgDontWait); return n, err },
			func() (int, error) { return in.ReceiveMessage(nil, &InputMessage{Vectors: [][]byte{p}}, 0) },
		} {
			n, err := r()
			if string(p[:n]) != want || !errors.Is(err, wantErr) {
				t.Fatalf("%q, %v; want %q, %v", p[:n], err, want, wantErr)
			}
			if wantErr == nil {
				return
			}
		}
	}
	read("aa", nil)
	in.SetReadDeadline(time.Unix(1, 0))
	read("", os.ErrDeadlineExceeded)
	in.SetReadDeadline(time.Now().Add(patience))
	read("bb", nil)
	in.Close()
	read("", net.ErrClosed)
}

// TestCloseFreesReaders: Close ends all that wait, in line too.
func TestCloseFreesReaders(t *testing.T) {
	readModes(t, func(t *testing.T, in, out *Conn, to netip.AddrPort) {
		before := runtime.NumGoroutine()
		ended := make(chan error, 8)
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		for i := range cap(ended) {
			go func() {
				switch {
				case i%3 == 0:
					ended <- readerKinds[4].read(in, func([]byte) {})
				case i%3 == 1:
					ended <- waits["ReceiveFrom"](in, ctx)
				default:
					ended <- waits["WaitReadable"](in, nil)
				}
			}()
		}
		awaitReader(t, in)
		in.Close()
		for range cap(ended) {
			if err := receiveWithin(t, "a read", ended); !errors.Is(err, net.ErrClosed) {
				t.Error(err)
			}
		}
		for end := time.Now().Add(patience); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
			}
		}
	})
}
