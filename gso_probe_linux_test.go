// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !android && !batchconn_portable

package batchconn

import (
	"errors"
	"net"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A slowRawConn lets a Control begin when the test says so.
type slowRawConn struct {
	syscall.RawConn
	begun, goOn chan struct{}
}

func (r slowRawConn) Control(f func(fd uintptr)) error {
	r.begun <- struct{}{}
	<-r.goOn
	return r.RawConn.Control(f)
}

// TestProbeUnderWay: a caller that has set an option does not go by what was
// known before it, though another sender is already looking at the options.
func TestProbeUnderWay(t *testing.T) {
	w := plainKind.world(t, 1, nil)
	g := &w.conn.send.gso
	if r := g.disabledReason(); r != "" {
		t.Skip(r)
	}
	slow := slowRawConn{g.raw, make(chan struct{}), make(chan struct{})}
	g.raw = slow
	raw, err := w.conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_CORK, 1) })
	if err := errors.Join(controlErr, err); err != nil {
		t.Fatal(err)
	}
	reasons := make(chan string, 2)
	go func() { reasons <- g.disabledReason() }()
	receive(t, "the look at the options", slow.begun)
	go func() { reasons <- g.disabledReason() }()
	select {
	case r := <-reasons:
		t.Fatalf("before the options were looked at, the reason was %q", r)
	case <-time.After(50 * time.Millisecond): // it waits for the look under way; too short a time hides a failure, and makes none
	}
	close(slow.goOn)
	for range 2 {
		if r := receive(t, "the answer", reasons); r == "" {
			t.Error("UDP_CORK was not seen")
		}
	}
}

// testAgain has a test on loopback made anew, by try.
func testAgain(t *testing.T, test **loopbackTest, try func(ip net.IP) (failed, known bool)) {
	t.Helper()
	was := *test
	*test = &loopbackTest{try: try}
	t.Cleanup(func() { *test = was })
}

