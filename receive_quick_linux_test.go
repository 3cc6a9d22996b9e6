// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package batchconn

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

// eachPrice runs test twice: with calls cheap, and with calls dear, so that
// quick reads read ahead.
func eachPrice(t *testing.T, test func(t *testing.T, dear bool)) {
	for _, dear := range []bool{false, true} {
		t.Run(fmt.Sprintf("dear=%v", dear), func(t *testing.T) {
			setDear(t, dear)
			test(t, dear)
		})
	}
}

// quickPair is a readPair whose Conn reads quickly: its queue is deep, and
// coalescing pauses. out does not segment.
func quickPair(t *testing.T) (in, out *Conn, readAll func(sent, read *int)) {
	t.Helper()
	in, _, to := readPair(t, nil)
	out, err := New(listen(t, "udp4", "127.0.0.1"), &Config{GSO: GSOOff})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	in.recv.retry.Store(sinceEpoch(time.Now().Add(time.Hour)))
	readAll = func(sent, read *int) {
		t.Helper()
		sendRuns(t, out, to, 100, sent)
		readRuns(t, in.Read, *sent-*read, read)
	}
	sent, read := 0, 0
	if readAll(&sent, &read); !in.recv.isQuick.Load() {
		t.Fatal("a deep queue does not have reads be quick")
	}
	return in, out, readAll
}

// TestQuickReads: reads of a deep queue that does not coalesce are quick, of
// whatever name, and return each datagram once, in order. Where it no longer is
// deep they are net's own again.
func TestQuickReads(t *testing.T) { eachPrice(t, testQuickReads) }

func testQuickReads(t *testing.T, dear bool) {
	in, out, readAll := quickPair(t)
	to := addrPortOf(in)
	reads := []func(p []byte) (int, error){
		in.Read,
		func(p []byte) (int, error) { n, _, err := in.ReadFrom(p); return n, err },
		func(p []byte) (int, error) { n, _, err := in.ReadFromUDPAddrPort(p); return n, err },
		func(p []byte) (int, error) { n, _, _, _, err := in.ReadMsgUDPAddrPort(p, nil); return n, err },
		func(p []byte) (int, error) { n, _, err := in.ReceiveFrom(nil, p, 0); return n, err },
		readNow(in),
	}
	sent, read := 0, 0
	readAll(&sent, &read)
	was := in.Stats()
	sendRuns(t, out, to, 200, &sent)
	for range 100 {
		for _, one := range reads {
			readRuns(t, one, 1, &read)
		}
	}
	s := in.Stats()
	if s.Received-was.Received != 600 || s.ReceivedBytes-was.ReceivedBytes != 6000 {
		t.Errorf("%+v\nafter %+v; want 600 datagrams more", s, was)
	}
	if calls := s.ReceiveCalls - was.ReceiveCalls; !dear && calls != 600 || dear && calls > 200 { // the last two take what is held, and read none ahead
		t.Errorf("%d calls for 600 datagrams", calls)
	}
	if !in.recv.isQuick.Load() {
		t.Error("not quick, and the queue was deep all the time")
	}
	sendRuns(t, out, to, 1, &sent)
	_, from, err := in.ReadFrom(make([]byte, 10))
	if err != nil || from.String() != out.LocalAddr().String() {
		t.Errorf("from %v, %v; want %v", from, err, out.LocalAddr())
	}
	for read++; read < sent; {
		readRuns(t, in.Read, 1, &read)
	}
	for range 3 {
		readOneWaited(t, in, out, &sent, &read)
	}
	if in.recv.isQuick.Load() || in.recv.ours.Load() {
		t.Error("quick, and each datagram was waited for")
	}
	nothingMore(t, in)
}

