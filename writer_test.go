// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"reflect"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// awaitWaiters waits until n goroutines wait in w.
func awaitWaiters(t testing.TB, w *Writer, n int) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
		w.mu.Lock()
		got := w.writes.len() + w.flushes.len()
		w.mu.Unlock()
		if got == n {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("%d wait, want %d", got, n)
		}
	}
}

func (q *callQueue) len() (n int) {
	for p := q.first; p != nil; p = p.next {
		n++
	}
	return n
}

// mustWrite writes what must be accepted at once.
func mustWrite(t testing.TB, w *Writer, p []byte, to netip.AddrPort) {
	t.Helper()
	if n, err := w.accept(&packet{p, nil, to}); n != len(p) || err != nil {
		t.Fatalf("writing %d bytes to %v = %d, %v", len(p), to, n, err)
	}
}

// writeLetter writes through one method after the other of those that suit the
// socket.
func writeLetter(w *Writer, world *world, i int, p []byte, to netip.AddrPort) (n int, err error) {
	if world.connected {
		switch i % 3 {
		case 0:
			return w.Write(p)
		case 1:
			n, _, err = w.WriteMsgUDP(p, nil, nil)
		default:
			n, _, err = w.WriteMsgUDPAddrPort(p, nil, netip.AddrPort{})
		}
		return n, err
	}
	udp := net.UDPAddrFromAddrPort(to)
	switch i % 5 {
	case 0:
		return w.WriteTo(p, udp)
	case 1:
		return w.WriteToUDP(p, udp)
	case 2:
		return w.WriteToUDPAddrPort(p, to)
	case 3:
		n, _, err = w.WriteMsgUDP(p, nil, udp)
	default:
		n, _, err = w.WriteMsgUDPAddrPort(p, nil, to)
	}
	return n, err
}

// TestWriterSendsAll: all that is written arrives, whole and in order, through
// every method of every kind of socket, and the buffer is the caller's again as
// soon as a write has returned.
func TestWriterSendsAll(t *testing.T) {
	patterns := []struct {
		name     string
		to, size func(int) int
	}{{"mixed", inTurn, mixed}, {"runs", inRuns, runSize}, {"turns", inTurn, func(int) int { return 64 }}}
	configs := []WriterConfig{{}, {MaxMessages: 7}, {MaxBytes: 300}, {MaxDelay: time.Millisecond}, {MaxDelay: -1}}
	n := 3000
	if testing.Short() {
		n = 600
	}
	forEachKind(t, 32, nil, func(t *testing.T, world *world) {
		for i := range configs {
			w := NewWriter(world.conn, &configs[i])
			for _, p := range patterns {
				t.Run(fmt.Sprint(p.name, i), func(t *testing.T) {
					m := world.write(t, n, p.to, p.size)
					buf := make([]byte, 0, 128)
					for i, l := range m.letters {
						buf = append(buf[:0], l.p...)
						if n, err := writeLetter(w, world, i, buf, m.msgs[i].Addr); n != len(l.p) || err != nil {
							t.Fatalf("write %d = %d, %v", i, n, err)
						}
						for j := range buf {
							buf[j] = 'X'
						}
						m.msgs[i].BytesSent = len(l.p) // nobody else sets it
					}
					if err := w.Flush(nil); err != nil {
						t.Fatal(err)
					}
					world.checkAll(t, m)
				})
			}
		}
	})
}

// TestWriterIdle: a datagram that comes after a pause has left when the write
// returns; and how much longer that takes than a bare WriteTo.
func TestWriterIdle(t *testing.T) {
	world, w, k := heldKernel(t, nil, nil)
	k.letGo()
	for i := range 100 {
		for start := time.Now(); time.Since(start) <= 2*idleAfter; {
		}
		mustWrite(t, w, []byte("alone"), world.dest[0])
		if k.calls != i+1 {
			t.Fatalf("%d calls after %d single datagrams", k.calls, i+1)
		}
	}
}

// TestWriterIdleControl: it has its control data, and needs no buffer.
func TestWriterIdleControl(t *testing.T) {
	world, w, k := heldKernel(t, nil, nil)
	control := (&ipv4.ControlMessage{Src: net.IPv4(127, 0, 0, 1)}).Marshal()
	got := 0
	k.play = func(_ int, ms []ipv4.Message) (int, error) { got += len(ms[0].OOB); return len(ms), nil }
	mustWrite(t, w, []byte("alone"), world.dest[0])
	if w.held.filling != nil || w.held.leaving != nil {
		t.Error("there is a buffer to hold nothing")
	}
	time.Sleep(2 * idleAfter)
	if _, _, err := w.WriteMsgUDPAddrPort([]byte("alone"), control, world.dest[0]); err != nil || got != len(control) {
		t.Errorf("%v, and %d bytes of control data left, want %d", err, got, len(control))
	}
}

func TestWriterIdleLatency(t *testing.T) {
	world := plainKind.world(t, 1, nil)
	bare := listen(t, "udp4", "127.0.0.1")
	w := NewWriter(world.conn, nil)
	to := net.UDPAddrFromAddrPort(world.dest[0])
	p, buf := make([]byte, 1200), make([]byte, 2048)
	once := func(c net.PacketConn) time.Duration {
		start := time.Now()
		if _, err := c.WriteTo(p, to); err != nil {
			t.Fatal(err)
		}
		world.inboxes[0].read(t, buf)
		return time.Since(start)
	}
	added := make([]time.Duration, 501)
	for i := range added {
		added[i] = once(w) - once(bare)
	}
	slices.Sort(added)
	median := added[len(added)/2]
	t.Logf("an idle datagram through the Writer: median %v later than by a bare WriteTo", median)
	if median > time.Millisecond {
		t.Errorf("that is no \"at once\"")
	}
}

// TestWriterBatchesGrow: what is written while the kernel is busy leaves in as
// few calls as it can.
func TestWriterBatchesGrow(t *testing.T) {
	world, w, k := heldKernel(t, nil, nil)
	k.busy(t, w, world.dest[0])
	for range 2 * sendChunk {
		mustWrite(t, w, []byte("held"), world.dest[0])
	}
	k.letGo()
	if err := w.Flush(nil); err != nil {
		t.Fatal(err)
	}
	if s := world.conn.Stats(); s.Messages != 1+2*sendChunk || s.Calls != 3 {
		t.Errorf("%d messages in %d calls, want %d in 3", s.Messages, s.Calls, 1+2*sendChunk)
	}
}

// TestWriterBatchesGrowBusy: the same by itself.
func TestWriterBatchesGrowBusy(t *testing.T) {
	world := plainKind.world(t, 1, &Config{GSO: GSOOff})
	w := NewWriter(world.conn, nil)
	if d := timeOfHolding(t); d > idleAfter/2 {
		t.Skipf("this machine takes %v to hold a datagram: to the Writer nobody here is busy", d)
	}
	const n = 50_000
	for range n {
		mustWrite(t, w, []byte("x"), world.dest[0])
	}
	if err := w.Flush(nil); err != nil {
		t.Fatal(err)
	}
	s := world.conn.Stats()
	t.Logf("%d messages in %d calls", s.Messages, s.Calls)
	if s.Messages != n || sys.HaveBatchCall && s.Calls > n/2 {
		t.Errorf("%d of %d messages, in %d calls", s.Messages, n, s.Calls)
	}
}

// TestWriterSendingIsNotIdle: the time that sending takes is no pause, so that
// a goroutine that writes on and on makes batches of a slow kernel's too.
func TestWriterSendingIsNotIdle(t *testing.T) {
	if d := timeOfHolding(t); d > idleAfter/2 {
		t.Skipf("this machine takes %v to hold a datagram: to the Writer nobody here is busy", d)
	}
	world, w, k := heldKernel(t, nil, nil)
	k.play = func(_ int, ms []ipv4.Message) (int, error) {
		for start := time.Now(); time.Since(start) < 4*idleAfter; {
		}
		return len(ms), nil
	}
	const n = 2000
	for range n {
		mustWrite(t, w, []byte("x"), world.dest[0])
	}
	if err := w.Flush(nil); err != nil {
		t.Fatal(err)
	}
	if len(k.taken) != n || k.calls > n/2 {
		t.Errorf("%d of %d messages, in %d calls", len(k.taken), n, k.calls)
	}
}

// TestWriterSendsItsPart: a write that sends leaves what comes meanwhile to the
// flusher.
func TestWriterSendsItsPart(t *testing.T) {
	world, w, k := heldKernel(t, nil, nil)
	k.play = func(call int, ms []ipv4.Message) (int, error) {
		if call == 1 {
			mustWrite(t, w, []byte("meanwhile"), world.dest[0])
		}
		return len(ms), nil
	}
	w.mu.Lock()
	w.newest = int64(time.Since(epoch) + time.Hour) // nothing is idle
	w.turn = flusherDue                             // and no flusher started
	w.mu.Unlock()
	mustWrite(t, w, []byte("first"), world.dest[0])
	time.Sleep(2 * flusherLate)
	mustWrite(t, w, []byte("late"), world.dest[0])
	if k.calls != 1 || len(k.taken) != 2 {
		t.Errorf("the write sent %d datagrams in %d calls, want its 2 in 1", len(k.taken), k.calls)
	}
	w.mu.Lock()
	w.turn = idle
	w.mu.Unlock()
	if err := w.Flush(nil); err != nil {
		t.Fatal(err)
	}
}

