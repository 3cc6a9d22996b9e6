// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

// coalescing is a readPair whose Conn coalesces.
func coalescing(t testing.TB) (in, out *Conn, to netip.AddrPort) {
	t.Helper()
	in, out, to = readPair(t, &Config{GRO: GROOn})
	if !in.Stats().GRO {
		t.Skip(in.Stats().GROReason)
	}
	if !in.optionOn() {
		t.Fatal("GROOn, and the option is off")
	}
	return in, out, to
}

// optionOn asks the socket, and does not tell the Conn.
func (c *Conn) optionOn() (on bool) {
	c.recv.control(func(fd uintptr) { on, _ = sys.Coalescing(fd) })
	return on
}

// readRaw reads as x/net does, through a RawConn.
func readRaw(raw syscall.RawConn) func(p []byte) (int, error) {
	return func(p []byte) (n int, err error) {
		rawErr := raw.Read(func(fd uintptr) bool {
			n, _, err = unix.Recvfrom(int(fd), p, 0)
			return err != unix.EAGAIN
		})
		return n, errors.Join(rawErr, err)
	}
}

// TestRawReader: a reader through SyscallConn gets datagrams. What was queued
// before is read through the Conn.
func TestRawReader(t *testing.T) {
	in, out, to := coalescing(t)
	raw, err := in.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	sent, read := 0, 0
	sendRuns(t, out, to, 3, &sent)
	readRuns(t, readNow(in), 2, &read) // the third is held
	done := make(chan struct{})
	go func() {
		defer close(done)
		at := 9
		readRuns(t, readRaw(raw), 6, &at)
	}()
	for end := time.Now().Add(patience); in.Stats().GRO || in.optionOn(); {
		if time.Now().After(end) {
			t.Fatal("coalescing goes on")
		}
	}
	sendRuns(t, out, to, 2, &sent)
	<-done
	readRuns(t, readNow(in), 7, &read)
	if _, err := readNow(in)(make([]byte, 10)); !errors.Is(err, ErrWouldBlock) {
		t.Errorf("something is left: %v", err)
	}
	if s := in.Stats(); s.GRO || s.GROReason != reasonRaw {
		t.Errorf("%+v", s)
	}
	read = 15
	sendRuns(t, out, to, 50, &sent)
	readRuns(t, func(p []byte) (int, error) { return in.Read(p) }, 150, &read)
	if in.optionOn() {
		t.Error("coalescing was turned on again")
	}
}