// readOneWaited has one datagram sent to a read that waits.
func readOneWaited(t *testing.T, in, out *Conn, sent, read *int) {
	t.Helper()
	msgs := AppendSegments(nil, addrPortOf(in), []byte(strings.Repeat(string(rune('a'+*sent%26)), 10)), 10, nil)
	*sent++
	done := make(chan error)
	go func() {
		awaitReader(t, in)
		done <- sendAll(out, nil, msgs)
	}()
	readRuns(t, in.Read, 1, read)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestQuickReadEnds: the deadline, Close and errors end a quick read as they
// end others.
func TestQuickReadEnds(t *testing.T) { eachPrice(t, testQuickReadEnds) }

func testQuickReadEnds(t *testing.T, dear bool) {
	in, out, readAll := quickPair(t)
	to := addrPortOf(in)
	sent, read := 0, 0
	leave := func() {
		t.Helper()
		sendRuns(t, out, to, 3, &sent)
		readRuns(t, in.Read, 1, &read)
		if in.recv.hasHeld.Load() != dear {
			t.Errorf("it left something held: %v", !dear)
		}
	}
	leave()
	in.SetReadDeadline(time.Now().Add(-time.Second))
	if _, err := in.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v past the deadline", err)
	}
	in.SetReadDeadline(time.Now().Add(patience))
	readRuns(t, in.Read, sent-read, &read)
	readAll(&sent, &read)
	in.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := in.Read(make([]byte, 10)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v at the deadline", err)
	}
	in.SetReadDeadline(time.Time{})
	readAll(&sent, &read)
	leave()
	in.Close()
	_, _, err := in.ReadFromUDPAddrPort(make([]byte, 10))
	if op, ok := err.(*net.OpError); !ok || op.Err != net.ErrClosed {
		t.Errorf("%v of a closed Conn", err)
	}
}

// TestQuickReadRefused: what the kernel has pending is told once, and as net
// tells it.
func TestQuickReadRefused(t *testing.T) {
	inNamespace(t, func(t *testing.T, _ *loopback) { eachPrice(t, testQuickReadRefused) })
}

func testQuickReadRefused(t *testing.T, _ bool) {
	in, _ := connectedPair(t, nil)
	startQuick(in)
	sendUnreachable(t, in.LocalAddr().(*net.UDPAddr), in.RemoteAddr().(*net.UDPAddr), 3, 0)
	awaitError(t, in.conn())
	in.SetReadDeadline(time.Now().Add(patience)) // if the error is lost
	_, err := in.Read(make([]byte, 10))
	var call *os.SyscallError
	if !errors.Is(err, unix.ECONNREFUSED) || !errors.As(err, &call) || call.Syscall != "read" {
		t.Errorf("%v; want read: ECONNREFUSED", err)
	}
	nothingMore(t, in)
}

// TestQuickReadLeaves: a quick read that leaves something held kicks a read
// that has parked meanwhile, and leaves nothing if Close came meanwhile.
func TestQuickReadLeaves(t *testing.T) {
	setDear(t, true)
	in, out, readAll := quickPair(t)
	sent, read := 0, 0
	readAll(&sent, &read)
	r := &in.recv
	during := func(f func()) {
		t.Helper()
		sendRuns(t, out, addrPortOf(in), 10, &sent)
		if !r.isQuick.Load() || r.hasHeld.Load() {
			t.Fatalf("quick %v, held %v", r.isQuick.Load(), r.hasHeld.Load())
		}
		r.quick.try = func(fd uintptr) {
			r.quick.attempt(fd)
			if r.held == nil {
				t.Error("it left nothing")
			}
			f()
		}
		readRuns(t, in.Read, 1, &read)
		r.quick.try = r.quick.attempt
	}
	during(func() { r.queue.state.Store(parked) })
	if r.queue.state.Load() != kicked {
		t.Error("a read that is parked was not kicked")
	}
	r.queue.unpark()
	end := time.Now().Add(patience)
	for first, before := true, read; read < sent; first = false { // a busy kernel delivers late
		if time.Now().After(end) {
			t.Fatalf("%d of %d", read, sent)
		}
		if err := receiveInto(in, nil, sent-read, MsgDontWait, func([]byte) { read++ }); err != nil && !errors.Is(err, ErrWouldBlock) {
			t.Fatal(err)
		}
		if first && read-before < maxAhead { // of which maxAhead-1 were held
			t.Errorf("%d of %d: it did not say that there was more", read-before, sent-before)
		}
	}
	during(func() { r.queue.ends.closed.Store(true) })
	if r.hasHeld.Load() {
		t.Error("held after Close")
	}
}

