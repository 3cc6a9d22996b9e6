// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"errors"
	"net"
	"slices"
	"testing"
	"time"

	"github.com/batchconn/batchconn/internal/harness"
)

// newCollector has one receiver.
func newCollector(t *testing.T, index int, opt *options) (*collector, *receiver) {
	t.Helper()
	c := &collector{how: &prompt, mail: harness.NewMailbag(readCount(opt.size), opt.size)}
	r, err := newReceiver(index, opt, c.how, c.mail)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.in.conn.Close() })
	c.receivers = []*receiver{r}
	return c, r
}

// startCollector begins run 1.
func startCollector(t *testing.T, c *collector) {
	t.Helper()
	if err := c.start(1); err != nil {
		t.Fatal(err)
	}
}

func endCollector(c *collector, sent uint64) error {
	return errors.Join(c.end(sent), <-c.done)
}

const received = 96 // bytes of a datagram of receivedTests

// A receivedTest is what sender 1 sends, and what a receiver makes of it.
type receivedTest struct {
	name      string
	datagrams [][]byte
	sent      uint64 // counted by sender 1
	want      tally
	uncounted uint64
}

// receivedTests are what receiver 1 must accept in run 1, and what it must not.
func receivedTests() []receivedTest {
	const size = received
	composed := func(h header, size int, sequence uint64) []byte {
		p := make([]byte, size)
		stamp(p, h.compose(p), sequence)
		return p
	}
	good := header{run: 1, sender: 1, receiver: 1, slot: 3}
	return []receivedTest{
		{"all", [][]byte{composed(good, size, 0), composed(good, size, 1)}, 2, tally{arrived: 2, bytes: 2 * size}, 0},
		{"out of order", [][]byte{composed(good, size, 1), composed(good, size, 0)}, 2, tally{arrived: 2, bytes: 2 * size, reordered: 1}, 0},
		{"lost", [][]byte{composed(good, size, 1)}, 3, tally{arrived: 1, bytes: size}, 0},
		{"twice", [][]byte{composed(good, size, 0), composed(good, size, 0)}, 1, tally{arrived: 1, bytes: size, duplicated: 1}, 0},
		{"uncounted", [][]byte{composed(good, size, 0), composed(good, size, 1)}, 1, tally{arrived: 1, bytes: 2 * size}, 1},
		{"longer", [][]byte{composed(good, size+1, 0)}, 1, tally{damaged: 1}, 0},
		{"two in one", [][]byte{append(composed(good, size, 0), composed(good, size, 1)...)}, 2, tally{damaged: 1}, 0},
		{"shorter", [][]byte{composed(good, size-1, 0)}, 1, tally{damaged: 1}, 0},
		{"cut", [][]byte{composed(good, size, 0)[:size-1]}, 1, tally{damaged: 1}, 0},
		{"cut header", [][]byte{composed(good, size, 0)[:20]}, 1, tally{damaged: 1}, 0},
		{"empty", [][]byte{{}}, 1, tally{damaged: 1}, 0},
		{"another run", [][]byte{composed(header{run: 2, sender: 1, receiver: 1, slot: 3}, size, 0)}, 1, tally{damaged: 1}, 0},
		{"another receiver", [][]byte{composed(header{run: 1, sender: 1, slot: 3}, size, 0)}, 1, tally{damaged: 1}, 0},
		{"unknown sender", [][]byte{composed(header{run: 1, sender: 2, receiver: 1, slot: 3}, size, 0)}, 1, tally{damaged: 1}, 0},
	}
}