// TestWriterLate: however many datagrams are held, a write that comes
// flusherLate after the first of them sends them if nobody else is at it.
func TestWriterLate(t *testing.T) {
	world, w, k := heldKernel(t, nil, nil)
	k.letGo()
	for held := 1; held <= 17; held++ {
		w.mu.Lock()
		w.newest, w.turn = math.MaxInt64, flusherDue // but it does not come
		w.mu.Unlock()
		for range held {
			mustWrite(t, w, nil, world.dest[0])
		}
		time.Sleep(2 * flusherLate)
		before := k.calls
		mustWrite(t, w, nil, world.dest[0])
		if k.calls == before {
			t.Errorf("after %d that are held a late write sends nothing", held)
		}
		w.mu.Lock()
		w.turn = idle
		w.mu.Unlock()
		if err := w.Flush(nil); err != nil {
			t.Fatal(err)
		}
	}
}

// timeOfHolding is what a write takes that sends nothing, undisturbed.
func timeOfHolding(t *testing.T) time.Duration {
	const rounds, n = 20, 50
	world := plainKind.world(t, 1, nil)
	w := NewWriter(world.conn, &WriterConfig{MaxDelay: -1, MaxMessages: 2 * rounds * n})
	shortest := time.Hour
	for range rounds {
		start := time.Now()
		for range n {
			mustWrite(t, w, []byte("x"), world.dest[0])
		}
		shortest = min(shortest, time.Since(start)/n)
	}
	return shortest
}

// TestWriterHeldLeaves: what is written while the kernel is busy leaves after
// that without another call of anybody.
func TestWriterHeldLeaves(t *testing.T) {
	world, w, k := heldKernel(t, nil, nil)
	k.busy(t, w, world.dest[0])
	for range 10 {
		mustWrite(t, w, nil, world.dest[0])
	}
	k.letGo()
	receive(t, "what was held to leave", k.entered)
}

// TestWriterRoomComesEarly: a write waits until something has left, and not
// until all has.
func TestWriterRoomComesEarly(t *testing.T) {
	world, w, k := heldKernel(t, nil, &WriterConfig{MaxMessages: sendChunk + 10, MaxDelay: -1})
	pass := make(chan struct{})
	k.play = func(_ int, ms []ipv4.Message) (int, error) {
		k.entered <- struct{}{}
		select {
		case <-pass:
		case <-k.held:
		}
		return len(ms), nil
	}
	for range sendChunk + 9 {
		mustWrite(t, w, nil, world.dest[0])
	}
	go w.Flush(nil)
	receive(t, "the first chunk", k.entered)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range sendChunk / 2 {
			w.WriteToUDPAddrPort(nil, world.dest[0])
		}
	}()
	awaitWaiters(t, w, 1)
	pass <- struct{}{} // the second chunk stays
	receive(t, "room for as many as the first chunk had", done)
}

// TestWriterYields: on one processor, a goroutine that comes back from the
// kernel and finds it taken by a goroutine that writes now and then gets it for
// the next write that is late, and not only when that goroutine has used up its
// time.
func TestWriterYields(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	const tries = 20 // the scheduler may have others to run in between
	for range tries {
		if leftInTime(t) == 3 {
			return
		}
	}
	t.Errorf("in %d tries never did all 3 leave in time", tries)
}

func leftInTime(t *testing.T) int {
	t.Helper()
	world, w, k := heldKernel(t, nil, nil)
	k.letGo()
	play := k.play
	var left atomic.Int32
	k.play = func(call int, ms []ipv4.Message) (int, error) {
		if call == 1 {
			runtime.Gosched() // as after a long call
		}
		n, err := play(call, ms)
		left.Add(int32(n))
		return n, err
	}
	w.newest = math.MaxInt64 // not idle
	mustWrite(t, w, nil, world.dest[0])
	runtime.Gosched() // to the flusher, and back from its call
	mustWrite(t, w, nil, world.dest[0])
	for start := time.Now(); time.Since(start) <= flusherLate; {
	}
	mustWrite(t, w, nil, world.dest[0])
	return int(left.Load())
}

// TestWriterDelay: with MaxDelay above 0, what is written is held, and
// leaves without any other call in time; the timer starts anew for what comes
// after.
func TestWriterDelay(t *testing.T) {
	const delay = 20 * time.Millisecond
	world, w, k := heldKernel(t, nil, &WriterConfig{MaxDelay: delay})
	k.letGo()
	for range 3 {
		start := time.Now()
		for range 10 {
			mustWrite(t, w, []byte("x"), world.dest[0])
		}
		receive(t, "the delay to end", k.entered)
		took := time.Since(start)
		t.Logf("left %v after the first was written", took)
		if took < delay/2 {
			t.Errorf("left after %v, before MaxDelay and not full", took)
		}
		if err := w.Flush(nil); err != nil {
			t.Fatal(err)
		}
	}
	if k.calls > 6 || len(k.taken) != 30 { // 3 unless we were held up in the middle
		t.Errorf("%d messages in %d calls", len(k.taken), k.calls)
	}
}

// TestWriterDelayExact: by a clock that no machine disturbs, nothing is held
// for longer than MaxDelay where the kernel has time, and what need not leave
// waits.
func TestWriterDelayExact(t *testing.T) {
	const delay = 3 * time.Millisecond
	for _, maxMessages := range []int{8, 0} {
		world := plainKind.world(t, 1, &Config{GSO: GSOOff})
		synctest.Test(t, func(t *testing.T) {
			sent, calls := 0, 0
			var worst time.Duration
			follow(world.conn, func(_ int, ms []ipv4.Message) (int, error) {
				calls++
				for i := range ms {
					written := time.Duration(binary.BigEndian.Uint64(ms[i].Buffers[0]))
					held := time.Since(epoch) - written
					worst = max(worst, held)
					if maxMessages == 0 && i == 0 && held < delay {
						t.Errorf("the first of a batch left after %v", held)
					}
				}
				sent += len(ms)
				return len(ms), nil
			})
			w := NewWriter(world.conn, &WriterConfig{MaxDelay: delay, MaxMessages: maxMessages})
			var accepted atomic.Int64
			var wg sync.WaitGroup
			end := time.Now().Add(5 * time.Second)
			for range 3 {
				wg.Go(func() {
					for time.Now().Before(end) {
						for range 1 + rand.IntN(12) {
							mustWrite(t, w, binary.BigEndian.AppendUint64(nil, uint64(time.Since(epoch))), world.dest[0])
							accepted.Add(1)
						}
						time.Sleep(time.Duration(rand.IntN(6000)) * time.Microsecond)
					}
				})
			}
			wg.Wait()
			time.Sleep(2 * delay)
			synctest.Wait()
			t.Logf("%d datagrams in %d calls, held for %v at most", sent, calls, worst)
			if sent != int(accepted.Load()) || worst > delay {
				t.Errorf("%d of %d left, held for %v at most, want %v", sent, accepted.Load(), worst, delay)
			}
		})
	}
}

// TestWriterDelayBusy: a goroutine that writes on and on, and leaves no
// processor to the timer, sends what is held too long itself.
func TestWriterDelayBusy(t *testing.T) {
	const delay = time.Millisecond
	world, w, k := heldKernel(t, nil, &WriterConfig{MaxDelay: delay, MaxMessages: 1 << 20, MaxBytes: 1 << 20})
	k.letGo()
	w.timer = time.AfterFunc(time.Hour, w.flushInTime)
	for end := time.Now().Add(patience); k.calls < 3 && time.Now().Before(end); {
		mustWrite(t, w, nil, world.dest[0])
		w.timer.Stop() // as if it never ran
	}
	if k.calls < 3 {
		t.Errorf("%d calls in %v", k.calls, patience)
	}
}

// TestWriterDelayForever: with MaxDelay below 0, nothing leaves before the
// Writer is full, by messages or by bytes, or flushed.
func TestWriterDelayForever(t *testing.T) {
	fill := func(t *testing.T, cfg WriterConfig, size, n int) {
		cfg.MaxDelay = -1
		world, w, k := heldKernel(t, nil, &cfg)
		k.letGo()
		for range 3 {
			for range n - 1 {
				mustWrite(t, w, make([]byte, size), world.dest[0])
			}
			time.Sleep(5 * time.Millisecond)
			before := k.calls
			mustWrite(t, w, make([]byte, size), world.dest[0])
			if before != 0 || len(k.taken) != n {
				t.Fatalf("%d calls before the last, %d messages after it; want 0, %d", before, len(k.taken), n)
			}
			mustWrite(t, w, make([]byte, size), world.dest[0])
			if err := w.Flush(nil); err != nil {
				t.Fatal(err)
			}
			if len(k.taken) != n+1 {
				t.Fatalf("%d after Flush, want %d", len(k.taken), n+1)
			}
			k.calls, k.taken = 0, nil
		}
	}
	t.Run("messages", func(t *testing.T) { fill(t, WriterConfig{MaxMessages: 10}, 100, 10) })
	t.Run("bytes", func(t *testing.T) { fill(t, WriterConfig{MaxBytes: 1000}, 100, 10) })
	t.Run("default messages", func(t *testing.T) { fill(t, WriterConfig{}, 1, defaultMaxMessages) })
	t.Run("default bytes", func(t *testing.T) { fill(t, WriterConfig{}, 1024, defaultMaxBytes/1024) })
}