// TestQuickReadBesideNet: a quick read takes no more than it returns while a
// read of package net's own is under way, which would not see the rest.
func TestQuickReadBesideNet(t *testing.T) {
	setDear(t, true)
	in, out, readAll := quickPair(t)
	sent, read := 0, 0
	in.recv.net.begin()
	defer in.recv.net.fail()
	readAll(&sent, &read)
	sendRuns(t, out, addrPortOf(in), 10, &sent)
	readRuns(t, in.Read, 1, &read)
	if !in.recv.isQuick.Load() || in.recv.hasHeld.Load() {
		t.Errorf("quick %v, held %v", in.recv.isQuick.Load(), in.recv.hasHeld.Load())
	}
	readRuns(t, in.Read, sent-read, &read)
}

// TestQuickReadUserSet: once the user has set UDP_GRO, or is doing so in a
// Control, a quick read returns runs as they are.
func TestQuickReadUserSet(t *testing.T) {
	setDear(t, true)
	set := func(fd uintptr) {
		if err := sys.SetCoalescing(fd, true); err != nil {
			t.Error(err)
		}
	}
	t.Run("before New", func(t *testing.T) {
		u := listen(t, "udp4", "127.0.0.1")
		control(t, u, func(fd int) error { set(uintptr(fd)); return nil })
		uncutByQuickReads(t, newConn(t, u, nil), func(read func()) { read() })
	})
	t.Run("in a Control", func(t *testing.T) {
		in := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
		uncutByQuickReads(t, in, func(read func()) {
			if err := rawOf(t, in).Control(func(fd uintptr) { set(fd); read() }); err != nil {
				t.Error(err)
			}
		})
	})
}

// uncutByQuickReads has in's user set UDP_GRO by with, which calls what it gets
// once that is done.
func uncutByQuickReads(t *testing.T, in *Conn, with func(read func())) {
	t.Helper()
	out := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
	if !out.Stats().GSO {
		t.Skip(out.Stats().GSOReason)
	}
	growBuffer(in.conn())
	with(func() {
		startQuick(in)
		sent := 0
		sendRuns(t, out, addrPortOf(in), 20, &sent)
		p := make([]byte, 100)
		for i := range 20 {
			if n, err := in.Read(p); n != 30 || err != nil {
				t.Errorf("run %d: %d bytes, %v", i, n, err)
			}
		}
	})
}

// TestQuickReadFitsCache: long datagrams are read ahead as far as they fit into
// the cache.
func TestQuickReadFitsCache(t *testing.T) {
	setDear(t, true)
	in, out, _ := quickPair(t)
	const n, size = 20, 60000
	if room := bufferSize(in.conn()); room < n<<17 { // which each takes there
		t.Skipf("they do not fit in a receive buffer of %d bytes: raise net.core.rmem_max", room)
	}
	was := in.Stats()
	for range n {
		if _, err := out.SendTo(nil, make([]byte, size), addrPortOf(in), 0); err != nil {
			t.Fatal(err)
		}
	}
	p := make([]byte, size)
	for range n {
		if k, err := in.Read(p); k != size || err != nil {
			t.Fatal(k, err)
		}
	}
	// The first call is made as after short ones.
	if s := in.Stats(); s.Received-was.Received != n || s.ReceiveCalls-was.ReceiveCalls != 1+(n-maxAhead)/(cacheSize/size) {
		t.Errorf("%+v\nafter %+v", s, was)
	}
}

// TestQuickReadNoAllocation: quick reads allocate as others do, nothing but
// what ReadFrom returns.
func TestQuickReadNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("under -race sync.Pool drops what it is given at random")
	}
	eachPrice(t, testQuickReadNoAllocation)
}

func testQuickReadNoAllocation(t *testing.T, _ bool) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it empties the pools
	in, out, _ := quickPair(t)
	ten := AppendSegments(nil, addrPortOf(in), make([]byte, 10*1000), 1000, nil)
	for _, call := range frugalReads(t, in) {
		if call.n > 1 {
			continue
		}
		var err error
		reads := func() {
			err = errors.Join(err, sendAll(out, nil, ten))
			for n := 0; n < 10 && err == nil; n++ {
				err = call.read()
			}
		}
		reads() // with the pools empty
		if n := testing.AllocsPerRun(20, reads); n > 10*call.max || err != nil {
			t.Errorf("%s: %v allocations in ten calls, error %v", call.name, n, err)
		}
		if !in.recv.isQuick.Load() {
			t.Fatalf("%s: not quick", call.name)
		}
	}
}