// TestRawReaderIsNotDisturbed: the kicks for our own reads end no read of the
// user's.
func TestRawReaderIsNotDisturbed(t *testing.T) {
	in, out, to := readPair(t, nil)
	raw, err := in.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	var read, failed atomic.Int64
	for range 2 {
		wg.Go(func() {
			for {
				_, err := readRaw(raw)(make([]byte, 10))
				if errors.Is(err, net.ErrClosed) {
					return
				}
				if err != nil {
					failed.Add(1)
					t.Error(err)
				}
				read.Add(1)
			}
		})
	}
	wg.Go(func() {
		for {
			if err := readerKinds[1].read(in, func([]byte) { read.Add(1) }); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	})
	for i := range 2000 {
		out.SendTo(nil, []byte("0123456789"), to, 0)
		for end := time.Now().Add(patience); read.Load() < int64(i+1); {
			if time.Now().After(end) {
				t.Fatalf("%d of %d were read", read.Load(), i+1)
			}
			time.Sleep(10 * time.Microsecond)
		}
	}
	in.Close()
	wg.Wait()
}

// TestXNetOfConn: x/net's PacketConn made of a Conn, before and after the
// Conn's own reads.
func TestXNetOfConn(t *testing.T) {
	in, out, to := coalescing(t)
	pc := ipv4.NewPacketConn(in)
	sent, read := 0, 0
	sendRuns(t, out, to, 2, &sent)
	readRuns(t, readNow(in), 4, &read)
	sendRuns(t, out, to, 2, &sent)
	readRuns(t, readNow(in), 4, &read) // the rest is drained and held
	in.SetReadDeadline(time.Now().Add(time.Millisecond))
	ms := []ipv4.Message{{Buffers: [][]byte{make([]byte, 100)}}, {Buffers: [][]byte{make([]byte, 100)}}}
	var ne net.Error
	if _, err := pc.ReadBatch(ms, 0); !errors.As(err, &ne) || !ne.Timeout() {
		t.Fatalf("%v", err)
	}
	in.SetReadDeadline(time.Time{})
	readRuns(t, readNow(in), 4, &read)
	sendRuns(t, out, to, 2, &sent)
	readRuns(t, func(p []byte) (int, error) {
		n, err := pc.ReadBatch(ms[:1], 0)
		if n != 1 {
			return 0, fmt.Errorf("%d, %v", n, err)
		}
		return copy(p, ms[0].Buffers[0][:ms[0].N]), err
	}, 3, &read)
	readRuns(t, func(p []byte) (int, error) { n, _, err := in.ReadFrom(p); return n, err }, 3, &read)
}

// TestFileSwitchesOff: a File is a socket like another, and the Conn reads what
// was queued; and what comes, whoever has the option on.
func TestFileSwitchesOff(t *testing.T) {
	in, out, to := coalescing(t)
	sent, read := 0, 0
	sendRuns(t, out, to, 3, &sent)
	readRuns(t, readNow(in), 1, &read)
	f, err := in.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	other, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if s := in.Stats(); s.GRO || s.GROReason != reasonFile || in.optionOn() {
		t.Errorf("%+v", s)
	}
	sendRuns(t, out, to, 1, &sent)
	at := 9
	readRuns(t, func(p []byte) (int, error) { n, _, err := other.ReadFrom(p); return n, err }, 3, &at)
	readRuns(t, readNow(in), 8, &read)

	// Another process may make a Conn of it, that turns the option on.
	control(t, other.(*net.UDPConn), func(fd int) error { return sys.SetCoalescing(uintptr(fd), true) })
	sendRuns(t, out, to, 2, &sent)
	read = 12
	readRuns(t, func(p []byte) (int, error) { return in.Read(p) }, 6, &read)
}

// TestFileWhileReading: a read of package net's that waits when the File is
// taken is aware afterwards.
func TestFileWhileReading(t *testing.T) {
	in, out, to := readPair(t, nil)
	if !in.Stats().GRO {
		t.Skip(in.Stats().GROReason)
	}
	read := make(chan []byte, 3)
	go func() {
		for {
			if readerKinds[4].read(in, func(p []byte) { read <- p }) != nil {
				return
			}
		}
	}()
	awaitReader(t, in)
	f, err := in.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	control(t, f, func(fd int) error { return sys.SetCoalescing(uintptr(fd), true) })
	sent := 0
	sendRuns(t, out, to, 1, &sent)
	for range 3 {
		if p := <-read; len(p) != 10 {
			t.Fatalf("%q", p)
		}
	}
}

// TestGROOptionOfUser: UDP_GRO that the user sets stays as it is, before New
// and after, and we do not touch it; taken away again, it is ours to set.
func TestGROOptionOfUser(t *testing.T) {
	if !sys.HaveBatchCall {
		t.Skip("nothing is coalesced here")
	}
	set := func(t *testing.T, c syscall.Conn, on bool) {
		control(t, c, func(fd int) error { return sys.SetCoalescing(uintptr(fd), on) })
	}
	for _, mode := range []GROMode{GROAuto, GROOn} {
		for _, deep := range []bool{false, true} {
			t.Run(fmt.Sprint(mode, deep), func(t *testing.T) {
				u := listen(t, "udp4", "127.0.0.1")
				growBuffer(u)
				set(t, u, true)
				in := newConn(t, u, &Config{GRO: mode})
				_, out, _ := readPair(t, nil)
				to := addrPortOf(u)
				checkGlued(t, in, out, to)
				set(t, in, false)
				if deep {
					checkApart(t, in, out, to)
				}
				set(t, in, true)
				checkGlued(t, in, out, to)
				set(t, in, false)
				checkApart(t, in, out, to)
			})
		}
	}
}

// checkGlued: the user's UDP_GRO has reads return runs as the kernel gives
// them, with their stride.
func checkGlued(t *testing.T, in, out *Conn, to netip.AddrPort) {
	t.Helper()
	p, oob := make([]byte, 100), make([]byte, 100)
	sent := 0
	for range 30 {
		sendRuns(t, out, to, 1, &sent)
		n, oobn, _, _, err := in.ReadMsgUDPAddrPort(p, oob)
		if stride, _ := sys.TakeStride(oob[:oobn]); n != 30 || stride != 10 || err != nil {
			t.Fatalf("%d bytes, stride %d, %v; want a run", n, stride, err)
		}
		sendRuns(t, out, to, 1, &sent)
		m := InputMessage{Vectors: [][]byte{p}, Control: oob}
		n, err = in.ReceiveMessage(nil, &m, 0)
		if stride, _ := sys.TakeStride(oob[:m.ControlReceived]); n != 30 || stride != 10 || err != nil {
			t.Fatalf("%d bytes, stride %d, %v; want a run", n, stride, err)
		}
	}
	if s := in.Stats(); s.GRO || s.GROReason != sys.ReasonGROSet {
		t.Errorf("%+v", s)
	}
}

// checkApart: reads return datagrams, and coalescing is ours.
func checkApart(t *testing.T, in, out *Conn, to netip.AddrPort) {
	t.Helper()
	sent, read := 0, 0
	sendRuns(t, out, to, 40, &sent)
	readRuns(t, func(p []byte) (int, error) { return in.Read(p) }, 120, &read)
	sendRuns(t, out, to, 1, &sent)
	readRuns(t, readNow(in), 3, &read)
	if s := in.Stats(); !s.GRO {
		t.Errorf("%+v", s)
	}
}

// TestGROOff: by the Config or the environment, coalescing never goes on,
// however deep the queue is.
func TestGROOff(t *testing.T) {
	for reason, mode := range map[string]GROMode{"GROOff": GROOff, "BATCHCONN_GRO": GROOn} {
		t.Run(reason, func(t *testing.T) {
			if mode == GROOn {
				t.Setenv("BATCHCONN_GRO", "off")
			}
			in, out, to := readPair(t, &Config{GRO: mode})
			sent, read := 0, 0
			sendRuns(t, out, to, 100, &sent)
			readRuns(t, func(p []byte) (int, error) { return in.Read(p) }, 150, &read)
			readRuns(t, readNow(in), 150, &read)
			if s := in.Stats(); s.GRO || !strings.Contains(s.GROReason, reason) || in.optionOn() || s.Coalesced != 0 || s.Received != 300 {
				t.Errorf("%+v", s)
			}
		})
	}
}

// TestGRONotTested: nothing is coalesced where the test has no answer, or a
// wrong one. That there was none is remembered for a second.
func TestGRONotTested(t *testing.T) {
	if !sys.HaveBatchCall {
		t.Skip("nothing is coalesced here")
	}
	was := coalesceTest
	defer func() { coalesceTest = was }()
	for want, answer := range map[string][2]bool{reasonUnanswered: {false, false}, reasonGlued: {true, true}, "": {false, true}} {
		tries, clock := 0, newStoppedClock()
		coalesceTest = &loopbackTest{clock: clock.now, try: func(net.IP) (bool, bool) { tries++; return answer[0], answer[1] }}
		perTest := 1 // else both families are tried
		if !answer[1] {
			perTest = 2
		}
		check := func(tests int) {
			t.Helper()
			in, _, _ := readPair(t, nil)
			if s := in.Stats(); s.GROReason != want || s.GRO != (want == "") {
				t.Errorf("%+v, want %q", s, want)
			}
			if tries != tests*perTest {
				t.Errorf("%q: %d tries, want %d", want, tries, tests*perTest)
			}
		}
		check(1)
		clock.advance(loopbackSilence - 1)
		check(1)
		clock.advance(1)
		if answer[1] {
			check(1)
		} else {
			check(2)
		}
	}
}

// TestGROFilter: a filter sees the length of what arrives.
func TestGROFilter(t *testing.T) {
	if !sys.HaveBatchCall {
		t.Skip("nothing is coalesced here")
	}
	u := listen(t, "udp4", "127.0.0.1")
	accept := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 1 << 16}}
	control(t, u, func(fd int) error {
		return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &accept[0]})
	})
	in, err := New(u, &Config{GRO: GROOn})
	if err != nil {
		t.Fatal(err)
	}
	if s := in.Stats(); s.GRO || !strings.Contains(s.GROReason, "filter") || in.optionOn() {
		t.Errorf("%+v", s)
	}
}

