// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package harness

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		v       []float64
		q, want float64
	}{
		{[]float64{3}, 0.5, 3},
		{[]float64{4, 2}, 0.5, 3},
		{[]float64{9, 1, 5}, 0.5, 5},
		{[]float64{1, 2, 3, 4, 5}, 0.25, 2},
		{[]float64{5, 4, 3, 2, 1}, 0.75, 4},
		{[]float64{5, 4, 3, 2, 1}, 1, 5},
	} {
		was := slices.Clone(c.v)
		if got := Quantile(c.v, c.q); got != c.want {
			t.Errorf("Quantile(%v, %v) = %v, want %v", c.v, c.q, got, c.want)
		}
		if !slices.Equal(c.v, was) {
			t.Errorf("%v is changed to %v", was, c.v)
		}
	}
}

// TestAlternate: each has a turn in each round, and nobody always comes after
// the same one.
func TestAlternate(t *testing.T) {
	const rounds, n = 50, 5
	last, after := -1, map[[2]int]int{}
	var turns [rounds][n]int
	err := Alternate(rounds, n, func(round, i int) error {
		turns[round][i]++
		after[[2]int{last, i}]++
		last = i
		return nil
	})
	for round, each := range turns {
		if each != [n]int{1, 1, 1, 1, 1} {
			t.Errorf("turns in round %d: %v", round, each)
		}
	}
	for pair, times := range after {
		if times > rounds/2 {
			t.Errorf("%d comes after %d in %d of %d rounds", pair[1], pair[0], times, rounds)
		}
	}
	if err != nil {
		t.Error(err)
	}
	enough, calls := errors.New("enough"), 0
	err = Alternate(rounds, n, func(int, int) error { calls++; return enough })
	if err != enough || calls != 1 {
		t.Errorf("%v after %d calls", err, calls)
	}
}

func TestRepeat(t *testing.T) {
	calls := 0
	sent, err := Repeat(7, 0, func() error { calls++; return nil })
	if sent != 7 || calls != 1 || err != nil {
		t.Errorf("no time: %d sent in %d calls, %v", sent, calls, err)
	}
	begin := time.Now()
	if sent, err = Repeat(7, 5*time.Millisecond, func() error { return nil }); time.Since(begin) < 5*time.Millisecond || sent%7 != 0 || err != nil {
		t.Errorf("%d sent in %v, %v", sent, time.Since(begin), err)
	}
	broken := errors.New("broken")
	if sent, err = Repeat(7, time.Hour, func() error { return broken }); sent != 0 || err != broken {
		t.Errorf("%d sent, %v", sent, err)
	}
}

// A stingyWriter takes two messages a call, and fails at last.
type stingyWriter struct{ left int }

func (w *stingyWriter) WriteBatch(ms []ipv4.Message, _ int) (int, error) {
	if w.left == 0 {
		return -1, net.ErrClosed
	}
	n := min(2, len(ms), w.left)
	w.left -= n
	return n, nil
}

func TestWriteCounting(t *testing.T) {
	n, calls, err := WriteCounting(&stingyWriter{9}, make([]ipv4.Message, 5))
	if n != 5 || calls != 3 || err != nil {
		t.Errorf("%d in %d calls, %v", n, calls, err)
	}
	n, calls, err = WriteCounting(&stingyWriter{3}, make([]ipv4.Message, 5))
	if n != 3 || calls != 2 || err != net.ErrClosed {
		t.Errorf("then an error: %d in %d calls, %v", n, calls, err)
	}
}