// TestQuickReadsEndAtRuns: when coalescing goes on, no read is quick, which
// would take a run for a datagram. When it goes off, they are quick again.
func TestQuickReadsEndAtRuns(t *testing.T) { eachPrice(t, testQuickReadsEndAtRuns) }

func testQuickReadsEndAtRuns(t *testing.T, _ bool) {
	in, plain, _ := quickPair(t)
	if !in.Stats().GRO {
		t.Skip(in.Stats().GROReason)
	}
	segmenting := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
	in.recv.retry.Store(0) // as if the pause were over
	sent, read := 0, 0
	for _, out := range []*Conn{segmenting, plain} {
		for end := time.Now().Add(patience); in.recv.isAware.Load() != (out == segmenting); {
			sendRuns(t, out, addrPortOf(in), 50, &sent)
			readRuns(t, in.Read, 150, &read)
			if _, err := readNow(in)(nil); !errors.Is(err, ErrWouldBlock) {
				t.Fatal(err)
			}
			if time.Now().After(end) {
				t.Fatalf("%+v", in.recv.gro)
			}
		}
		sendRuns(t, out, addrPortOf(in), 50, &sent)
		readRuns(t, in.Read, 150, &read)
	}
	nothingMore(t, in)
}

// TestQuickReaders: quick reads beside reads that may not wait, while
// coalescing goes on and off: each datagram gets to one, whole, and none is
// left.
func TestQuickReaders(t *testing.T) { eachPrice(t, testQuickReaders) }

func testQuickReaders(t *testing.T, _ bool) {
	in, segmenting, to := readPair(t, nil)
	plain := newConn(t, listen(t, "udp4", "127.0.0.1"), &Config{GSO: GSOOff})
	var read readOnce
	var wg sync.WaitGroup
	atOnceOnly := readerKind{"MsgDontWait", func(c *Conn, got func([]byte)) error {
		runtime.Gosched()
		return receiveInto(c, nil, 1+rand.IntN(5), MsgDontWait, got)
	}}
	for _, kind := range []readerKind{readerKinds[4], atOnceOnly} {
		wg.Go(func() { read.untilClosed(t, in, kind) })
	}
	sent := uint32(0)
	for end := time.Now().Add(*readersFor); time.Now().Before(end) && !t.Failed(); {
		switchAtRandom(&in.recv)
		for range 1 + rand.IntN(4) {
			var p []byte
			for range 1 + rand.IntN(30)*rand.IntN(2) {
				p = binary.BigEndian.AppendUint32(p, sent)
				p = binary.BigEndian.AppendUint32(p, ^sent)
				sent++
			}
			out := []*Conn{segmenting, plain}[rand.IntN(2)]
			if err := sendAll(out, nil, AppendSegments(nil, to, p, 8, nil)); err != nil {
				t.Fatal(err)
			}
		}
		for limit := time.Now().Add(patience); read.count.Load() < int64(sent); time.Sleep(20 * time.Microsecond) {
			if time.Now().After(limit) {
				t.Fatalf("%d of %d datagrams were read; state %d, held %v", read.count.Load(), sent, in.recv.queue.state.Load(), in.recv.hasHeld.Load())
			}
		}
	}
	stats := in.Stats()
	in.Close()
	atOnce(t, "the end of the readers", wg.Wait)
	if stats.Received != uint64(sent) || stats.Coalesced == 0 && stats.GRO {
		t.Errorf("%d datagrams; %+v", sent, stats)
	}
	t.Logf("%d datagrams; %+v", sent, stats)
}

// switchAtRandom has reads be quick, and turns coalescing on or off.
func switchAtRandom(r *receiver) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.startQuickLocked()
	r.retry.Store(0)
	if rand.IntN(4) == 0 {
		r.turnOnLocked()
	} else {
		r.settleLocked()
	}
}