// TestWriterBounds: as much is held as MaxMessages and MaxBytes say and no
// more, that which is in the kernel's hands included.
func TestWriterBounds(t *testing.T) {
	tests := []struct {
		name    string
		cfg     WriterConfig
		fit     []int // sizes that fit beside an empty datagram
		tooMuch int
	}{
		{"messages", WriterConfig{MaxMessages: 4}, []int{1, 0, 1}, 0},
		{"bytes", WriterConfig{MaxBytes: 1000}, []int{999, 1, 0, 0}, 1},
		{"bytes at once", WriterConfig{MaxBytes: 1000}, []int{1000}, 1},
		{"larger", WriterConfig{MaxBytes: 1000}, nil, 1001},
		{"default messages", WriterConfig{}, make([]int, defaultMaxMessages-1), 0},
		{"default bytes", WriterConfig{}, []int{60000, 60000, 60000, 60000, defaultMaxBytes - 240000}, 1},
	}
	for _, tt := range tests {
		for _, control := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, control data %v", tt.name, control), func(t *testing.T) {
				testBounds(t, &tt.cfg, tt.fit, tt.tooMuch, control)
			})
		}
	}
}

// testBounds makes sure that what fits is accepted beside an empty datagram,
// too much is not, and an empty Writer takes that too. The sizes are those of
// payloads, or of control data.
func testBounds(t *testing.T, cfg *WriterConfig, fit []int, tooMuch int, control bool) {
	world, w, k := heldKernel(t, &Config{NonBlocking: true}, cfg)
	k.busy(t, w, world.dest[0])
	write := func(size int) error {
		if control {
			_, _, err := w.WriteMsgUDPAddrPort(nil, make([]byte, size), world.dest[0])
			return err
		}
		_, err := w.WriteToUDPAddrPort(make([]byte, size), world.dest[0])
		return err
	}
	for _, size := range fit {
		if err := write(size); err != nil {
			t.Fatalf("%d bytes: %v", size, err)
		}
	}
	checkError(t, write(tooMuch), ErrWouldBlock)
	if got := world.conn.Stats().WouldBlock; got != 1 {
		t.Errorf("Stats().WouldBlock = %d, want 1", got)
	}
	k.letGo()
	if err := w.Flush(nil); err != nil {
		t.Fatal(err)
	}
	w.mu.Lock()
	if w.held.messages != 0 || w.held.bytes != 0 {
		t.Errorf("an empty Writer holds %d messages, %d bytes", w.held.messages, w.held.bytes)
	}
	w.mu.Unlock()
	if err := write(tooMuch); err != nil {
		t.Errorf("into an empty Writer: %v", err)
	}
}

// TestWriterBuffer: it grows as it is needed, whatever MaxBytes allows.
func TestWriterBuffer(t *testing.T) {
	world, w, k := heldKernel(t, nil, &WriterConfig{MaxBytes: math.MaxInt, MaxMessages: math.MaxInt, MaxDelay: -1})
	k.letGo()
	w.held.spares = []*heldMessages{new(heldMessages)} // none that has grown already
	var want [][]byte
	for i := range 200 {
		p := contents(i, 1000)
		want = append(want, p)
		mustWrite(t, w, p, world.dest[0])
		if n := cap(w.held.filling.buf); n < minHeldBuffer || n > 2*max(minHeldBuffer, 1000*(i+1)) {
			t.Fatalf("%d datagrams are held in %d bytes", i+1, n)
		}
	}
	if err := w.Flush(nil); err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(k.taken, want, bytes.Equal) {
		t.Errorf("%d left, want %d, or others", len(k.taken), len(want))
	}
}

// TestWriterOutgrown: buffers that were too small are not kept.
func TestWriterOutgrown(t *testing.T) {
	const size = 8 << 20
	world, w, k := heldKernel(t, nil, &WriterConfig{MaxBytes: size, MaxMessages: 1 << 20, MaxDelay: -1})
	k.play = func(_ int, ms []ipv4.Message) (int, error) {
		k.taken = nil
		return len(ms), nil
	}
	live := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := live()
	for range 2 {
		for range size/1000 - 1 {
			mustWrite(t, w, make([]byte, 1000), world.dest[0])
		}
		if err := w.Flush(nil); err != nil {
			t.Fatal(err)
		}
	}
	k.taken = nil
	if kept := int64(live() - before); kept > 5*size/2 {
		t.Errorf("%d bytes are kept of an empty Writer with MaxBytes %d", kept, size)
	}
	runtime.KeepAlive(w)
}

// TestWriterTriesFirst: a write that may not wait sends what is held before it
// says that there is no room.
func TestWriterTriesFirst(t *testing.T) {
	world, w, k := heldKernel(t, &Config{NonBlocking: true, GSO: GSOOff}, &WriterConfig{MaxDelay: -1, MaxBytes: 100})
	k.letGo()
	mustWrite(t, w, make([]byte, 40), world.dest[0])
	mustWrite(t, w, make([]byte, 90), world.dest[0])
}

// TestWriterRoomIsTaken: a write that sends for itself, and then finds that as
// much came as has left, goes on when that has left too.
func TestWriterRoomIsTaken(t *testing.T) {
	for _, delay := range []time.Duration{-1, time.Hour} {
		world, w, k := heldKernel(t, nil, &WriterConfig{MaxDelay: delay, MaxBytes: 6000})
		pass := make(chan struct{})
		k.play = func(call int, ms []ipv4.Message) (int, error) {
			if call <= 2 {
				k.entered <- struct{}{}
				<-pass
			}
			return len(ms), nil
		}
		for range 2 * sendChunk {
			mustWrite(t, w, make([]byte, 10), world.dest[0])
		}
		done := make(chan error, 1)
		go func() {
			_, err := w.WriteToUDPAddrPort(make([]byte, 5500), world.dest[0])
			done <- err
		}()
		receive(t, "the first chunk", k.entered)
		pass <- struct{}{}
		receive(t, "the second chunk", k.entered)
		for range 100 {
			mustWrite(t, w, make([]byte, 10), world.dest[0])
		}
		pass <- struct{}{}
		if err := receive(t, "the write", done); err != nil {
			t.Error(err)
		}
	}
}

// TestWriterLongest: datagrams of every length that the protocol allows are
// taken, whatever MaxBytes is, and longer ones rejected at once.
func TestWriterLongest(t *testing.T) {
	forEachKind(t, 3, nil, func(t *testing.T, world *world) {
		w := NewWriter(world.conn, &WriterConfig{MaxBytes: 1000})
		for i, in := range world.inboxes {
			to, longest := world.dest[i], 65507
			if in.addr.Addr().Is6() {
				longest = 65527
			}
			var want [][]byte
			for j, size := range []int{longest, 0, 1, longest, longest, 999, 1000, 1001, 0} {
				want = append(want, contents(j, size))
				if n, err := writeLetter(w, world, j, want[j], to); n != size || err != nil {
					t.Fatalf("%d bytes: %d, %v", size, n, err)
				}
				if err := w.Flush(nil); err != nil {
					t.Fatalf("%d bytes: %v", size, err)
				}
			}
			_, err := writeLetter(w, world, i, make([]byte, longest+1), to)
			checkError(t, err, syscall.EMSGSIZE)
			if bufferSize(in.conn) > 1<<20 {
				in.expect(t, want)
			}
		}
	})
}