// TestTwoConns: two Conns of one socket read it both, whatever each has on.
func TestTwoConns(t *testing.T) {
	if !sys.HaveBatchCall {
		t.Skip("nothing is coalesced here")
	}
	for _, modes := range [][2]GROMode{{GROAuto, GROAuto}, {GROOn, GROAuto}, {GROAuto, GROOn}, {GROOn, GROOn}, {GROOff, GROOn}, {GROOn, GROOff}} {
		t.Run(fmt.Sprint(modes), func(t *testing.T) { testTwoConns(t, modes) })
	}
}

func testTwoConns(t *testing.T, modes [2]GROMode) {
	u := listen(t, "udp4", "127.0.0.1")
	growBuffer(u)
	other := twin(t, u)
	a := newConn(t, u, &Config{GRO: modes[0]})
	_, out, _ := readPair(t, nil)
	to := addrPortOf(u)
	sent, read := 0, 0
	sendRuns(t, out, to, 20, &sent)
	readRuns(t, func(p []byte) (int, error) { return a.Read(p) }, 31, &read)
	b := newConn(t, other, &Config{GRO: modes[1]})
	sendRuns(t, out, to, 40, &sent)
	got := make(map[string]int)
	for i := range sent - read {
		p := make([]byte, 100)
		n, err := readEither(p, []*Conn{a, b}[i%2], []*Conn{b, a}[i%2])
		if n != 10 || err != nil {
			t.Fatalf("datagram %d: %q, %v; %+v", i, p[:n], err, a.Stats())
		}
		got[string(p[:n])]++
	}
	if len(got) != 26 {
		t.Errorf("%d letters", len(got))
	}
}

