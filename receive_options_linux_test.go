// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"fmt"
	"net/netip"
	"runtime"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

// userSets sets UDP_GRO as a user does.
func userSets(t testing.TB, c syscall.Conn, on bool) {
	t.Helper()
	control(t, c, func(fd int) error { return sys.SetCoalescing(uintptr(fd), on) })
}

// groAuto is a readPair that may coalesce, and does not yet.
func groAuto(t testing.TB) (in, out *Conn, to netip.AddrPort) {
	t.Helper()
	in, out, to = readPair(t, nil)
	if !in.Stats().GRO {
		t.Skip(in.Stats().GROReason)
	}
	return in, out, to
}

// TestOptionTakenAwayFromShared: on a Conn that is off for good the user sets
// UDP_GRO and clears it again. No read of package net's sleeps then while a
// datagram is held, neither one that waited meanwhile nor a new one.
func TestOptionTakenAwayFromShared(t *testing.T) {
	for _, waits := range []bool{false, true} {
		in, out, to := groAuto(t)
		f, err := in.File()
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		userSets(t, in, true)
		if err := exchange(in, out, to, "x"); err != nil { // net's reads are its own again
			t.Fatal(err)
		}
		ended := make(chan error, 1)
		read := func() {
			in.SetReadDeadline(time.Now().Add(patience))
			_, err := in.Read(make([]byte, 10))
			ended <- err
		}
		if waits {
			go read()
			awaitReader(t, in)
		}
		userSets(t, in, false)
		if !waits {
			if _, err := out.SendTo(nil, []byte("held"), to, 0); err != nil {
				t.Fatal(err)
			}
			if n, _, err := in.ReceiveFrom(nil, make([]byte, 10), unix.MSG_PEEK); n != 4 || err != nil {
				t.Fatal(n, err)
			}
			go read()
		} else {
			peekUntilHeld(t, in, out, to)
		}
		if err := receiveWithin(t, "a read while a datagram is held", ended); err != nil {
			t.Errorf("waiting before %v: %v", waits, err)
		}
	}
}

// exchange sends one datagram and receives it.
func exchange(in, out *Conn, to netip.AddrPort, p string) error {
	if _, err := out.SendTo(nil, []byte(p), to, 0); err != nil {
		return err
	}
	got := make([]byte, len(p)+1)
	n, from, err := in.ReceiveFrom(nil, got, 0)
	if err == nil && (string(got[:n]) != p || from != addrPortOf(out)) {
		err = fmt.Errorf("%q from %v", got[:n], from)
	}
	return err
}

// peekUntilHeld peeks until a datagram was seen, and so is held, while another
// read waits. If that took them all, there is nothing to show.
func peekUntilHeld(t *testing.T, in, out *Conn, to netip.AddrPort) {
	t.Helper()
	if in.recv.net.underWay() != 0 {
		t.Fatal("a read of net's own waits on a socket of which others may have UDP_GRO on")
	}
	if _, err := out.SendTo(nil, []byte("held"), to, 0); err != nil {
		t.Fatal(err)
	}
	in.ReceiveFrom(nil, make([]byte, 10), unix.MSG_PEEK|MsgDontWait)
}

// TestControlNotOvertaken: while a Control of the user's runs no read turns
// coalescing on: it sees the socket as the user left it, and what it sets
// stays.
func TestControlNotOvertaken(t *testing.T) {
	in, out, to := groAuto(t)
	raw, err := in.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	sent, read := 0, 0
	raw.Control(func(fd uintptr) {
		for range 30 {
			sendRuns(t, out, to, 30, &sent)
			readRuns(t, readNow(in), 90, &read)
		}
		if on, _ := sys.Coalescing(fd); on {
			t.Error("a read turned UDP_GRO on under a Control of the user's")
		}
		if err := sys.SetCoalescing(fd, true); err != nil {
			t.Error(err)
		}
	})
	checkUserGRO(t, in, out, to)
	userSets(t, in, false)
	for range 30 {
		sendRuns(t, out, to, 30, &sent)
		readRuns(t, readNow(in), 90, &read)
	}
	if !in.optionOn() {
		t.Error("coalescing never goes on again")
	}
}