// TestWriterRejectsAtOnce: what can be known to be wrong with a write is its
// result, and nobody else hears of it.
func TestWriterRejectsAtOnce(t *testing.T) {
	forEachKind(t, 1, nil, func(t *testing.T, world *world) {
		w := NewWriter(world.conn, &WriterConfig{OnError: func(to netip.AddrPort, err error) { t.Errorf("OnError(%v, %v)", to, err) }})
		for _, bad := range badWrites(w, world) {
			n, err := bad.write()
			if n != 0 {
				t.Errorf("%s: n = %d", bad.name, n)
			}
			checkError(t, err, bad.want)
		}
		for _, foreign := range []net.Addr{nil, &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}} {
			if n, err := w.WriteTo([]byte("x"), foreign); n != 0 || !errors.Is(err, syscall.EINVAL) {
				t.Errorf("WriteTo(%T) = %d, %v; want EINVAL", foreign, n, err)
			}
		}
		if err := w.Flush(nil); err != nil {
			t.Errorf("Flush = %v", err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		_, err := writeLetter(w, world, 0, []byte("x"), world.dest[0])
		checkError(t, err, net.ErrClosed)
		world.inboxes[0].expect(t, nil)
	})
}

// A badWrite is one that must be rejected.
type badWrite struct {
	name  string
	want  error
	write func() (n int, err error)
}

// badWrites are those of a Writer: a destination on a connected one, none on
// one that is not, and the wrong family.
func badWrites(w *Writer, world *world) []badWrite {
	p, none := []byte("x"), netip.AddrPort{}
	some := netip.MustParseAddrPort("127.0.0.1:9")
	udp, v6 := net.UDPAddrFromAddrPort(some), netip.MustParseAddrPort("[::1]:9")
	msg := func(n, oobn int, err error) (int, error) { return n + oobn, err }
	if want := net.ErrWriteToConnected; world.connected {
		return []badWrite{
			{"WriteTo", want, func() (int, error) { return w.WriteTo(p, udp) }},
			{"WriteToUDP", want, func() (int, error) { return w.WriteToUDP(p, udp) }},
			{"WriteToUDP, nil", want, func() (int, error) { return w.WriteToUDP(p, nil) }},
			{"WriteToUDPAddrPort", want, func() (int, error) { return w.WriteToUDPAddrPort(p, none) }},
			{"WriteMsgUDP", want, func() (int, error) { return msg(w.WriteMsgUDP(p, p, udp)) }},
			{"WriteMsgUDPAddrPort", want, func() (int, error) { return msg(w.WriteMsgUDPAddrPort(p, p, some)) }},
		}
	}
	want := syscall.EDESTADDRREQ
	bad := []badWrite{
		{"Write", want, func() (int, error) { return w.Write(p) }},
		{"WriteTo", want, func() (int, error) { return w.WriteTo(p, (*net.UDPAddr)(nil)) }},
		{"WriteToUDP", want, func() (int, error) { return w.WriteToUDP(p, nil) }},
		{"WriteToUDPAddrPort", want, func() (int, error) { return w.WriteToUDPAddrPort(p, none) }},
		{"WriteMsgUDP", want, func() (int, error) { return msg(w.WriteMsgUDP(p, p, nil)) }},
		{"WriteMsgUDPAddrPort", want, func() (int, error) { return msg(w.WriteMsgUDPAddrPort(p, p, none)) }},
	}
	if !world.v6 {
		bad = append(bad,
			badWrite{"WriteToUDPAddrPort, IPv6", errAnyAddr, func() (int, error) { return w.WriteToUDPAddrPort(p, v6) }},
			badWrite{"WriteTo, IPv6", errAnyAddr, func() (int, error) { return w.WriteTo(p, net.UDPAddrFromAddrPort(v6)) }})
	}
	return bad
}

// TestWriterAllocs: once it has grown, a Writer allocates nothing.
func TestWriterAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops at random under -race")
	}
	if !sys.HaveBatchCall {
		t.Skip("each datagram of the portable path allocates")
	}
	world := plainKind.world(t, 64, nil)
	p, udp := make([]byte, 1200), net.UDPAddrFromAddrPort(world.dest[0])
	control := (&ipv4.ControlMessage{Src: net.IPv4(127, 0, 0, 1)}).Marshal()
	for _, cfg := range []WriterConfig{{}, {MaxMessages: 10}, {MaxDelay: time.Hour}, {MaxDelay: -1}} {
		w := NewWriter(world.conn, &cfg)
		burst := func() {
			for i := range 500 {
				w.WriteToUDPAddrPort(p, world.dest[i%64])
				w.WriteTo(p, udp)
				w.WriteMsgUDPAddrPort(p, control, world.dest[i%64])
			}
			if err := w.Flush(nil); err != nil {
				t.Fatal(err)
			}
		}
		n := testing.AllocsPerRun(20, burst)
		for try := 0; n != 0 && try < 5; try++ { // a collection in between empties the pools
			n = testing.AllocsPerRun(20, burst)
		}
		if n != 0 {
			t.Errorf("%+v: %v allocations per 1500 writes and a Flush", cfg, n)
		}
	}
}

// TestWriterWaitingAllocs: nor does waiting for room allocate, with a deadline
// or without, however many wait.
func TestWriterWaitingAllocs(t *testing.T) {
	if raceEnabled {
		t.Skip("sync.Pool drops at random under -race")
	}
	world := plainKind.world(t, 1, &Config{GSO: GSOOff})
	follow(world.conn, func(_ int, ms []ipv4.Message) (int, error) { return len(ms), nil })
	for _, deadline := range []time.Time{{}, time.Now().Add(time.Hour)} {
		w := NewWriter(world.conn, &WriterConfig{MaxMessages: 4})
		w.SetWriteDeadline(deadline)
		const writers, each = 64, 500
		var wg sync.WaitGroup
		round := func() {
			for range writers {
				wg.Go(func() {
					for range each {
						w.WriteToUDPAddrPort(nil, world.dest[0])
					}
				})
			}
			wg.Wait()
		}
		round()
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		round()
		runtime.ReadMemStats(&after)
		n := after.Mallocs - before.Mallocs // of the goroutines, and of the script
		t.Logf("%d allocations in %d writes, deadline %v", n, writers*each, deadline)
		if n > writers*each/10 {
			t.Errorf("%d allocations in %d writes", n, writers*each)
		}
	}
}

// TestWriterKeepsNoBuffers: a Writer that holds nothing keeps no buffer, unless
// its limits are above the default; then it keeps two at most.
func TestWriterKeepsNoBuffers(t *testing.T) {
	world := plainKind.world(t, 1, nil)
	for _, tt := range []struct {
		cfg  WriterConfig
		keep bool
	}{{WriterConfig{}, false}, {WriterConfig{MaxBytes: 4 << 20, MaxMessages: 1 << 20, MaxDelay: -1}, true}} {
		w := NewWriter(world.conn, &tt.cfg)
		for range 3 {
			for range 2000 {
				mustWrite(t, w, make([]byte, 300), world.dest[0])
			}
			if err := w.Flush(nil); err != nil {
				t.Fatal(err)
			}
			w.mu.Lock()
			h := &w.held
			if kept := len(h.spares); h.filling != nil || h.leaving != nil || (kept > 0) != tt.keep || kept > 2 {
				t.Errorf("%+v: %v, %v and %d buffers are kept", tt.cfg, h.filling != nil, h.leaving != nil, kept)
			}
			w.mu.Unlock()
		}
	}
}

// TestWriterAloneIsFirst: the datagram of an idle Writer, of which there is no
// copy yet, leaves before those that are written while it finds no room.
func TestWriterAloneIsFirst(t *testing.T) {
	for full := range 4 { // calls that find no room
		world := plainKind.world(t, 1, nil)
		entered, goOn := make(chan struct{}), make(chan struct{})
		s := follow(world.conn, func(call int, ms []ipv4.Message) (int, error) {
			if call == 1 {
				close(entered)
				<-goOn
			}
			if call <= full {
				return 0, os.NewSyscallError("sendmmsg", sys.EWOULDBLOCK)
			}
			return len(ms), nil
		})
		w := NewWriter(world.conn, nil)
		written := make(chan struct{})
		go func() {
			defer close(written)
			p := contents(0, 20)
			mustWrite(t, w, p, world.dest[0])
			clear(p) // it is the caller's again
		}()
		<-entered
		for i := 1; i < 10; i++ {
			mustWrite(t, w, contents(i, 20), world.dest[0])
		}
		close(goOn)
		<-written
		if err := w.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		var arrived []byte
		for _, p := range s.taken {
			arrived = append(arrived, p...)
		}
		for i := range 10 {
			if want := contents(i, 20); len(arrived) != 200 || string(arrived[20*i:20*i+20]) != string(want) {
				t.Fatalf("%d calls without room: datagram %d is not in its place, of %d bytes", full, i, len(arrived))
			}
		}
		w.Close()
	}
}

// TestWriterOrder: datagrams of one goroutine to one destination leave in the
// order of writing, each once, also while others write and flush.
func TestWriterOrder(t *testing.T) {
	const writers, each, dests = 8, 2000, 3
	for _, cfg := range []WriterConfig{{}, {MaxMessages: 5}, {MaxDelay: time.Millisecond}} {
		world, w, k := heldKernel(t, &Config{}, &cfg)
		k.letGo()
		stop := make(chan struct{})
		var flushing, writing sync.WaitGroup
		flushing.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if err := w.Flush(nil); err != nil {
						t.Error(err)
					}
					runtime.Gosched()
				}
			}
		})
		for g := range writers {
			writing.Go(func() {
				for i := range each {
					p := binary.BigEndian.AppendUint32([]byte{byte(g), byte(i % dests)}, uint32(i))
					if _, err := w.WriteToUDPAddrPort(p, world.dest[i%dests]); err != nil {
						t.Error(err)
					}
				}
			})
		}
		writing.Wait()
		close(stop)
		flushing.Wait()
		if err := w.Flush(nil); err != nil {
			t.Fatal(err)
		}
		if n := checkOrder(t, k.taken, dests); n != writers*each {
			t.Fatalf("%+v: %d left, want %d", cfg, n, writers*each)
		}
	}
}

// checkOrder makes sure that each writer's datagrams left in the order of
// writing, each to the next of dests destinations, and returns how many did.
func checkOrder(t *testing.T, taken [][]byte, dests int) (n int) {
	t.Helper()
	next := map[[2]byte]int{} // of a writer to a destination
	for _, p := range taken { // a segmented one is several of ours
		for ; len(p) >= 6; p = p[6:] {
			flow, i := [2]byte(p), int(binary.BigEndian.Uint32(p[2:]))
			if want := next[flow]*dests + int(flow[1]); i != want {
				t.Fatalf("writer %d to %d: %d left, want %d", flow[0], flow[1], i, want)
			}
			next[flow]++
			n++
		}
	}
	return n
}

// TestWriterCoalesces: 64 flows whose datagrams come one by one leave in
// segmented messages.
func TestWriterCoalesces(t *testing.T) {
	const flows, rounds = 64, 16
	world := plainKind.world(t, flows, nil)
	if s := world.conn.Stats(); !s.GSO {
		t.Skip("no segmentation here: ", s.GSOReason)
	}
	w := NewWriter(world.conn, &WriterConfig{MaxDelay: -1})
	want := make([][][]byte, flows)
	for i := range flows * rounds {
		p := contents(i, 100)
		want[i%flows] = append(want[i%flows], p)
		mustWrite(t, w, p, world.dest[i%flows])
	}
	if err := w.Flush(nil); err != nil {
		t.Fatal(err)
	}
	if s := world.conn.Stats(); s.Segmented != flows*rounds || s.Calls > flows*rounds/sendChunk {
		t.Errorf("%d of %d segmented, in %d calls", s.Segmented, flows*rounds, s.Calls)
	}
	for i, in := range world.inboxes {
		in.expect(t, want[i])
	}
}