// readEither reads a datagram from one of two Conns, which a busy kernel may
// deliver late.
func readEither(p []byte, a, b *Conn) (n int, err error) {
	for end := time.Now().Add(patience); ; runtime.Gosched() {
		if n, err = readNow(a)(p); errors.Is(err, ErrWouldBlock) {
			n, err = readNow(b)(p)
		}
		if !errors.Is(err, ErrWouldBlock) || time.Now().After(end) {
			return n, err
		}
	}
}

// twin is another *net.UDPConn of the socket of u.
func twin(t *testing.T, u *net.UDPConn) *net.UDPConn {
	t.Helper()
	f, err := u.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn)
}

// TestQuiet: coalescing that brings nothing goes off, and comes again with
// runs.
func TestQuiet(t *testing.T) {
	if !sys.HaveBatchCall {
		t.Skip("nothing is coalesced here")
	}
	in, out, to := readPair(t, nil)
	plain, err := New(listen(t, "udp4", "127.0.0.1"), &Config{GSO: GSOOff})
	if err != nil {
		t.Fatal(err)
	}
	sent, read := 0, 0
	one := func(p []byte) (int, error) { n, _, err := in.ReadFromUDPAddrPort(p); return n, err }
	until := func(what string, by *Conn, done func() bool) {
		t.Helper()
		for end := time.Now().Add(patience); !done(); {
			sendRuns(t, by, to, 30, &sent)
			readRuns(t, one, 90, &read)
			if _, err := readNow(in)(nil); !errors.Is(err, ErrWouldBlock) {
				t.Fatal(err)
			}
			if time.Now().After(end) {
				t.Fatalf("never %s: %+v", what, in.recv.gro)
			}
		}
	}
	for range 3 {
		until("on", out, in.optionOn)
		until("off", plain, func() bool { return !in.optionOn() })
		until("plain", plain, func() bool { return !in.recv.isAware.Load() && (!in.recv.ours.Load() || in.recv.isQuick.Load()) })
		in.recv.retry.Store(0) // as if the pause were over
	}
}

// TestSettledAtOnce: when coalescing has settled, the next read that finds the
// queue empty is the last that is aware. Until then each read costs more.
func TestSettledAtOnce(t *testing.T) {
	in, _, _ := readPair(t, nil)
	in.recv.mu.Lock()
	in.recv.turnOnLocked()
	on := in.recv.gro.on
	in.recv.settleLocked()
	settled := on && !in.recv.gro.on
	in.recv.mu.Unlock()
	if !on {
		t.Skip(in.Stats().GROReason)
	}
	if _, err := readNow(in)(nil); !settled || !errors.Is(err, ErrWouldBlock) || in.recv.isAware.Load() {
		t.Errorf("settled %v; read: %v; aware %v", settled, err, in.recv.isAware.Load())
	}
}