// TestQuickReadersInOrder: each of many readers sees datagrams of one flow in
// the order in which they were sent, whoever else reads, and however.
func TestQuickReadersInOrder(t *testing.T) {
	eachPrice(t, func(t *testing.T, _ bool) {
		in, _, to := readPair(t, nil)
		out := newConn(t, listen(t, "udp4", "127.0.0.1"), &Config{GSO: GSOOff})
		var read atomic.Int64
		var wg sync.WaitGroup
		for _, k := range []int{4, 4, 4, 0, 5, 3} {
			wg.Go(func() {
				next := uint32(0)
				got := func(p []byte) {
					id := binary.BigEndian.Uint32(p)
					if id < next {
						t.Errorf("%s: %d after %d", readerKinds[k].name, id, next-1)
					}
					next = id + 1
					read.Add(1)
				}
				for readerKinds[k].read(in, got) == nil {
					if rand.IntN(4) == 0 {
						runtime.Gosched()
					}
				}
			})
		}
		sent := uint32(0)
		for end := time.Now().Add(*readersFor); time.Now().Before(end) && !t.Failed(); {
			switchAtRandom(&in.recv)
			for range 1 + rand.IntN(4) {
				var p []byte
				for range 1 + rand.IntN(60) {
					p = binary.BigEndian.AppendUint32(p, sent)
					sent++
				}
				if err := sendAll(out, nil, AppendSegments(nil, to, p, 4, nil)); err != nil {
					t.Fatal(err)
				}
			}
			await(t, "all to be read", func() bool { return read.Load() == int64(sent) })
		}
		in.Close()
		atOnce(t, "the end of the readers", wg.Wait)
	})
}

// TestLateQuickRead: a quick read that began as quick reads ended reads
// nothing: what it held would not be seen by net's own reads.
func TestLateQuickRead(t *testing.T) {
	setDear(t, true)
	in, out, _ := quickPair(t)
	sent, read := 0, 0
	sendRuns(t, out, addrPortOf(in), 4, &sent)
	r := &in.recv
	r.mu.Lock()
	r.isQuick.Store(false)
	r.leaveToNetLocked()
	r.mu.Unlock()
	if _, done, err := r.quickly(make([]byte, 100), nil, byRead); done || err != nil || r.hasHeld.Load() {
		t.Errorf("it read: %v, %v, held %v", done, err, r.hasHeld.Load())
	}
	readRuns(t, in.Read, sent, &read)
}

// TestQuickReadPending: an error that an earlier call had no way to return
// comes before what a quick read would read.
func TestQuickReadPending(t *testing.T) {
	eachPrice(t, func(t *testing.T, _ bool) {
		in, out, _ := quickPair(t)
		sent, read := 0, 0
		sendRuns(t, out, addrPortOf(in), 4, &sent)
		in.send.pending.add(ended(syscall.ECONNREFUSED))
		if _, err := in.Read(make([]byte, 100)); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("the first read returned %v", err)
		}
		readRuns(t, in.Read, sent, &read)
	})
}

// TestQuickReadsOfMany: readers that find the queue empty one after the other
// are judged by what came before the first of them.
func TestQuickReadsOfMany(t *testing.T) {
	eachPrice(t, func(t *testing.T, _ bool) {
		in, _, _ := quickPair(t) // has just read a burst
		for i := range 3 {
			if _, done, err := in.recv.quickly(make([]byte, 100), nil, byRead); done || err != nil || !in.recv.isQuick.Load() {
				t.Fatalf("reader %d: %v, %v; quick %v", i, done, err, in.recv.isQuick.Load())
			}
		}
	})
}

// TestSettlesWhileAsking: a Conn that was busy, and now asks and answers, stops
// coalescing, and begins again at once when it is busy again.
func TestSettlesWhileAsking(t *testing.T) {
	in, out, to := readPair(t, nil)
	if !in.Stats().GRO {
		t.Skip(in.Stats().GROReason)
	}
	sent, read := 0, 0
	for range 2 {
		for end := time.Now().Add(patience); !in.optionOn(); {
			if time.Now().After(end) {
				t.Fatalf("never on: %+v", in.recv.gro)
			}
			sendRuns(t, out, to, 30, &sent)
			readRuns(t, in.Read, 90, &read)
		}
		sendRuns(t, out, to, 30, &sent)
		readRuns(t, in.Read, 90, &read)
		asks, wasOff := 0, false
		for end := time.Now().Add(patience); in.recv.isAware.Load() || in.recv.ours.Load(); asks++ {
			if time.Now().After(end) {
				t.Fatalf("never off: %+v", in.recv.gro)
			}
			if _, err := readNow(in)(make([]byte, 10)); !errors.Is(err, ErrWouldBlock) {
				t.Fatal(err)
			}
			if err := sendAll(out, nil, []OutputMessage{{Addr: to, Vectors: [][]byte{[]byte(strings.Repeat(string(rune('a'+sent%26)), 10))}}}); err != nil {
				t.Fatal(err)
			}
			sent++
			readRuns(t, in.Read, 1, &read)
			if wasOff = wasOff || !in.recv.gro.on; wasOff && in.recv.gro.on {
				t.Fatalf("on again after %d asks: %+v", asks, in.recv.gro)
			}
		}
		if in.recv.isPaused() {
			t.Errorf("after %d asks: %+v", asks, in.recv.gro)
		}
	}
}