// checkArranged makes sure that out holds what in does, in an order in which each
// destination's is kept and destinations take turns of at most 64.
func checkArranged(t testing.TB, in, out []OutputMessage) {
	t.Helper()
	if len(in) != len(out) {
		t.Fatalf("%d of %d", len(out), len(in))
	}
	key := func(m OutputMessage) netip.AddrPort {
		return netip.AddrPortFrom(m.Addr.Addr().Unmap(), m.Addr.Port())
	}
	left := map[netip.AddrPort]int{} // how many are still to come
	for i := range in {
		in[i].BytesSent = i
		left[key(in[i])]++
	}
	last := map[netip.AddrPort]int{}
	seen := make([]bool, len(in))
	newest := -1 // the first message of the last destination that was new
	for i, n := 0, 0; i < len(out); i++ {
		m := out[i]
		if seen[m.BytesSent] || in[m.BytesSent].Addr != m.Addr {
			t.Fatalf("message %d is there twice, or another", m.BytesSent)
		}
		seen[m.BytesSent] = true
		k := key(m)
		prev, ok := last[k]
		if ok && prev > m.BytesSent {
			t.Fatalf("to %v: message %d before %d", k, prev, m.BytesSent)
		}
		if !ok {
			if m.BytesSent < newest {
				t.Fatalf("to %v: its first message is %d, and its turn after that of %d", k, m.BytesSent, newest)
			}
			newest = m.BytesSent
		}
		last[k] = m.BytesSent
		if n++; i > 0 && key(out[i-1]) != k {
			n = 1
		}
		left[k]--
		if n > 64 && len(left) > 1 {
			t.Fatalf("%d to %v in a row while others wait", n, k)
		}
		if left[k] == 0 {
			delete(left, k)
		}
	}
}

func FuzzWriterArrange(f *testing.F) {
	f.Add([]byte{}, uint8(1))
	f.Add([]byte{0, 0, 1, 0, 2, 1}, uint8(1))
	f.Add(bytes.Repeat([]byte{0, 1, 2, 3, 4, 5}, 50), uint8(3))
	f.Add([]byte{1, 65, 2, 65, 1, 2, 65}, uint8(2))
	f.Add(append(bytes.Repeat([]byte{9}, 200), 1, 2, 1), uint8(1))
	var table flowTable // the same, as a Writer does it
	f.Fuzz(func(t *testing.T, flows []byte, times uint8) {
		var in []OutputMessage
		for range times {
			for _, f := range flows {
				addr := netip.AddrFrom4([4]byte{127, 0, 0, f & 63})
				if f&64 != 0 {
					addr = netip.AddrFrom16(addr.As16()) // the same destination
				}
				in = append(in, OutputMessage{Addr: netip.AddrPortFrom(addr, uint16(f>>7))})
			}
		}
		for i := range in {
			in[i].BytesSent = i
		}
		checkArranged(t, in, slices.Clone(table.arrange(in)))
	})
}

func TestWriterArrange(t *testing.T) {
	var table flowTable
	for round := range 200 {
		in := make([]OutputMessage, rand.IntN(2000))
		flows := 1 + rand.IntN(1+round)
		for i := range in {
			in[i].Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127}), uint16(rand.IntN(flows)))
			in[i].BytesSent = i
		}
		checkArranged(t, in, slices.Clone(table.arrange(in)))
	}
}

// BenchmarkWriterGoroutines: one Writer, and a bare connection, shared by more
// and more goroutines that write one datagram after the other.
func BenchmarkWriterGoroutines(b *testing.B) {
	to := sinks(b, 1)[0]
	for _, goroutines := range []int{1, 2, 8, 32, 128, 512} {
		c, u := benchConn(b, nil)
		w := NewWriter(c, nil)
		share := func(b *testing.B, write func([]byte, netip.AddrPort) (int, error)) {
			b.ReportAllocs()
			var wg sync.WaitGroup
			for g := range goroutines {
				wg.Go(func() {
					p := make([]byte, 1200)
					for range (b.N + g) / goroutines {
						if _, err := write(p, to); err != nil {
							b.Error(err)
						}
					}
				})
			}
			wg.Wait()
		}
		compare(b, fmt.Sprint(goroutines), func(b *testing.B) { share(b, u.WriteToUDPAddrPort) }, func(b *testing.B) {
			share(b, w.WriteToUDPAddrPort)
			if err := w.Flush(nil); err != nil {
				b.Fatal(err)
			}
		})
	}
}

// failures are what OnError was told.
type failures struct {
	mu   sync.Mutex
	to   []netip.AddrPort
	errs []error
}

func (f *failures) add(to netip.AddrPort, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.to, f.errs = append(f.to, to), append(f.errs, err)
}

// TestWriterReports: each datagram that cannot be sent is reported with its
// address, the others go, and Flush returns the first error, once.
func TestWriterReports(t *testing.T) {
	for _, mode := range []GSOMode{GSOAuto, GSOOff} {
		world := plainKind.world(t, 4, &Config{GSO: mode})
		refuseLowPorts(world.conn)
		var failed failures
		w := NewWriter(world.conn, &WriterConfig{MaxDelay: -1, OnError: failed.add})
		want := make([][][]byte, 4)
		var bad []netip.AddrPort
		for i := range 700 {
			p, to := contents(i, 20), world.dest[i%4]
			if i%7 == 3 {
				to = netip.AddrPortFrom(to.Addr(), uint16(i%3))
				bad = append(bad, to)
			} else {
				want[i%4] = append(want[i%4], p)
			}
			mustWrite(t, w, p, to)
		}
		err := w.Flush(nil)
		failed.checkLowPorts(t, bad)
		if err != failed.errs[0] {
			t.Errorf("Flush = %v, want the first that was reported, %v", err, failed.errs[0])
		}
		if err := w.Flush(nil); err != nil {
			t.Errorf("a second Flush = %v", err)
		}
		if s := world.conn.Stats(); s.Failed != uint64(len(bad)) || s.Messages != uint64(700-len(bad)) {
			t.Errorf("Stats: %d failed, %d sent; want %d, %d", s.Failed, s.Messages, len(bad), 700-len(bad))
		}
		for i, in := range world.inboxes {
			in.expect(t, want[i])
		}
		mustWrite(t, w, nil, netip.AddrPortFrom(world.dest[0].Addr(), 0))
		if err := w.Close(); !errors.Is(err, syscall.EPERM) {
			t.Errorf("Close = %v, want the first error since Flush", err)
		}
	}
}

// lowPortErrors are the errors of ports 0 to 2.
var lowPortErrors = []error{syscall.EPERM, syscall.ENOBUFS, syscall.EINVAL}

// refuseLowPorts has a Conn's kernel refuse what goes to port 0, 1 or 2.
func refuseLowPorts(c *Conn) {
	port := func(m ipv4.Message) int { return m.Addr.(*net.UDPAddr).Port }
	k := follow(c, nil)
	k.play = func(_ int, ms []ipv4.Message) (int, error) {
		i := slices.IndexFunc(ms, func(m ipv4.Message) bool { return port(m) < len(lowPortErrors) })
		if i == 0 {
			return 0, os.NewSyscallError("sendmmsg", lowPortErrors[port(ms[0])])
		}
		if i > 0 {
			ms = ms[:i]
		}
		return k.adapter.writeBatch(ms, 0)
	}
}

// checkLowPorts makes sure that OnError was told of all of bad, each with the
// error of its port.
func (f *failures) checkLowPorts(t *testing.T, bad []netip.AddrPort) {
	t.Helper()
	if len(f.errs) != len(bad) {
		t.Fatalf("%d reported, want %d", len(f.errs), len(bad))
	}
	for i, to := range f.to {
		checkError(t, f.errs[i], lowPortErrors[to.Port()])
	}
	bad, told := slices.Clone(bad), slices.Clone(f.to)
	slices.SortFunc(bad, netip.AddrPort.Compare)
	slices.SortFunc(told, netip.AddrPort.Compare)
	if !slices.Equal(bad, told) {
		t.Errorf("reported: %v, want %v", told, bad)
	}
}

// TestWriterOddErrors: an error that belongs to no message, whatever it is,
// neither loses a datagram nor stops the Writer.
func TestWriterOddErrors(t *testing.T) {
	odd := errors.New("odd")
	world := plainKind.world(t, 1, nil)
	k := follow(world.conn, func(call int, ms []ipv4.Message) (int, error) {
		if call == 1 {
			return 0, odd
		}
		return len(ms), nil
	})
	var failed failures
	w := NewWriter(world.conn, &WriterConfig{MaxDelay: -1, OnError: failed.add})
	for range 3 {
		mustWrite(t, w, nil, world.dest[0])
	}
	checkError(t, w.Flush(nil), odd)
	if len(failed.errs) != 3 || len(k.taken) != 0 {
		t.Errorf("%d reported, %d sent", len(failed.errs), len(k.taken))
	}

	pending := os.NewSyscallError("sendmmsg", refused)
	world.conn.send.pending.add(ended(pending)) // met by a SendMessages on the same Conn
	mustWrite(t, w, nil, world.dest[0])
	if err := w.Flush(nil); !errors.Is(err, pending) || len(k.taken) != 1 || len(failed.errs) != 3 {
		t.Errorf("Flush = %v with %d sent, %d reported; want the pending error and the datagram", err, len(k.taken), len(failed.errs))
	}
}

