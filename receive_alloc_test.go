// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// TestReceiveNoAllocation: a read allocates nothing, whether it finds something
// held, something in the kernel, or waits without a cancellable context;
// ReadFrom and ReadBatch no more than an address a datagram.
func TestReceiveNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("under -race sync.Pool drops what it is given at random")
	}
	if !sys.HaveBatchCall {
		t.Skip("the portable way makes an address per datagram")
	}
	for _, host := range []string{"127.0.0.1", "::1"} {
		for _, mode := range []GROMode{GROAuto, GROOn, GROOff} {
			for _, waits := range []bool{false, true} {
				t.Run(fmt.Sprintf("%s, GRO %v, waiting %v", host, mode, waits), func(t *testing.T) {
					testReceiveNoAllocation(t, host, mode, waits)
				})
			}
		}
	}
}

func testReceiveNoAllocation(t *testing.T, host string, mode GROMode, waits bool) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it empties the pools
	in, sendTen := tenAtATime(t, host, mode)
	for _, call := range frugalReads(t, in) {
		if waits && call.neverWaits {
			continue
		}
		var err error
		readTen := func() {
			for n := 0; n < 10 && err == nil; n += call.n {
				err = call.read()
			}
		}
		reads := func() { sendTen(); readTen() }
		if waits {
			ask := sendToWaiting(t, in, sendTen)
			reads = func() { ask <- true; readTen() }
		}
		for range 30 { // the queue is found deep meanwhile
			reads()
		}
		calls := float64(10 / call.n)
		if n := testing.AllocsPerRun(20, reads); n > call.max*calls || err != nil {
			t.Errorf("%s: %v allocations in %v calls, error %v", call.name, n, calls, err)
		}
	}
	if mode == GROOn && in.Stats().GRO {
		checkBatchOfRun(t, in, sendTen)
	}
}

// tenAtATime makes a Conn that reads, and what sends it ten datagrams, as one
// run where the system segments.
func tenAtATime(t *testing.T, host string, mode GROMode) (in *Conn, sendTen func()) {
	t.Helper()
	u := listen(t, networkOfHost(host), host)
	growBuffer(u)
	in, out := newConn(t, u, &Config{GRO: mode}), newConn(t, listen(t, networkOfHost(host), host), nil)
	run := AppendSegments(nil, addrPortOf(u), make([]byte, 10*1000), 1000, nil)
	return in, func() {
		if err := sendAll(out, nil, run); err != nil {
			t.Error(err)
		}
	}
}

// A frugalRead is a call that reads n of ten datagrams.
type frugalRead struct {
	name       string
	max        float64 // allocations
	n          int
	neverWaits bool
	read       func() error
}

// frugalReads are those of c, except ReadBatch, which may find fewer than ten.
func frugalReads(t *testing.T, c *Conn) []frugalRead {
	p, oob := make([]byte, 1500), make([]byte, 128)
	msgs := make([]InputMessage, 10)
	for i := range msgs {
		msgs[i] = InputMessage{Vectors: [][]byte{p}, Control: oob}
	}
	return []frugalRead{
		{"ReceiveMessages", 0, 10, false, func() error { _, err := c.ReceiveMessages(nil, msgs, MsgWaitAll); return err }},
		{"ReceiveMessage", 0, 1, false, func() error { m := msgs[0]; _, err := c.ReceiveMessage(nil, &m, 0); return err }},
		{"ReceiveFrom", 0, 1, true, func() error {
			if err := c.WaitReadable(nil); err != nil { // a busy kernel delivers late
				return err
			}
			_, _, err := c.ReceiveFrom(t.Context(), p, MsgDontWait)
			return err
		}},
		{"Read", 0, 1, false, func() error { _, err := c.Read(p); return err }},
		{"ReadFromUDPAddrPort", 0, 1, false, func() error { _, _, err := c.ReadFromUDPAddrPort(p); return err }},
		{"ReadFromAddrPort", 0, 1, false, func() error { _, _, err := c.ReadFromAddrPort(p); return err }},
		{"ReadMsgUDPAddrPort", 0, 1, false, func() error { _, _, _, _, err := c.ReadMsgUDPAddrPort(p, oob); return err }},
		{"ReadFrom", 2, 1, false, func() error { _, _, err := c.ReadFrom(p); return err }},
	}
}

// sendToWaiting makes a goroutine that sends, each time that it is asked, once
// a read of c waits.
func sendToWaiting(t *testing.T, c *Conn, send func()) (ask chan<- bool) {
	asked, done := make(chan bool, 1), make(chan bool)
	waiting := func() bool { return c.recv.queue.state.Load() == parked || c.recv.net.underWay() != 0 }
	go func() {
		defer close(done)
		for range asked {
			for end := time.Now().Add(time.Second); !waiting() && time.Now().Before(end); {
				runtime.Gosched()
			}
			send()
		}
	}()
	t.Cleanup(func() { close(asked); <-done })
	return asked
}