// TestStatsBetweenLooks: a program that asks for Stats all the time is read for
// like another.
func TestStatsBetweenLooks(t *testing.T) {
	in, out, to := readPair(t, nil)
	sent, read := 0, 0
	sendRuns(t, out, to, 20, &sent)
	for range 10 * lookEvery {
		sendRuns(t, out, to, 1, &sent)
		readRuns(t, in.Read, 3, &read)
		if s := in.Stats(); s.Received < uint64(read) { // more if some are held
			t.Fatalf("%d reads, Stats say %d", read, s.Received)
		}
	}
	if !in.recv.ours.Load() {
		t.Errorf("the queue is deep, and was not looked at in %d reads", read)
	}
}

// TestOneCallABurst: a burst that came as one run costs ReceiveMessages one
// call to the kernel, if there is room for more.
func TestOneCallABurst(t *testing.T) {
	in, out, to := coalescing(t)
	sent, read := 0, 0
	for range 5 {
		was := in.Stats().ReceiveCalls
		sendRuns(t, out, to, 1, &sent)
		if err := in.WaitReadable(nil); err != nil {
			t.Fatal(err)
		}
		if err := receiveInto(in, nil, 10, 0, func([]byte) { read++ }); err != nil || read != sent {
			t.Fatalf("%d of %d, %v", read, sent, err)
		}
		if calls := in.Stats().ReceiveCalls - was; calls != 1 {
			t.Errorf("%d calls", calls)
		}
	}
}

// TestReceiveCallsAreExact: a call is counted if it is made, and if it is
// refused, and no other is.
func TestReceiveCallsAreExact(t *testing.T) {
	in, out, to := readPair(t, nil)
	o := in.recv.newBatchReading(0) // as if coalescing had been on when it was made ready
	if err := in.recv.obtainNow(o); err != nil || !o.again {
		t.Fatalf("%v, again %v", err, o.again)
	}
	in.recv.release(o)
	if s := in.Stats(); s.ReceiveCalls != 0 {
		t.Errorf("%d calls, and none was made", s.ReceiveCalls)
	}
	if runtime.GOARCH == "386" || runtime.GOARCH == "s390x" {
		return // there filters do not tell the calls of socketcall(2) apart
	}
	forbid(t, unix.SYS_RECVMMSG, syscall.ENOSYS)
	sent, read := 0, 0
	for _, calls := range []uint64{2, 7} { // recvmmsg is tried once; then a call a datagram, of 5 that are left
		sendRuns(t, out, to, 1, &sent)
		if err := receiveInto(in, nil, 5, 0, func([]byte) { read++ }); err != nil {
			t.Fatal(err)
		}
		if s := in.Stats(); s.ReceiveCalls != calls {
			t.Errorf("%d calls, want %d", s.ReceiveCalls, calls)
		}
	}
}

// TestAsksForWhatComes: a plain call makes no more messages ready than are
// likely to come, and one that finds more than it asked for goes on.
func TestAsksForWhatComes(t *testing.T) {
	in, out, to := readPair(t, &Config{GRO: GROOff})
	sent, read := 0, 0
	for _, step := range []struct{ runs, asked, calls int }{
		{1, 6, 1},     // few
		{100, 104, 7}, // 300 datagrams: 8, 16, 32, three times 64, and 52 that are fewer than asked for
		{1, 6, 1},
	} {
		was := in.Stats().ReceiveCalls
		sendRuns(t, out, to, step.runs, &sent)
		msgs := make([]InputMessage, 400)
		for i := range msgs {
			msgs[i].Vectors = [][]byte{make([]byte, 64)}
		}
		n, err := in.ReceiveMessages(nil, msgs, 0)
		if read += n; err != nil || read != sent {
			t.Fatalf("%d of %d, %v", read, sent, err)
		}
		if calls := int(in.Stats().ReceiveCalls - was); int(in.recv.asked.Load()) != step.asked || calls != step.calls {
			t.Errorf("%d datagrams: %d calls, then asks for %d; want %d, %d", n, calls, in.recv.asked.Load(), step.calls, step.asked)
		}
	}
}