// TestWriterBehindItsBack: when somebody sets the Conn's own deadline or closes
// it, what is held is reported.
func TestWriterBehindItsBack(t *testing.T) {
	world := plainKind.world(t, 1, nil)
	var failed failures
	w := NewWriter(world.conn, &WriterConfig{MaxDelay: -1, OnError: failed.add})
	world.conn.SetWriteDeadline(time.Now().Add(-1))
	for range 300 {
		mustWrite(t, w, nil, world.dest[0])
	}
	checkError(t, w.Flush(nil), os.ErrDeadlineExceeded)
	if len(failed.errs) != 300 {
		t.Errorf("%d reported", len(failed.errs))
	}
	world.conn.SetWriteDeadline(time.Time{})
	mustWrite(t, w, nil, world.dest[0])
	if err := w.Flush(nil); err != nil {
		t.Error(err)
	}
	mustWrite(t, w, nil, world.dest[0])
	world.conn.Close()
	_, err := w.WriteToUDPAddrPort(nil, world.dest[0])
	checkError(t, err, net.ErrClosed)
	checkError(t, w.Flush(nil), net.ErrClosed)
	if err := w.Close(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Close = %v", err)
	}
	if len(failed.errs) != 301 || !errors.Is(failed.errs[300], net.ErrClosed) {
		t.Errorf("%d reported, last %v", len(failed.errs), failed.errs[len(failed.errs)-1])
	}
}

// waitingCalls are the calls that wait when a Writer is full and its sender
// does not come on.
func waitingCalls(w *Writer, to netip.AddrPort) map[string]func() error {
	return map[string]func() error{
		"Flush": func() error { return w.Flush(nil) },
		"Write": func() error { _, err := w.WriteToUDPAddrPort(nil, to); return err },
	}
}

// fullWriter is a Writer that is full.
func fullWriter(t *testing.T) (*world, *Writer, *kernel) {
	world, w, k := heldKernel(t, nil, &WriterConfig{MaxMessages: 2})
	k.busy(t, w, world.dest[0])
	mustWrite(t, w, nil, world.dest[0])
	return world, w, k
}

// TestWriterDeadline: the Writer's write deadline ends the waiting of writes
// and of Flush, wherever it is moved meanwhile, and nothing that was accepted.
func TestWriterDeadline(t *testing.T) {
	world, w, k := fullWriter(t)
	for name, call := range waitingCalls(w, world.dest[0]) {
		t.Run(name, func(t *testing.T) { testWriterDeadline(t, w, call) })
	}
	w.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
	cleared := aside(waitingCalls(w, world.dest[0])["Write"])
	awaitWaiters(t, w, 1)
	w.SetWriteDeadline(time.Time{})
	select {
	case err := <-cleared:
		t.Fatalf("ended by a deadline that was cleared: %v", err)
	case <-time.After(150 * time.Millisecond):
	}
	k.letGo()
	if err := receive(t, "room", cleared); err != nil {
		t.Error(err)
	}
	if err := w.Flush(nil); err != nil {
		t.Error(err)
	}
	w.SetWriteDeadline(time.Now().Add(-time.Second)) // bounds only waiting
	mustWrite(t, w, nil, world.dest[0])
	w.SetWriteDeadline(time.Time{})
	if err := w.Flush(nil); err != nil || len(k.taken) != 4 {
		t.Errorf("Flush = %v, %d sent; want 4", err, len(k.taken))
	}
	if err := w.writerConn.send.queue.ends.check(nil); err != nil {
		t.Errorf("the Conn itself: %v", err)
	}
}

// aside calls f in another goroutine.
func aside(f func() error) <-chan error {
	ch := make(chan error, 1)
	go func() { ch <- f() }()
	return ch
}

// testWriterDeadline: a call that waits ends at the deadline, wherever it is
// moved.
func testWriterDeadline(t *testing.T, w *Writer, call func() error) {
	w.SetWriteDeadline(time.Now().Add(-time.Second))
	checkError(t, call(), os.ErrDeadlineExceeded)
	start := time.Now()
	w.SetDeadline(start.Add(20 * time.Millisecond))
	checkError(t, call(), os.ErrDeadlineExceeded)
	if time.Since(start) < 20*time.Millisecond {
		t.Error("too early")
	}

	w.SetWriteDeadline(time.Now().Add(time.Hour))
	sooner := aside(call)
	awaitWaiters(t, w, 1)
	w.SetWriteDeadline(time.Now().Add(time.Millisecond))
	checkError(t, receive(t, "the sooner deadline", sooner), os.ErrDeadlineExceeded)

	start = time.Now()
	w.SetWriteDeadline(start.Add(50 * time.Millisecond))
	later := aside(call)
	awaitWaiters(t, w, 1)
	w.SetWriteDeadline(start.Add(150 * time.Millisecond))
	checkError(t, receive(t, "the later deadline", later), os.ErrDeadlineExceeded)
	if time.Since(start) < 150*time.Millisecond {
		t.Error("before the deadline it was moved to")
	}
}

// TestWriterFlushContext: Flush ends with its context, before and while it
// waits; what is held is sent all the same.
func TestWriterFlushContext(t *testing.T) {
	_, w, k := fullWriter(t)
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(10*time.Millisecond, cancel)
	checkError(t, w.Flush(ctx), context.Canceled)
	checkError(t, w.Flush(ctx), context.Canceled)
	k.letGo()
	if err := w.Flush(t.Context()); err != nil || len(k.taken) != 2 {
		t.Errorf("Flush = %v, %d sent", err, len(k.taken))
	}
}

// TestWriterFlushTarget: Flush waits for what was written before it and not for
// what is written on and on.
func TestWriterFlushTarget(t *testing.T) {
	world, w, k := heldKernel(t, nil, nil)
	k.letGo()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					w.WriteToUDPAddrPort(nil, world.dest[1])
				}
			}
		})
	}
	for range 100 {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		if err := w.Flush(ctx); err != nil {
			t.Fatal(err)
		}
		cancel()
	}
	close(stop)
	wg.Wait()
}