// inletAndSender makes an Inlet of u, and what sends to it.
func inletAndSender(t *testing.T, u *net.UDPConn) (*Inlet, *net.UDPConn) {
	t.Helper()
	in, err := NewInlet(u)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(in.Addr()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return in, c
}

// TestInlet: all that was sent is there, in order, and what is longer is told
// from what fits.
func TestInlet(t *testing.T) {
	u, err := ListenUDP(&net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	in, c := inletAndSender(t, u)
	m := NewMailbag(3, 10)
	if n, err := in.Read(m); n != 0 || err != nil {
		t.Fatalf("empty: %d, %v", n, err)
	}
	texts := []string{"one", "", "exactly 10", "eleven     ", "a dozen and more"}
	for _, s := range texts {
		if _, err := c.Write([]byte(s)); err != nil {
			t.Fatal(err)
		}
	}
	var got []string
	for limit := time.Now().Add(10 * time.Second); len(got) < len(texts) && time.Now().Before(limit); {
		n, err := in.Read(m)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			got = append(got, string(m.Datagram(i)))
		}
	}
	texts[4] = texts[4][:11]
	if fmt.Sprint(got) != fmt.Sprint(texts) {
		t.Errorf("%q, want %q", got, texts)
	}
}

// TestDrops: what was sent was read, or is counted as dropped.
func TestDrops(t *testing.T) {
	if !HaveDrops {
		t.Skip("not known here")
	}
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	u.SetReadBuffer(20000)
	in, c := inletAndSender(t, u)
	const sent = 500
	for range sent {
		if _, err := c.Write(make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}
	m, read, dropped := NewMailbag(64, 1000), 0, uint32(0)
	for limit := time.Now().Add(10 * time.Second); read+int(dropped) < sent && time.Now().Before(limit); {
		n, err := in.Read(m)
		if err != nil {
			t.Fatal(err)
		}
		read += n
		if dropped, err = in.Drops(); err != nil {
			t.Fatal(err)
		}
	}
	if read == 0 || dropped == 0 || read+int(dropped) != sent {
		t.Errorf("of %d, %d read and %d dropped", sent, read, dropped)
	}
}

// TestSinks: they take what is sent, and closeAll frees their ports.
func TestSinks(t *testing.T) {
	addrs, closeAll, err := Sinks(3)
	if err != nil {
		t.Fatal(err)
	}
	slices.SortFunc(addrs, func(a, b netip.AddrPort) int { return a.Compare(b) })
	if len(slices.Compact(addrs)) != 3 {
		t.Errorf("%v", addrs)
	}
	closeAll()
	c, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(addrs[0]))
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
}

// TestCPU: work is seen on the clock of the thread that did it.
func TestCPU(t *testing.T) {
	if !HaveProcessCPU {
		t.Skip("not known here")
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	me := ThisThread()
	thread, own, process := me.CPU(), ThreadCPU(), ProcessCPU()
	for begin := time.Now(); ProcessCPU()-process < 20*time.Millisecond; {
		if time.Since(begin) > time.Minute {
			t.Fatal("a minute's work is not seen")
		}
	}
	if !HaveThreadCPU {
		return
	}
	if d := me.CPU() - thread; d <= 0 {
		t.Errorf("the thread's clock, seen by others, says %v", d)
	}
	if d := ThreadCPU() - own; d <= 0 {
		t.Errorf("the thread's own clock says %v", d)
	}
	idle := make(chan Thread)
	end := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		idle <- ThisThread()
		<-end
	}()
	other := <-idle
	defer close(end)
	before, mine := other.CPU(), me.CPU()
	for me.CPU()-mine < 5*time.Millisecond {
	}
	if d := other.CPU() - before; d > 2*time.Millisecond {
		t.Errorf("another thread, which does nothing, has worked for %v", d)
	}
}

// TestBurst: what is missing is lost, not waited for without end, and a
// reader's faults are told.
func TestBurst(t *testing.T) {
	broken := errors.New("broken")
	late := func(int) (int, error) { return 0, os.ErrDeadlineExceeded }
	for _, c := range []struct {
		name  string
		reads []func(i int) (int, error)
		n     int
		err   error
	}{
		{"all", []func(i int) (int, error){func(int) (int, error) { return 3, nil }, func(int) (int, error) { return 5, nil }}, 8, nil},
		{"late", []func(i int) (int, error){late, late, func(int) (int, error) { return 8, nil }}, 8, nil},
		{"lost", []func(i int) (int, error){func(int) (int, error) { return 7, nil }, late, late, late}, 7, nil},
		{"broken", []func(i int) (int, error){func(int) (int, error) { return 2, nil }, func(int) (int, error) { return 0, broken }}, 2, broken},
		{"nothing", []func(i int) (int, error){func(int) (int, error) { return 0, nil }}, 0, errNothing},
	} {
		sent, read, at := 0, 0, 0
		b := Burst{
			Mail: NewMailbag(8, 1),
			Send: func() error { sent++; return nil },
			Read: func(i int) (int, error) {
				if i != at {
					t.Errorf("%s: read at %d, want %d", c.name, i, at)
				}
				n, err := c.reads[read](i)
				read++
				at += n
				return n, err
			},
			SetReadDeadline: func(time.Time) error { return nil },
		}
		var times BurstTimes
		n, err := b.Run(&times)
		coarse := runtime.GOOS == "windows" // half a millisecond of its clock may see nothing
		if n != c.n || err != c.err || sent != 1 || read != len(c.reads) || times.Read <= 0 && !coarse {
			t.Errorf("%s: %d, %v, after %d reads in %v; want %d, %v", c.name, n, err, read, times.Read, c.n, c.err)
		}
	}
}