// TestLongControl: what comes beside a datagram is whole, however long it is
// and however the Conn reads: an IPv6 socket may ask for kilobytes.
func TestLongControl(t *testing.T) {
	for _, way := range []struct {
		name   string
		before bool // asked for before New, else while plain datagrams are read
		pause  bool // coalescing may not go on: reads get quick
		raw    bool // others read the socket
		inside bool // the datagrams are read inside the Control that asks
	}{
		{name: "quick, asked before New", before: true},
		{name: "quick", pause: true},
		{name: "quick, inside Control", pause: true, inside: true},
		{name: "coalescing"},
		{name: "coalescing, inside Control", inside: true},
		{name: "beside a raw reader", before: true, raw: true},
	} {
		t.Run(way.name, func(t *testing.T) {
			eachPrice(t, func(t *testing.T, dear bool) {
				ask := option(unix.SOL_IPV6, unix.IPV6_RECVDSTOPTS, 1)
				u := listen(t, "udp6", "::1")
				u.SetReadBuffer(1 << 20)
				if way.before {
					control(t, u, ask)
				}
				l := longControl{t: t, in: newConn(t, u, nil), out: listen(t, "udp6", "::1")}
				l.in.SetReadDeadline(time.Now().Add(patience))
				if way.pause {
					l.in.recv.retry.Store(sinceEpoch(time.Now().Add(time.Hour)))
				}
				if way.raw {
					raw, _ := l.in.SyscallConn()
					if err := raw.Read(func(uintptr) bool { return true }); err != nil {
						t.Fatal(err)
					}
				}
				if !way.raw {
					l.sendPlain(100)
					l.readPlain(90) // with the rest there, reads stay what they are
					quick, wantQuick := l.in.recv.isQuick.Load(), way.before || way.pause
					if aware := l.in.recv.isAware.Load(); quick != wantQuick || aware == wantQuick {
						t.Skipf("quick %v, aware %v: %s", quick, aware, l.in.Stats().GROReason)
					}
				}
				test := func() {
					l.send(100)
					l.readAll(100)
				}
				switch {
				case way.before:
					test()
				case way.inside:
					control(t, l.in, func(fd int) error {
						err := ask(fd)
						test()
						return err
					})
				default:
					control(t, l.in, ask)
					test()
				}
			})
		})
	}
}

// A longControl sends datagrams with destinationOptions, and reads them.
type longControl struct {
	t   *testing.T
	in  *Conn
	out *net.UDPConn
}