// checkBatchOfRun: of a run, which has one sender, ReadBatch makes one address.
func checkBatchOfRun(t *testing.T, in *Conn, sendTen func()) {
	t.Helper()
	p, oob := make([]byte, 1500), make([]byte, 128)
	ms := make([]ipv4.Message, 10)
	for i := range ms {
		ms[i] = ipv4.Message{Buffers: [][]byte{p}, OOB: oob}
	}
	var err error
	if n := testing.AllocsPerRun(20, func() {
		sendTen()
		for n, k := 0, 0; n < 10 && err == nil; n += k {
			k, err = in.ReadBatch(ms, 0)
		}
	}); n > 1 || err != nil {
		t.Errorf("ReadBatch: %v allocations for a run, error %v", n, err)
	}
}

// TestReceiveInLineNoAllocation: nor does a read that waits behind another.
func TestReceiveInLineNoAllocation(t *testing.T) {
	if raceEnabled || !sys.HaveBatchCall {
		t.Skip("sync.Pool drops things under -race, and the portable way allocates")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it empties the pools
	in, out, to := readPair(t, nil)
	const readers = 4
	start, ended := make(chan bool), make(chan error, readers)
	defer close(start)
	for range readers {
		go func() {
			p := make([]byte, 10)
			for range start {
				_, _, err := in.ReceiveFrom(nil, p, 0)
				ended <- err
			}
		}()
	}
	inLine := func() bool {
		l := &in.recv.queue.line
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.taken && len(l.waiters) == readers-1
	}
	var err error
	x := []byte("x")
	n := testing.AllocsPerRun(50, func() {
		for range readers {
			start <- true
		}
		for end := time.Now().Add(patience); !inLine() && time.Now().Before(end); {
			runtime.Gosched()
		}
		for range readers {
			out.SendTo(nil, x, to, 0)
		}
		for range readers {
			err = cmp.Or(err, <-ended)
		}
	})
	if n != 0 || err != nil {
		t.Errorf("%v allocations for %d reads in line, error %v", n, readers, err)
	}
}

// A memory is what lives in the heap, and what the stacks take. What the heap
// keeps free for the next object is nobody's.
type memory struct{ heap, stacks float64 }

func inUse() (m memory) {
	for last := math.Inf(1); ; last = m.heap {
		for range 3 {
			runtime.GC()
		}
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		m = memory{float64(s.HeapAlloc), float64(s.StackInuse)}
		if last <= m.heap+1<<14 { // no finalizer is to come
			return m
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func (m memory) less(n memory) memory  { return memory{m.heap - n.heap, m.stacks - n.stacks} }
func (m memory) over(n float64) memory { return memory{m.heap / n, m.stacks / n} }

// total takes the stacks to differ by whole KiB: stacks that others have left
// shift the mean by up to half of one.
func (m memory) total() float64 { return m.heap + 1024*math.Round(m.stacks/1024) }

// TestReadersMemory: a Conn with a reader that waits costs at most 3 KiB over a
// bare one, and after a burst through all of them again. 2 KiB of these are the
// stack: a goroutine that has read what was held has one of 4, and one in net's
// own read has one of 2.
func TestReadersMemory(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has memory of its own")
	}
	limit := float64(3 << 10)
	if !sys.HaveBatchCall {
		limit += 1024 // x/sys puts the vectors and the address of a recvmsg(2) on the heap
	}
	if bits.UintSize == 32 {
		limit += 256 // there x/net's reader needs only 2 KiB of stack until there is a burst
	}
	memoryOfReaders(t, bareReader) // the first pays for goroutines that the others use again
	bare, bareAfter := memoryOfReaders(t, bareReader)
	xnet, xnetAfter := memoryOfReaders(t, xnetReader)
	for _, way := range []struct {
		name        string
		bare, after memory
		read        func(c *Conn, p []byte) (n int, err error)
	}{
		{"ReadFromUDPAddrPort", bare, bareAfter, func(c *Conn, p []byte) (int, error) {
			_, _, err := c.ReadFromUDPAddrPort(p)
			return 1, err
		}},
		{"ReceiveMessage", bare, bareAfter, func(c *Conn, p []byte) (int, error) {
			m := InputMessage{Vectors: [][]byte{p}}
			_, err := c.ReceiveMessage(nil, &m, 0)
			return 1, err
		}},
		{"ReadBatch of 8", xnet, xnetAfter, func(c *Conn, p []byte) (int, error) { return c.ReadBatch(roomFor8(p), 0) }},
	} {
		read := way.read // the closure below is to be as small as the others
		idle, after := memoryOfReaders(t, func(u *net.UDPConn) (net.PacketConn, readWay) {
			c, err := New(u, nil) // newConn's Cleanup has a cost of its own
			if err != nil {
				t.Fatal(err)
			}
			return c, func(p []byte) (int, error) { return read(c, p) }
		})
		idle, after = idle.less(way.bare), after.less(way.after)
		t.Logf("%s: a Conn takes %.0f bytes more than a bare conn, after a burst %.0f", way.name, idle, after)
		if idle.total() > limit || after.total() > limit {
			t.Errorf("%s: that is more than %v bytes", way.name, limit)
		}
	}
}

// A readWay reads datagrams, and says how many.
type readWay func(p []byte) (n int, err error)

func bareReader(u *net.UDPConn) (net.PacketConn, readWay) {
	return u, func(p []byte) (int, error) { _, _, err := u.ReadFromUDPAddrPort(p); return 1, err }
}

func xnetReader(u *net.UDPConn) (net.PacketConn, readWay) {
	c := ipv4.NewPacketConn(u)
	return u, func(p []byte) (int, error) { return c.ReadBatch(roomFor8(p), 0) }
}

func roomFor8(p []byte) []ipv4.Message {
	ms := make([]ipv4.Message, 8)
	for i := range ms {
		ms[i].Buffers = [][]byte{p}
	}
	return ms
}

// memoryOfReaders is what many conns made by wrap take each, a reader included:
// while all wait that have read one datagram, and when they wait again after a
// burst.
func memoryOfReaders(t *testing.T, wrap func(u *net.UDPConn) (net.PacketConn, readWay)) (idle, afterBurst memory) {
	const n = 2000
	before := inUse()
	var wg sync.WaitGroup
	var opened []net.PacketConn
	var got atomic.Int64
	for range n {
		u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Skip(err)
		}
		c, read := wrap(u)
		opened = append(opened, c)
		wg.Go(func() {
			var p [64]byte
			for {
				k, err := read(p[:])
				if err != nil {
					return
				}
				got.Add(int64(k))
			}
		})
	}
	out := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
	sent := int64(0)
	afterEach := func(datagrams int) memory {
		for _, c := range opened {
			if err := sendAll(out, nil, AppendSegments(nil, addrPortOf(c), make([]byte, datagrams*20), 20, nil)); err != nil {
				t.Fatal(err)
			}
		}
		sent += int64(datagrams * n)
		for end := time.Now().Add(patience); got.Load() < sent; time.Sleep(time.Millisecond) { // not !=: strangers may send to a port that was theirs
			if time.Now().After(end) {
				for _, c := range opened {
					if c, ok := c.(*Conn); ok && c.Stats().Received < uint64(sent/n) {
						t.Logf("%+v; state %d, held %v", c.Stats(), c.recv.queue.state.Load(), c.recv.hasHeld.Load())
					}
				}
				t.Fatalf("%d of %d datagrams were read", got.Load(), sent)
			}
		}
		time.Sleep(50 * time.Millisecond) // for the readers to wait
		return inUse().less(before).over(n)
	}
	idle, afterBurst = afterEach(1), afterEach(120)
	for _, c := range opened {
		c.Close()
	}
	wg.Wait()
	return idle, afterBurst
}

// TestHeldMemory: what is read ahead is no more than half a MiB, whatever is
// asked for, and a Conn that waits holds nothing.
func TestHeldMemory(t *testing.T) {
	in, out, to := readPair(t, &Config{GRO: GROOn})
	if !in.Stats().GRO {
		t.Skip(in.Stats().GROReason)
	}
	in.conn().SetReadBuffer(8 << 20)
	p := make([]byte, 60000)
	for range 100 {
		sendAll(out, nil, AppendSegments(nil, to, p, 1000, nil))
	}
	msgs := make([]InputMessage, 5000)
	for i := range msgs {
		msgs[i].Vectors = [][]byte{p[:1000]}
	}
	for total := 0; ; {
		n, err := in.ReceiveMessages(nil, msgs[:1+total%3000], MsgDontWait)
		if err != nil {
			break
		}
		total += n
		in.recv.mu.Lock()
		held := 0
		for b := in.recv.held; b != nil; b = b.next {
			for i := range b.blocks {
				held += len(b.blocks[i])
			}
		}
		in.recv.mu.Unlock()
		if held > 512<<10 {
			t.Fatalf("%d bytes are held", held)
		}
	}
	in.SetReadDeadline(time.Now().Add(time.Millisecond))
	if _, err := in.Read(p); !os.IsTimeout(err) {
		t.Fatal(err)
	}
	if in.recv.held != nil {
		t.Error("an idle Conn holds a batch")
	}
}

func (c *Conn) conn() *net.UDPConn { return c.recv.queue.conn }