// TestSwitchingStorm: a sender segments without a break, readers read, and
// everything is turned on and off: no datagram is glued, split or doubled.
func TestSwitchingStorm(t *testing.T) {
	for _, mode := range []GROMode{GROOn, GROAuto} { // which alone settles
		t.Run(fmt.Sprint(mode), func(t *testing.T) { testSwitchingStorm(t, mode) })
	}
}

func testSwitchingStorm(t *testing.T, mode GROMode) {
	in, out, to := readPair(t, &Config{GRO: mode})
	if !in.Stats().GRO {
		t.Skip(in.Stats().GROReason)
	}
	s := &switching{t: t, in: in}
	var wg sync.WaitGroup
	for _, k := range []int{0, 4, 5} {
		wg.Go(func() {
			for err := error(nil); !errors.Is(err, net.ErrClosed); {
				err = readerKinds[k].read(in, s.take)
			}
		})
	}
	stop := make(chan struct{})
	wg.Go(func() { s.turn(stop) })
	sent := uint32(0)
	for end := time.Now().Add(*readersFor); time.Now().Before(end) && !t.Failed(); {
		var p []byte
		for range 50 {
			p = binary.BigEndian.AppendUint32(p, sent)
			p = binary.BigEndian.AppendUint32(p, ^sent)
			sent++
		}
		if err := sendAll(out, nil, AppendSegments(nil, to, p, 8, nil)); err != nil {
			t.Fatal(err)
		}
		s.awaitRead(int64(sent) - 2000)
	}
	s.awaitRead(int64(sent))
	close(stop)
	stats := in.Stats()
	in.Close()
	wg.Wait()
	if s.turnedOn < 3 || mode == GROAuto && s.settled == 0 {
		t.Errorf("turned on %d times, settled %d times", s.turnedOn, s.settled)
	}
	t.Logf("%d datagrams, turned on %d times, settled %d times; %+v", sent, s.turnedOn, s.settled, stats)
}

// A switching is what is read while everything is turned on and off.
type switching struct {
	t    *testing.T
	in   *Conn
	seen sync.Map
	read atomic.Int64

	settled  int
	turnedOn int // how often it was seen on after it was seen off
}

func (s *switching) take(p []byte) {
	if len(p) != 8 || binary.BigEndian.Uint32(p) != ^binary.BigEndian.Uint32(p[4:]) {
		s.t.Errorf("%x", p)
	} else if _, twice := s.seen.LoadOrStore(binary.BigEndian.Uint32(p), true); twice {
		s.t.Errorf("%x twice", p)
	}
	s.read.Add(1)
}

// awaitRead waits until so many were read.
func (s *switching) awaitRead(n int64) {
	for end := time.Now().Add(patience); s.read.Load() < n && !s.t.Failed(); time.Sleep(10 * time.Microsecond) {
		if time.Now().After(end) {
			s.t.Errorf("%d of %d datagrams were read; state %d, held %v", s.read.Load(), n, s.in.recv.queue.state.Load(), s.in.recv.hasHeld.Load())
		}
	}
}

// turn has coalescing settle, and every other time go off for a Control.
func (s *switching) turn(stop <-chan struct{}) {
	raw, err := s.in.SyscallConn()
	if err != nil {
		s.t.Error(err)
	}
	wasOff := false
	for i := 0; ; i++ {
		select {
		case <-stop:
			return
		default:
		}
		if i%2 == 0 {
			raw.Control(func(fd uintptr) {
				on, _ := sys.Coalescing(fd)
				wasOff = wasOff || !on
			})
		}
		s.in.recv.mu.Lock()
		was := s.in.recv.gro.on
		if was && wasOff {
			s.turnedOn++
			wasOff = false
		}
		s.in.recv.quiet = quietAfter
		s.in.recv.settleLocked()
		if was && !s.in.recv.gro.on {
			s.settled++
			wasOff = true
		}
		s.in.recv.retry.Store(0) // as if the pause were over
		s.in.recv.mu.Unlock()
		time.Sleep(100 * time.Microsecond)
	}
}