func (l *longControl) sendPlain(n int) {
	l.t.Helper()
	for range n {
		if _, err := l.out.WriteToUDPAddrPort(make([]byte, 10), addrPortOf(l.in)); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *longControl) readPlain(n int) {
	l.t.Helper()
	for range n {
		if _, err := l.in.Read(make([]byte, 10)); err != nil {
			l.t.Fatal(err)
		}
	}
}

func (l *longControl) send(n int) {
	l.t.Helper()
	for i := range n {
		if _, _, err := l.out.WriteMsgUDPAddrPort(make([]byte, 10), destinationOptions(i), addrPortOf(l.in)); err != nil {
			l.t.Fatal(err)
		}
	}
}

// readAll reads n of those sent, under all names. Plain ones may come before.
func (l *longControl) readAll(n int) {
	l.t.Helper()
	msgs := make([]InputMessage, 5)
	for i := range msgs {
		msgs[i] = InputMessage{Vectors: [][]byte{make([]byte, 10)}, Control: make([]byte, 4096)}
	}
	for read, turn := 0, 0; read < n; turn++ {
		k, m := 1, &msgs[0]
		var err error
		switch {
		case turn%10 == 0:
			_, err = l.in.ReceiveMessage(nil, m, 0)
		case turn%10 < 4:
			k, err = l.in.ReceiveMessages(nil, msgs, 0)
		default:
			_, m.ControlReceived, m.Flags, _, err = l.in.ReadMsgUDPAddrPort(m.Vectors[0], m.Control)
		}
		if err != nil {
			l.t.Fatal(err)
		}
		for _, m := range msgs[:k] {
			got := m.Control[:m.ControlReceived]
			if m.Flags != 0 || len(got) != 0 && !bytes.Equal(got, destinationOptions(read)) {
				l.t.Fatalf("datagram %d has %d bytes of control data, flags %#x", read, len(got), m.Flags)
			}
			if len(got) != 0 {
				read++
			}
		}
	}
}

// destinationOptions is a control message with four options of 200 bytes, the
// i-th of its kind.
func destinationOptions(i int) []byte {
	header := []byte{unix.IPPROTO_UDP, 0} // what follows it, and its length
	for range 4 {
		header = append(header, 0x1e, 200) // of those that are skipped if unknown (RFC 8200, 4.2)
		header = append(header, bytes.Repeat([]byte{byte(i)}, 200)...)
	}
	for len(header)%8 != 0 {
		header = append(header, 0)
	}
	header[1] = byte(len(header)/8 - 1)
	return cmsg(unix.SOL_IPV6, unix.IPV6_DSTOPTS, header...)
}

// TestQuickReadWithoutRecvmsg: where a filter takes recvfrom(2) alone, as net's
// reads need it, quick reads that read ahead make do with it.
func TestQuickReadWithoutRecvmsg(t *testing.T) {
	if runtime.GOARCH == "386" || runtime.GOARCH == "s390x" {
		t.Skip("there filters do not tell the calls of socketcall(2) apart")
	}
	setDear(t, true)
	in, out, _ := quickPair(t)
	sent, read := 0, 0
	sendRuns(t, out, addrPortOf(in), 30, &sent)
	forbid(t, unix.SYS_RECVMMSG, syscall.EPERM)
	forbid(t, unix.SYS_RECVMSG, syscall.EPERM)
	readRuns(t, in.Read, sent-5, &read)
	readRuns(t, func(p []byte) (int, error) { n, _, err := in.ReadFromUDPAddrPort(p); return n, err }, 5, &read)
	if !in.recv.isQuick.Load() || !in.send.noBatchCall.Load() {
		t.Errorf("quick %v, the batch call is known to be refused: %v", in.recv.isQuick.Load(), in.send.noBatchCall.Load())
	}
}

// TestQuickReadWaitsItsTurn: no read is quick while another waits.
func TestQuickReadWaitsItsTurn(t *testing.T) {
	eachPrice(t, func(t *testing.T, _ bool) {
		in, out, _ := quickPair(t)
		ended := make(chan error, 1)
		go func() {
			_, _, err := in.ReceiveFrom(nil, make([]byte, 100), 0)
			ended <- err
		}()
		await(t, "the reader to wait", func() bool { return in.recv.queue.state.Load() == parked })
		startQuick(in)
		if in.recv.mayBeQuick(make([]byte, 1)) {
			t.Error("a read may go past one that waits")
		}
		sent := 0
		sendRuns(t, out, addrPortOf(in), 1, &sent)
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestNetReadsAreCounted: net's own reads are counted however many they are,
// and however long.
func TestNetReadsAreCounted(t *testing.T) {
	in := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
	const n, size = 100_000, 60_000
	for range n {
		in.recv.net.begin()
		in.recv.leaveNet(size, nil)
	}
	if s := in.Stats(); s.Received != n || s.ReceivedBytes != uint64(n)*size || s.ReceiveCalls != n || in.recv.net.underWay() != 0 {
		t.Errorf("%+v, %d under way", s, in.recv.net.underWay())
	}
}

// TestPriceOfACall: what a call costs is measured when reads first get quick.
func TestPriceOfACall(t *testing.T) {
	setDear(t, false) // and back at the end
	in, _, _ := readPair(t, nil)
	fastestPoll.Store(0)
	startQuick(in)
	if price := fastestPoll.Load(); price < 10 || in.recv.quick.isDear != (price >= int64(dearCall)) {
		t.Errorf("a call costs %d ns; reading ahead: %v", price, in.recv.quick.isDear)
	}
}