// TestReceiver sends a receiver what it must accept and what it must not.
func TestReceiver(t *testing.T) {
	c0, r := newCollector(t, 1, &options{size: received, senders: 2})
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(r.addr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for _, test := range receivedTests() {
		t.Run(test.name, func(t *testing.T) {
			startCollector(t, c0)
			for _, p := range test.datagrams {
				if _, err := c.Write(p); err != nil {
					t.Fatal(err)
				}
			}
			err := endCollector(c0, test.sent)
			got, uncounted := r.result([]uint64{0, test.sent})
			if got != test.want || uncounted != test.uncounted || err != nil {
				t.Errorf("%+v, %d uncounted, %v; want %+v, %d uncounted", got, uncounted, err, test.want, test.uncounted)
			}
		})
	}
}

// TestEveryByteIsChecked changes each bit of a datagram in turn.
func TestEveryByteIsChecked(t *testing.T) {
	for _, size := range []int{minSize, minSize + 1, 200, maxSize} {
		h := header{run: 0x0102030405060708, sender: 3, receiver: 4, slot: 5}
		p := make([]byte, size)
		stamp(p, h.compose(p), 77)
		want := h
		want.sequence = 77
		if got, intact := parse(p); !intact || got != want {
			t.Fatalf("size %d: %+v, %v; want %+v", size, got, intact, want)
		}
		step := max(1, size/500) // parse reads all of it each time
		for i := 0; i < size; i += step {
			for bit := range 8 {
				p[i] ^= 1 << bit
				if _, intact := parse(p); intact {
					t.Fatalf("size %d: bit %d of byte %d changed, and was not noticed", size, bit, i)
				}
				p[i] ^= 1 << bit
			}
		}
	}
}

// TestMixedDatagrams: one made of two that differ in nothing but one number.
func TestMixedDatagrams(t *testing.T) {
	base := header{run: 1, sender: 1, receiver: 1, slot: 1}
	p := make([]byte, 200)
	stamp(p, base.compose(p), 10)
	for _, other := range []header{
		{run: 2, sender: 1, receiver: 1, slot: 1},
		{run: 1, sender: 2, receiver: 1, slot: 1},
		{run: 1, sender: 1, receiver: 2, slot: 1},
		{run: 1, sender: 1, receiver: 1, slot: 2},
	} {
		q := make([]byte, 200)
		stamp(q, other.compose(q), 10)
		if _, intact := parse(append(p[:100:100], q[100:]...)); intact {
			t.Errorf("mixed with %+v, and not noticed", other)
		}
	}
	q := make([]byte, 200)
	stamp(q, base.compose(q), 11)
	if _, intact := parse(append(p[:100:100], q[100:]...)); intact {
		t.Error("mixed with the next, and not noticed")
	}
	if _, intact := parse(slices.Concat(p[:len(p)-tailSize-1], p[len(p)-tailSize:])); intact {
		t.Error("a byte is missing before the tail, and not noticed")
	}
}

func TestFlow(t *testing.T) {
	const w = windowSize
	tests := []struct {
		name      string
		sequences []uint64
		want      tally
		lost      uint64
	}{
		{"in order", []uint64{0, 1, 2, 3}, tally{arrived: 4}, 0},
		{"from the middle", []uint64{100, 101}, tally{arrived: 2}, 0},
		{"a gap", []uint64{0, 5}, tally{arrived: 2}, 4},
		{"a gap filled", []uint64{0, 2, 1}, tally{arrived: 3, reordered: 1}, 0},
		{"filled twice", []uint64{0, 2, 1, 1}, tally{arrived: 3, reordered: 1, duplicated: 1}, 0},
		{"before the first", []uint64{7, 5}, tally{arrived: 2, reordered: 1}, 1},
		{"the last of the window", []uint64{0, w, 1}, tally{arrived: 3, reordered: 1}, w - 2},
		{"out of the window", []uint64{0, w, 0}, tally{arrived: 2, duplicated: 1}, w - 1},
		{"round the window", []uint64{3, w + 3, w + 2, w + 3}, tally{arrived: 3, reordered: 1, duplicated: 1}, w - 2},
		{"a jump", []uint64{1, 10*w + 1, 9*w + 2}, tally{arrived: 3, reordered: 1}, 10*w - 2},
	}
	for _, test := range tests {
		f, got := new(flow), tally{}
		for _, s := range test.sequences {
			f.note(s, 0, &got)
		}
		if got != test.want || f.lost() != test.lost {
			t.Errorf("%s: %+v, lost %d; want %+v, lost %d", test.name, got, f.lost(), test.want, test.lost)
		}
	}
	f, counted := new(flow), tally{}
	for _, s := range []uint64{0, 1, 2, 4, w + 4} {
		f.note(s, 0, &counted)
	}
	if n := f.atLeast(w); n != 1 {
		t.Errorf("atLeast counts %d, want 1", n)
	}
}

// TestFinish: a receiver waits for what is late, but not for what was dropped.
func TestFinish(t *testing.T) {
	c, r := newCollector(t, 0, &options{size: 64, senders: 1})
	startCollector(t, c)
	begin := time.Now()
	err := endCollector(c, 1000)
	if got, _ := r.result([]uint64{1000}); got != (tally{}) || err != nil {
		t.Errorf("%+v, %v", got, err)
	}
	if d := time.Since(begin); d < quiet/2 {
		t.Errorf("waited only %v", d)
	}
}

func TestWords(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{commas(0), "0"}, {commas(999), "999"}, {commas(1000), "1,000"}, {commas(1234567), "1,234,567"},
		{percent(0, 7), "0.0%"}, {percent(7, 7), "100%"}, {percent(99999999, 100000000), "99.9%"}, {percent(1, 3), "33.3%"},
		{plural(1, "CPU"), "1 CPU"}, {plural(2, "CPU"), "2 CPUs"},
	} {
		if c.got != c.want {
			t.Errorf("%q, want %q", c.got, c.want)
		}
	}
}

// TestLate: what comes after its run is over has not arrived in it, and is no
// damage of the next.
func TestLate(t *testing.T) {
	const size = 100
	r := &receiver{index: 1, size: size, flows: make([]flow, 2)}
	p := func(run uint64) []byte {
		b := make([]byte, size)
		h := header{run: run, sender: 1, receiver: 1}
		stamp(b, h.compose(b), 0)
		return b
	}
	r.begin(1)
	r.begin(2)
	if r.take(p(1)); r.tally != (tally{}) {
		t.Errorf("of the run before: %+v", r.tally)
	}
	if r.take(p(2)); r.tally != (tally{arrived: 1, bytes: size}) {
		t.Errorf("of this run: %+v", r.tally)
	}
	if r.take(p(3)); r.tally != (tally{arrived: 1, bytes: size, damaged: 1}) {
		t.Errorf("of another run: %+v", r.tally)
	}
}