// TestWriterQueueOrder: room goes to the write that came first, even if one
// that came later would fit.
func TestWriterQueueOrder(t *testing.T) {
	world, w, k := heldKernel(t, nil, &WriterConfig{MaxBytes: 1000})
	k.busy(t, w, world.dest[0])
	mustWrite(t, w, make([]byte, 900), world.dest[0])
	var wg sync.WaitGroup
	sizes := []int{2000, 3000, 100, 10, 950} // for the third there is room
	for i, size := range sizes {
		wg.Go(func() {
			if _, err := w.WriteToUDPAddrPort(make([]byte, size), world.dest[0]); err != nil {
				t.Errorf("%d bytes: %v", size, err)
			}
		})
		awaitWaiters(t, w, i+1)
	}
	k.letGo()
	wg.Wait()
	if err := w.Flush(nil); err != nil {
		t.Error(err)
	}
	var left []int
	for _, p := range k.taken[2:] {
		left = append(left, len(p))
	}
	if !slices.Equal(left, sizes) {
		t.Errorf("left in the order %v, want %v", left, sizes)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.writes.empty() || !w.flushes.empty() {
		t.Error("somebody was left behind in line")
	}
}

// TestWriterLineGoesOn: those that waited behind a write that did not fit go on
// when it gives up, though nothing leaves.
func TestWriterLineGoesOn(t *testing.T) {
	world, w, k := heldKernel(t, nil, &WriterConfig{MaxBytes: 1000, MaxDelay: -1})
	for range 50 {
		mustWrite(t, w, make([]byte, 10), world.dest[0])
	}
	go w.Flush(nil)
	receive(t, "a call to the kernel", k.entered)
	large, others := make(chan error, 1), make(chan error, 20)
	write := func(size int, result chan<- error) {
		_, err := w.WriteToUDPAddrPort(make([]byte, size), world.dest[0])
		result <- err
	}
	go write(600, large)
	awaitWaiters(t, w, 1)
	for range 20 {
		go write(10, others)
	}
	awaitWaiters(t, w, 21)
	w.mu.Lock()
	w.deadline = 1 // has passed, and the first learns of it
	w.writes.first.wake()
	w.mu.Unlock()
	checkError(t, receive(t, "the deadline of the first", large), os.ErrDeadlineExceeded)
	for range 20 {
		if err := receive(t, "the others", others); err != nil {
			t.Error(err)
		}
	}
	if k.calls != 1 {
		t.Errorf("%d calls", k.calls)
	}
}

// TestWriterWakesAsManyAsFit: of many writes that wait, as many are accepted as
// there is room, in the order in which they came, and the others sleep on.
func TestWriterWakesAsManyAsFit(t *testing.T) {
	const waiting, limit = 300, 10
	world, w, k := heldKernel(t, nil, &WriterConfig{MaxMessages: limit})
	pass := make(chan struct{})
	k.play = func(_ int, ms []ipv4.Message) (int, error) {
		k.entered <- struct{}{}
		select {
		case <-pass:
		case <-k.held:
		}
		return len(ms), nil
	}
	k.busy(t, w, world.dest[0])
	for range limit - 1 {
		mustWrite(t, w, nil, world.dest[0])
	}
	done := make(chan byte, waiting)
	for i := range waiting {
		go func() {
			if _, err := w.WriteToUDPAddrPort([]byte{byte(i), byte(i >> 8)}, world.dest[0]); err != nil {
				t.Error(err)
			}
			done <- 0
		}()
		awaitWaiters(t, w, i+1)
	}
	pass <- struct{}{} // the lone datagram
	receive(t, "the first", done)
	receive(t, "the second call", k.entered)
	awaitWaiters(t, w, waiting-1)
	pass <- struct{}{} // what was held
	for range limit {
		receive(t, "as many as fit", done)
	}
	awaitWaiters(t, w, waiting-1-limit)
	k.letGo()
	for range waiting - 1 - limit {
		receive(t, "all", done)
	}
	if err := w.Flush(nil); err != nil {
		t.Fatal(err)
	}
	for i, p := range k.taken[limit:] {
		if got := int(p[0]) | int(p[1])<<8; got != i {
			t.Fatalf("write %d left as number %d", got, i)
		}
	}
}

// TestWriterWakesInChains: the goroutine that makes room wakes the first of
// each maxChain writes that it accepts. Each wakes the next, whoever woke it
// itself.
func TestWriterWakesInChains(t *testing.T) {
	const waiting = 2*maxChain + 3
	world, w, k := heldKernel(t, nil, nil)
	k.busy(t, w, world.dest[0])
	w.mu.Lock()
	w.held.messages += defaultMaxMessages // full
	w.mu.Unlock()
	done, calls := waitingWrites(t, w, waiting, world.dest[0])
	w.mu.Lock()
	w.held.messages -= defaultMaxMessages
	heads := w.acceptInLineLocked(nil)
	w.mu.Unlock()
	if want := []*waitingCall{calls[0], calls[maxChain], calls[2*maxChain]}; !slices.Equal(heads, want) {
		t.Errorf("%d to wake, want those of %d chains", len(heads), len(want))
	}
	wake := func(from, to int) {
		t.Helper()
		calls[from].wake()
		var woken []int
		for range to - from {
			woken = append(woken, receive(t, "a chain", done))
		}
		if slices.Min(woken) != from || slices.Max(woken) != to-1 {
			t.Errorf("%v were woken, want %d to %d", woken, from, to-1)
		}
	}
	wake(2*maxChain, waiting)
	wake(3, maxChain) // as a deadline does that passes now
	wake(0, 3)
	wake(maxChain, 2*maxChain)
	k.letGo()
	if err := w.Flush(nil); err != nil {
		t.Fatal(err)
	}
	if len(k.taken) != 1+waiting {
		t.Errorf("%d left, want %d", len(k.taken), 1+waiting)
	}
}

// waitingWrites has n writes wait for room, one after the other. Each says when
// it has returned.
func waitingWrites(t *testing.T, w *Writer, n int, to netip.AddrPort) (done chan int, calls []*waitingCall) {
	t.Helper()
	done = make(chan int, n)
	for i := range n {
		go func() {
			if _, err := w.WriteToUDPAddrPort(nil, to); err != nil {
				t.Error(err)
			}
			done <- i
		}()
		awaitWaiters(t, w, 1+i)
		w.mu.Lock()
		calls = append(calls, w.writes.last)
		w.mu.Unlock()
	}
	return done, calls
}

// TestWriterOnErrorMayWrite: it is called with no lock held.
func TestWriterOnErrorMayWrite(t *testing.T) {
	world := plainKind.world(t, 1, nil)
	var w *Writer
	w = NewWriter(world.conn, &WriterConfig{OnError: func(netip.AddrPort, error) {
		w.SetWriteDeadline(time.Time{})
		mustWrite(t, w, []byte("instead"), world.dest[0])
	}})
	w.newest = math.MaxInt64 // not idle, or the write would return the error
	follow(world.conn, nil).play = func(call int, ms []ipv4.Message) (int, error) {
		if call == 1 {
			return 0, os.NewSyscallError("sendmmsg", syscall.EPERM)
		}
		return len(ms), nil
	}
	done := make(chan error, 1)
	go func() {
		w.WriteToUDPAddrPort([]byte("bad"), world.dest[0])
		done <- w.Flush(nil)
		w.Flush(nil) // the other
		close(done)
	}()
	checkError(t, receive(t, "OnError", done), syscall.EPERM)
	receive(t, "the other", done)
	if s := world.conn.Stats(); s.Messages != 1 {
		t.Errorf("%d sent", s.Messages)
	}
}

// TestWriterOnErrorGoexit: an OnError that ends its goroutine, as a test's
// FailNow does, takes no lock with it.
func TestWriterOnErrorGoexit(t *testing.T) {
	world := plainKind.world(t, 1, nil)
	w := NewWriter(world.conn, &WriterConfig{MaxDelay: -1, OnError: func(netip.AddrPort, error) { runtime.Goexit() }})
	follow(world.conn, func(int, []ipv4.Message) (int, error) { return 0, os.NewSyscallError("sendmmsg", syscall.EPERM) })
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		w.WriteToUDPAddrPort([]byte("bad"), world.dest[0])
		w.Flush(nil)
	}()
	receive(t, "the goroutine to end", ended)
	if !w.mu.TryLock() {
		t.Fatal("the lock is gone")
	}
	w.mu.Unlock()
}

// TestWriterCloseAwaitsFlusher: one that was started and has not run yet.
func TestWriterCloseAwaitsFlusher(t *testing.T) {
	_, w, k := heldKernel(t, nil, nil)
	k.letGo()
	w.mu.Lock()
	w.turn = flusherDue
	w.mu.Unlock()
	done := make(chan error, 1)
	go func() { done <- w.Close() }()
	awaitWaiters(t, w, 1)
	select {
	case <-done:
		t.Error("Close did not wait")
	case <-time.After(20 * time.Millisecond):
	}
	w.run()
	if err := receive(t, "Close", done); err != nil {
		t.Error(err)
	}
}

// TestWriterClose: Close sends what is held and ends everything.
func TestWriterClose(t *testing.T) {
	forEachKind(t, 1, nil, func(t *testing.T, world *world) {
		before := runtime.NumGoroutine()
		w := NewWriter(world.conn, &WriterConfig{MaxDelay: time.Hour, Linger: time.Hour}) // it waits for neither
		want := [][]byte{contents(0, 50), contents(1, 50), {}}
		for i, p := range want {
			writeLetter(w, world, i, p, world.dest[0])
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		world.inboxes[0].expect(t, want)
		if err := w.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a second Close = %v", err)
		}
		_, err := writeLetter(w, world, 0, nil, world.dest[0])
		checkError(t, err, net.ErrClosed)
		checkError(t, w.Flush(nil), net.ErrClosed)
		for _, err := range []error{w.SetWriteDeadline(time.Time{}), w.SetDeadline(time.Time{}), w.SetReadDeadline(time.Time{})} {
			if !errors.Is(err, net.ErrClosed) {
				t.Errorf("setting a deadline after Close = %v", err)
			}
		}
		if _, err := world.bare.Read(nil); !errors.Is(err, net.ErrClosed) {
			t.Errorf("the Conn is not closed: %v", err)
		}
		awaitGoroutines(t, before)
	})
}

// TestClosedWriterLikeNet: once it is closed, and while Close still waits, a
// Writer says of itself what a net.UDPConn says.
func TestClosedWriterLikeNet(t *testing.T) {
	calls := map[string]func(net.PacketConn) error{
		"Close":            func(c net.PacketConn) error { return c.Close() },
		"SetWriteDeadline": func(c net.PacketConn) error { return c.SetWriteDeadline(time.Time{}) },
		"SetDeadline":      func(c net.PacketConn) error { return c.SetDeadline(time.Time{}) },
	}
	text := func(err error, self net.Addr) string {
		op, ok := err.(*net.OpError)
		if !ok {
			return fmt.Sprintf("%T %v", err, err)
		}
		name := func(a net.Addr) string {
			if a != nil && a.String() == self.String() {
				return "self"
			}
			return fmt.Sprint(a)
		}
		return fmt.Sprint(op.Op, " ", op.Net, " ", name(op.Source), " ", name(op.Addr), " ", errors.Is(err, net.ErrClosed), " ", op.Timeout())
	}
	for _, k := range []kind{plainKind, connectedKind} {
		for _, lingering := range []bool{false, true} {
			world := k.world(t, 1, nil)
			var bare *net.UDPConn
			if k.connected {
				var err error
				if bare, err = net.DialUDP(k.network, nil, world.conn.RemoteAddr().(*net.UDPAddr)); err != nil {
					t.Fatal(err)
				}
			} else {
				bare = listen(t, k.network, k.from)
			}
			self := bare.LocalAddr()
			bare.Close()
			w := NewWriter(world.conn, &WriterConfig{Linger: time.Hour})
			if lingering {
				w.closed = true
			} else if err := w.Close(); err != nil {
				t.Fatal(err)
			}
			for name, call := range calls {
				got, want := text(call(w), w.LocalAddr()), text(call(bare), self)
				if lingering && name == "SetDeadline" {
					continue // its read deadline comes first, which can still be set
				}
				if got != want {
					t.Errorf("%s, lingering %v: %s: %q, want net's %q", k.name, lingering, name, got, want)
				}
			}
		}
	}
}

func awaitGoroutines(t testing.TB, n int) {
	t.Helper()
	for end := time.Now().Add(patience); runtime.NumGoroutine() > n; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines, %d before\n%s", runtime.NumGoroutine(), n, buf[:runtime.Stack(buf, true)])
		}
	}
}