// checkUserGRO makes sure that a run comes as it should once the user has set
// UDP_GRO.
func checkUserGRO(t *testing.T, in, out *Conn, to netip.AddrPort) {
	t.Helper()
	sent := 0
	for range 20 {
		sendRuns(t, out, to, 1, &sent)
		p, oob := make([]byte, 100), make([]byte, 100)
		m := InputMessage{Vectors: [][]byte{p}, Control: oob}
		n, err := in.ReceiveMessage(nil, &m, 0)
		if stride, _ := sys.TakeStride(oob[:m.ControlReceived]); n != 30 || stride != 10 || err != nil {
			t.Fatalf("%d bytes, stride %d, %v; want the user's run", n, stride, err)
		}
	}
}

// TestUserGROSharedStays: UDP_GRO that the user had set before New stays as it
// is though others read the socket too: reads return what the kernel gives.
func TestUserGROSharedStays(t *testing.T) {
	for name, share := range map[string]func(c *Conn) error{
		"File": func(c *Conn) error {
			f, err := c.File()
			if err == nil {
				f.Close()
			}
			return err
		},
		"SyscallConn": func(c *Conn) error {
			raw, err := c.SyscallConn()
			if err != nil {
				return err
			}
			return raw.Read(func(uintptr) bool { return true })
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, out, _ := groAuto(t)
			u := listen(t, "udp4", "127.0.0.1")
			userSets(t, u, true)
			in := newConn(t, u, nil)
			if err := share(in); err != nil {
				t.Fatal(err)
			}
			checkUserGRO(t, in, out, addrPortOf(u))
		})
	}
}

// TestStatsDuringControl: Stats that looks at the socket while the user sets
// UDP_GRO does not hide from the reads that it is the user's.
func TestStatsDuringControl(t *testing.T) {
	in, out, to := coalescing(t)
	userSets(t, in, false) // off, and reads stay aware; to be probed again
	raw, err := in.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) {
		if err := sys.SetCoalescing(fd, true); err != nil {
			t.Error(err)
		}
		in.Stats()
	})
	checkUserGRO(t, in, out, to)
}

// TestControlsAtOnce: Controls that overlap, beside readers and a sender that
// segments, glue nothing, and afterwards coalescing goes on again.
func TestControlsAtOnce(t *testing.T) {
	in, out, to := coalescing(t)
	raw, err := in.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	stop, done := make(chan struct{}), make(chan struct{}, 4)
	var controls atomic.Int64
	for range cap(done) {
		go func() {
			defer func() { done <- struct{}{} }()
			for {
				select {
				case <-stop:
					return
				default:
					raw.Control(func(fd uintptr) {
						if on, _ := sys.Coalescing(fd); on {
							t.Error("UDP_GRO is on under a Control of the user's")
						}
						controls.Add(1)
					})
					runtime.Gosched()
				}
			}
		}()
	}
	sent, read, coalesced, began := 0, 0, 0, controls.Load()
	for end := time.Now().Add(*readersFor / 4); time.Now().Before(end) && !t.Failed(); {
		was := in.Stats().Coalesced
		sendRuns(t, out, to, 30, &sent)
		readRuns(t, func(p []byte) (int, error) { return in.Read(p) }, 90, &read)
		if in.Stats().Coalesced != was && controls.Load() > began {
			coalesced++ // it had been turned off before, and was on again
		}
	}
	close(stop)
	for range cap(done) {
		<-done
	}
	if t.Logf("%d Controls, %d times coalesced after one", controls.Load(), coalesced); coalesced == 0 {
		t.Error("nothing was coalesced after a Control")
	}
	if !in.optionOn() { // at once, when the last Control has ended
		t.Error("coalescing stays off after the last Control")
	}
}

// TestFileUnderLoad: a File that is taken while runs arrive makes no datagram
// of several, neither of those that were drained nor of those that come then.
func TestFileUnderLoad(t *testing.T) {
	was := lateRun
	defer func() { lateRun = was }()
	lateRun = 100 * time.Millisecond // emulated processors stop at any point, and for long
	rounds := 30
	if testing.Short() {
		rounds = 8
	}
	for range rounds {
		in, out, to := coalescing(t)
		sent, taken := 0, make(chan struct{})
		go func() {
			defer close(taken)
			for in.Stats().Received < 50 {
				runtime.Gosched()
			}
			if f, err := in.File(); err == nil {
				f.Close()
			}
		}()
		for range 40 {
			sendRuns(t, out, to, 5, &sent)
			readRuns(t, readNow(in), 15, new(sent-15))
		}
		<-taken
		if in.optionOn() {
			t.Fatal("the option is on beside a File")
		}
		in.Close()
		out.Close()
	}
}