// TestTurnedOnBesideNet: coalescing does not go on while a read of package
// net's waits, which would take a run for a datagram.
func TestTurnedOnBesideNet(t *testing.T) {
	for range 200 {
		in, out, to := readPair(t, nil)
		if !in.Stats().GRO {
			t.Skip(in.Stats().GROReason)
		}
		var lengths, read atomic.Int64
		got := func(p []byte) {
			lengths.Add(int64(len(p)))
			read.Add(1)
		}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			for readerKinds[4].read(in, got) == nil {
			}
		}()
		awaitReader(t, in)
		sent := 0
		for range 3 {
			sendRuns(t, out, to, 10, &sent)
			receiveInto(in, nil, 30, MsgDontWait, got)
			sendRuns(t, out, to, 1, &sent)
			for end := time.Now().Add(patience); read.Load() < int64(sent); time.Sleep(10 * time.Microsecond) {
				if time.Now().After(end) {
					t.Fatalf("%d of %d were read, %d bytes", read.Load(), sent, lengths.Load())
				}
			}
		}
		if lengths.Load() != int64(10*sent) {
			t.Fatalf("%d bytes in %d datagrams", lengths.Load(), sent)
		}
		in.Close()
		<-ended
		out.Close()
	}
}

// TestSameRoomTwice: messages of one call may share a vector, as they may with
// the kernel: the last that is received into it is what it holds.
func TestSameRoomTwice(t *testing.T) {
	in, out, to := coalescing(t)
	sent := 0
	single := func(n int) {
		for range n {
			p := []byte(strings.Repeat(string(rune('a'+sent%26)), 20))
			sent++
			if _, err := out.SendTo(nil, p, to, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	room := func() []byte { return make([]byte, 25) }
	in.recv.ahead, in.recv.runs = maxAhead, false // as if many came, and no runs: straight into the vectors
	sendRuns(t, out, to, 1, &sent)                // a, b and c
	single(3)                                     // d, e and f
	v := room()
	msgs := make([]InputMessage, 6)
	for i := range msgs {
		msgs[i].Vectors = [][]byte{room()}
	}
	msgs[0].Vectors[0], msgs[1].Vectors[0] = v, v[:20]
	if n, err := in.ReceiveMessages(nil, msgs, MsgWaitAll); n != 6 || err != nil {
		t.Fatal(n, err)
	}
	for i, m := range msgs[1:] {
		want := strings.Repeat(string(rune('b'+i)), 10)
		if i >= 2 {
			want += want
		}
		if string(m.Vectors[0][:m.BytesReceived]) != want {
			t.Errorf("message %d: %q, want %q", i+1, m.Vectors[0][:m.BytesReceived], want)
		}
	}
}

const childEnv = "BATCHCONN_TEST_CHILD"

// TestTwoProcesses: a process that inherits the socket makes a Conn of it and
// coalesces, and both read datagrams.
func TestTwoProcesses(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		readAsChild(t)
		return
	}
	in, out, to := coalescing(t)
	f, err := in.File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestTwoProcesses$")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.ExtraFiles = []*os.File{f}
	var output strings.Builder
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	f.Close()
	for end := time.Now().Add(patience); !in.optionOn(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("the child does not coalesce")
		}
	}
	sent, n := 0, 0
	for range 200 {
		sendRuns(t, out, to, 1, &sent)
	}
	in.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	for p := make([]byte, 100); ; n++ {
		k, err := in.Read(p)
		if err != nil {
			break
		}
		if k != 10 {
			t.Fatalf("%q", p[:k])
		}
	}
	in.SetReadDeadline(time.Time{})
	for range 3 { // ends the child
		if err := sendAll(out, nil, []OutputMessage{{Addr: to, Vectors: [][]byte{[]byte("end")}}}); err != nil {
			t.Fatal(err)
		}
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v: %s", err, output.String())
	}
	t.Logf("read here: %d of %d; %s", n, sent, output.String())
}

// readAsChild reads the socket that it was given until it is told to end.
func readAsChild(t *testing.T) {
	u, err := net.FilePacketConn(os.NewFile(3, "socket"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(u.(*net.UDPConn), &Config{GRO: GROOn})
	if err != nil {
		t.Fatal(err)
	}
	p, n := make([]byte, 100), 0
	for ; ; n++ {
		c.SetReadDeadline(time.Now().Add(patience))
		k, err := c.Read(p)
		if err != nil {
			t.Fatal(err)
		}
		if string(p[:k]) == "end" {
			break
		}
		if k != 10 {
			t.Fatalf("%q", p[:k])
		}
	}
	fmt.Println("read by the child:", n)
}