// TestWriterCloseBusy: a Close ends the writes and Flushes that wait, and waits
// for the goroutine that is in the kernel; what was held is sent, once.
func TestWriterCloseBusy(t *testing.T) {
	for _, linger := range []time.Duration{time.Hour, -1} {
		world, w, k := heldKernel(t, nil, &WriterConfig{MaxMessages: 2, Linger: linger})
		k.busy(t, w, world.dest[0])
		mustWrite(t, w, nil, world.dest[0])
		calls := waitingCalls(w, world.dest[0])
		errs := make(chan error, 20)
		for range 5 {
			for _, call := range calls {
				go func() { errs <- call() }()
			}
		}
		awaitWaiters(t, w, 10)
		closed := make(chan error, 1)
		go func() { closed <- w.Close() }()
		for range 10 {
			checkError(t, receive(t, "Close to end what waits", errs), net.ErrClosed)
		}
		awaitWaiters(t, w, 1) // Close
		if err := w.Close(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("a second Close while the first waits = %v", err)
		}
		k.letGo()
		if err := receive(t, "Close", closed); err != nil || len(k.taken) != 2 {
			t.Errorf("Linger %v: Close = %v, %d sent; want 2", linger, err, len(k.taken))
		}
	}
}

// TestWriterCloseSendsWhatFits: a Close that does not linger still sends all
// for which there is room, in whichever part it is held.
func TestWriterCloseSendsWhatFits(t *testing.T) {
	world := plainKind.world(t, 1, nil)
	var full atomic.Bool
	full.Store(true)
	k := follow(world.conn, func(_ int, ms []ipv4.Message) (int, error) {
		if full.Load() {
			return 0, os.NewSyscallError("sendmmsg", sys.EWOULDBLOCK)
		}
		return len(ms), nil
	})
	var failed failures
	w := NewWriter(world.conn, &WriterConfig{MaxDelay: -1, Linger: -1, OnError: failed.add})
	mustWrite(t, w, nil, world.dest[0])
	w.mu.Lock()
	w.takeLocked()
	w.mu.Unlock()
	for range 10 {
		mustWrite(t, w, nil, world.dest[0])
	}
	full.Store(false)
	if err := w.Close(); err != nil || len(k.taken) != 11 || len(failed.errs) != 0 {
		t.Errorf("Close = %v, %d sent, %d reported; want 11 sent", err, len(k.taken), len(failed.errs))
	}
}

// TestWriterDropped: a Writer that holds nothing is collected, whatever it did
// before.
func TestWriterDropped(t *testing.T) {
	for _, delay := range []time.Duration{0, time.Hour, -1} {
		before := runtime.NumGoroutine()
		gone := make(chan struct{})
		func() {
			world := plainKind.world(t, 1, nil)
			w := NewWriter(world.conn, &WriterConfig{MaxDelay: delay})
			runtime.AddCleanup(w, func(gone chan struct{}) { close(gone) }, gone)
			for range 1000 {
				mustWrite(t, w, []byte("x"), world.dest[0])
			}
			if err := w.Flush(nil); err != nil {
				t.Fatal(err)
			}
		}()
		awaitGoroutines(t, before)
		for end := time.Now().Add(patience); ; time.Sleep(time.Millisecond) {
			runtime.GC()
			select {
			case <-gone:
			default:
				if time.Now().Before(end) {
					continue
				}
				t.Errorf("MaxDelay %v: something keeps the Writer", delay)
			}
			break
		}
	}
}

// TestWriterOfNothing: methods of a Writer without a Conn return errors.
func TestWriterOfNothing(t *testing.T) {
	for _, c := range []*Conn{nil, new(Conn)} {
		typ, w := reflect.TypeFor[*Writer](), reflect.ValueOf(NewWriter(c, nil))
		for i := range typ.NumMethod() {
			m := typ.Method(i)
			for _, args := range [][]reflect.Value{zeroArgs(m.Type), oneArgs(m.Type)} {
				out := w.Method(i).Call(args)
				if n := len(out); n > 0 && out[n-1].Type() == reflect.TypeFor[error]() && out[n-1].IsNil() {
					t.Errorf("%s returned no error", m.Name)
				}
			}
		}
	}
}

// TestWriterNothingLost: with a kernel that takes what it likes and fails when
// it likes, while goroutines write, flush and move the deadline, and in the end
// close, each datagram that was accepted was sent or reported, once, and those
// that were sent kept their order.
func TestWriterNothingLost(t *testing.T) {
	configs := []WriterConfig{
		{}, {MaxMessages: 1}, {MaxMessages: 3, MaxDelay: -1}, {MaxBytes: 10}, {MaxDelay: 100 * time.Microsecond},
		{Linger: -1}, {MaxMessages: 16, Linger: -1, MaxDelay: -1}, {MaxMessages: 16, Linger: time.Microsecond},
	}
	rounds := 4
	if testing.Short() {
		rounds = 1
	}
	for round := range rounds {
		for i, cfg := range configs {
			t.Run(fmt.Sprint(i, "/", round), func(t *testing.T) { testNothingLost(t, cfg, round%2 == 1) })
		}
	}
}

func testNothingLost(t *testing.T, cfg WriterConfig, nonBlocking bool) {
	before := runtime.NumGoroutine()
	world := plainKind.world(t, 3, &Config{GSO: GSOOff, NonBlocking: nonBlocking})
	k := follow(world.conn, takeAtRandom)
	var reported failures
	cfg.OnError = reported.add
	w := NewWriter(world.conn, &cfg)
	var accepted atomic.Int64
	var wg sync.WaitGroup
	for g := range 6 {
		wg.Go(func() { accepted.Add(writeUntilClosed(t, w, byte(g), world.dest[0])) })
	}
	wg.Go(func() { flushUntilClosed(t, w) })
	wg.Go(func() { moveDeadlineUntilClosed(w) })
	time.Sleep(20 * time.Millisecond)
	w.Close()
	done := make(chan struct{})
	go func() { wg.Wait(); close(done) }()
	receive(t, "all to end after Close", done)
	if got, want := len(k.taken)+len(reported.errs), int(accepted.Load()); got != want {
		t.Errorf("%d sent and %d reported of %d accepted", len(k.taken), len(reported.errs), want)
	}
	checkNumbers(t, k.taken)
	checkEmpty(t, w)
	awaitGoroutines(t, before)
}

// takeAtRandom is a kernel that takes what it likes and fails when it likes.
func takeAtRandom(_ int, ms []ipv4.Message) (int, error) {
	n := rand.IntN(len(ms))
	switch rand.IntN(20) {
	case 0:
		return n, os.NewSyscallError("sendmmsg", syscall.EPERM)
	case 1:
		return n, errors.New("odd")
	case 2, 3:
		return 0, os.NewSyscallError("sendmmsg", sys.EWOULDBLOCK)
	}
	return n + 1, nil
}

// writeUntilClosed writes the numbered datagrams of goroutine g and returns how
// many were accepted.
func writeUntilClosed(t *testing.T, w *Writer, g byte, to netip.AddrPort) (accepted int64) {
	for {
		p := []byte{g, byte(accepted >> 16), byte(accepted >> 8), byte(accepted)}
		_, err := w.WriteToUDPAddrPort(p, to)
		switch {
		case err == nil:
			accepted++
		case errors.Is(err, net.ErrClosed):
			return accepted
		case errors.Is(err, syscall.EPERM): // of an idle write, and reported to nobody else
		case !errors.Is(err, ErrWouldBlock) && !errors.Is(err, os.ErrDeadlineExceeded):
			t.Error(err)
			return accepted
		}
	}
}

// flushUntilClosed flushes, and gives up after a while.
func flushUntilClosed(t *testing.T, w *Writer) {
	for {
		ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(300))*time.Microsecond)
		err := w.Flush(ctx)
		cancel()
		if errors.Is(err, net.ErrClosed) {
			return
		}
	}
}

// moveDeadlineUntilClosed has writes end at a deadline, now and then.
func moveDeadlineUntilClosed(w *Writer) {
	for w.SetWriteDeadline(time.Now().Add(time.Duration(rand.IntN(1000)-200)*time.Microsecond)) == nil {
		time.Sleep(200 * time.Microsecond)
		w.SetWriteDeadline(time.Time{})
		time.Sleep(200 * time.Microsecond)
	}
}

// checkNumbers makes sure that each goroutine's datagrams left in order, none
// twice; some may be missing.
func checkNumbers(t *testing.T, taken [][]byte) {
	t.Helper()
	next := map[byte]int{}
	for _, p := range taken {
		i := int(p[1])<<16 | int(p[2])<<8 | int(p[3])
		if i < next[p[0]] {
			t.Fatalf("goroutine %d: datagram %d after %d, or twice", p[0], i, next[p[0]]-1)
		}
		next[p[0]] = i + 1
	}
}

// checkEmpty makes sure that a Writer at rest holds nothing, and that nothing
// waits.
func checkEmpty(t *testing.T, w *Writer) {
	t.Helper()
	h := &w.held
	if h.messages != 0 || h.bytes != 0 || h.finished != h.accepted || !w.writes.empty() || !w.flushes.empty() || w.turn != idle {
		t.Errorf("left: %d messages, %d bytes, %d of %d finished, %d writes and %d flushes in line, sender %d",
			h.messages, h.bytes, h.finished, h.accepted, w.writes.len(), w.flushes.len(), w.turn)
	}
}