// bareConn is a Conn from New and nothing else. Any goroutine may make one.
func bareConn(t *testing.T) *Conn {
	u, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		panic(err)
	}
	c, err := New(u, nil)
	if err != nil {
		panic(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// TestSelfTestRemembered: an answer is remembered for good, that there was none
// for a second. Only New tests again.
func TestSelfTestRemembered(t *testing.T) {
	v4, v6 := "127.0.0.1", "::1"
	var asked []string
	answers := map[string][2]bool{} // failed, known
	clock := newStoppedClock()
	lt := loopbackTest{clock: clock.now, try: func(ip net.IP) (failed, known bool) {
		asked = append(asked, ip.String())
		a := answers[ip.String()]
		return a[0], a[1]
	}}
	check := func(what string, inNew bool, result loopbackResult, want ...string) {
		t.Helper()
		asked = nil
		if got := lt.result(inNew); got != result || !slices.Equal(asked, want) {
			t.Errorf("%s: %d, after asking %v, want %d after %v", what, got, asked, result, want)
		}
	}
	const inNew, inSend = true, false
	check("no answer", inNew, loopbackSilent, v4, v6)
	clock.advance(time.Second - 1)
	check("within a second", inNew, loopbackSilent)
	clock.advance(1)
	check("after a second, not in New", inSend, loopbackSilent)
	check("after a second", inNew, loopbackSilent, v4, v6)
	check("at once after that", inNew, loopbackSilent)
	answers[v6] = [2]bool{true, true}
	clock.advance(time.Second)
	check("wrong on IPv6", inNew, loopbackFailed, v4, v6)
	clock.advance(time.Hour)
	check("wrong before", inNew, loopbackFailed)
	check("wrong before, not in New", inSend, loopbackFailed)
	lt.answered = false
	answers[v4] = [2]bool{false, true}
	check("right on IPv4", inNew, loopbackPassed, v4)
	clock.advance(time.Hour)
	check("right before", inNew, loopbackPassed)
}

// TestSelfTestTogether: all that make Conns meanwhile wait for one test, and no
// send does.
func TestSelfTestTogether(t *testing.T) {
	const many = 20
	w := plainKind.world(t, 1, nil) // sends while the others are made
	begun, goOn := make(chan net.IP), make(chan bool)
	testAgain(t, &segmentTest, func(ip net.IP) (failed, known bool) {
		begun <- ip
		<-goOn
		return false, false
	})
	made := make(chan *Conn)
	for range many {
		go func() {
			made <- bareConn(t)
		}()
	}
	receive(t, "the test", begun)
	control(t, w.conn, func(int) error { return nil }) // so that a send looks again
	msgs := w.messages(0, nil, 100, 100)
	sent := make(chan int)
	go func() {
		n, _ := w.conn.SendMessages(nil, msgs, MsgDontWait)
		sent <- n
	}()
	if n := receive(t, "a send", sent); n != 2 {
		t.Errorf("%d were sent", n)
	}
	if s := w.conn.Stats(); s.Segmented != 0 || s.GSOReason != reasonUntested {
		t.Errorf("before the kernel has answered %d were segmented; %q", s.Segmented, s.GSOReason)
	}
	select {
	case <-made:
		t.Error("a Conn was made before the test had ended")
	default:
	}
	goOn <- true
	receive(t, "the test over IPv6", begun)
	goOn <- true
	for range many { // a second test would wait for us
		if c := receive(t, "a Conn", made); c.Stats().GSOReason != "" {
			t.Errorf("no answer, and off: %s", c.Stats().GSOReason)
		}
	}
	if r := w.conn.Stats().GSOReason; r != "" {
		t.Errorf("after a test without an answer still off: %s", r)
	}
}

// TestSelfTestBySend: a Conn whose socket could not segment in its New, so that
// nothing was tested, segments after the test, which is made meanwhile.
func TestSelfTestBySend(t *testing.T) {
	begun, goOn := make(chan net.IP), make(chan bool)
	testAgain(t, &segmentTest, func(ip net.IP) (failed, known bool) {
		begun <- ip
		return <-goOn, true
	})
	t.Setenv("BATCHCONN_GSO", "off")
	w := plainKind.world(t, 1, nil)
	t.Setenv("BATCHCONN_GSO", "")
	control(t, w.conn, func(int) error { return nil })
	send := func(segmented uint64) {
		t.Helper()
		msgs := w.messages(0, nil, 100, 100, 100)
		if n, err := w.conn.SendMessages(nil, msgs, 0); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		w.checkArrived(t, msgs, 3)
		if s := w.conn.Stats(); s.Segmented != segmented {
			t.Errorf("%d datagrams were segmented, want %d; %q", s.Segmented, segmented, s.GSOReason)
		}
	}
	send(0)
	receive(t, "the test", begun)
	send(0)
	goOn <- false
	await(t, "the end of the test", func() bool { return w.conn.Stats().GSO })
	send(3)
}

// TestSelfTestFiltered: where loopback answers nothing New takes 50 ms for each
// of its two tests, also if many are made at once, and for a second no more; an
// answer that comes late is heard.
func TestSelfTestFiltered(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		lo.setTap(shut)
		c := bareConn(t)
		for range 4 { // the burst, after which nothing passes
			c.SendTo(nil, make([]byte, 1000), addrPortOf(c), 0)
		}
		testAgain(t, &segmentTest, segmentTest.try)
		testAgain(t, &coalesceTest, coalesceTest.try)
		const many = 20
		var wg sync.WaitGroup
		start := time.Now()
		for range many {
			wg.Go(func() {
				if c := bareConn(t); c.Stats().GSOReason != "" {
					t.Errorf("off: %s", c.Stats().GSOReason)
				}
			})
		}
		wg.Wait()
		if took := time.Since(start); took < 100*time.Millisecond || took > 400*time.Millisecond {
			t.Errorf("%d New at once took %v", many, took)
		}
		start = time.Now()
		for range many {
			bareConn(t)
		}
		if took := time.Since(start); took > 400*time.Millisecond {
			t.Errorf("%d New after them took %v", many, took)
		}

		testAgain(t, &segmentTest, segmentTest.try)
		time.AfterFunc(10*time.Millisecond, func() { lo.setTap(open) })
		if r := segmentTest.result(true); r != loopbackPassed {
			t.Errorf("an answer that came late was not heard: %d", r)
		}
	})
}
