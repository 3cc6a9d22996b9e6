// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"net"
	"os"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

// TestSettleWithRunQueued: coalescing that goes off because it brings nothing
// glues no run that is queued at that time.
func TestSettleWithRunQueued(t *testing.T) {
	if !sys.HaveBatchCall {
		t.Skip("nothing is coalesced here")
	}
	in, out, to := readPair(t, nil)
	plain, _ := New(listen(t, "udp4", "127.0.0.1"), &Config{GSO: GSOOff})
	sent, read := 0, 0
	one := func(p []byte) (int, error) { n, _, err := in.ReadFromUDPAddrPort(p); return n, err }
	for range 200 {
		if in.optionOn() {
			break
		}
		sendRuns(t, out, to, 30, &sent)
		readRuns(t, one, 90, &read)
	}
	if !in.optionOn() {
		t.Fatal("not on")
	}
	for range 20 {
		sendRuns(t, plain, to, 30, &sent)
		sendRuns(t, out, to, 1, &sent)
		sendRuns(t, plain, to, 5, &sent)
		in.recv.mu.Lock()
		in.recv.quiet = quietAfter - 50
		in.recv.mu.Unlock()
		readRuns(t, one, 108, &read)
	}
}

// TestErrorsAreNotData: errors in a queue that nobody reads are in the socket's
// memory. Coalescing goes off at once all the same, for a Control and because
// it brings nothing, but not while a run is queued.
func TestErrorsAreNotData(t *testing.T) {
	inNamespace(t, func(t *testing.T, _ *loopback) {
		in, peer := connectedPair(t, nil)
		if s := in.Stats(); !s.GRO {
			t.Skip(s.GROReason)
		}
		control(t, in, option(unix.SOL_IP, unix.IP_RECVERR, 1))
		sendUnreachable(t, in.LocalAddr().(*net.UDPAddr), in.RemoteAddr().(*net.UDPAddr), 3, 0)
		awaitError(t, in.conn())
		if _, err := in.Read(make([]byte, 10)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
		locked(in, func() { in.recv.turnOnLocked() })
		if !in.optionOn() {
			t.Fatal("not on")
		}
		was := in.Stats().ReceiveCalls
		control(t, in, func(int) error { return nil })
		if calls := in.Stats().ReceiveCalls - was; calls > 10 || !in.optionOn() {
			t.Errorf("%d calls to find that nothing is queued; then on: %v", calls, in.optionOn())
		}
		sent, read := 0, 0
		sendRuns(t, newConn(t, peer, nil), addrPortOf(in), 1, &sent)
		if locked(in, in.recv.settleLocked); !in.optionOn() {
			t.Error("off, and a run is queued")
		}
		readRuns(t, in.Read, 3, &read)
		if locked(in, in.recv.settleLocked); in.optionOn() {
			t.Error("on, and nothing is queued")
		}
	})
}

// locked calls f with the lock that it needs.
func locked(c *Conn, f func()) {
	c.recv.mu.Lock()
	defer c.recv.mu.Unlock()
	f()
}

// TestRawReaderNotRobbed: with a raw reader beside it, a Conn takes no datagram
// that it does not return.
func TestRawReaderNotRobbed(t *testing.T) {
	for _, mode := range []GROMode{GROAuto, GROOn} {
		in, _, to := readPair(t, &Config{GRO: mode})
		plain, _ := New(listen(t, "udp4", "127.0.0.1"), &Config{GSO: GSOOff})
		raw, _ := in.SyscallConn()
		sent, read := 0, 0
		f, err := in.File() // what is queued at the first raw read would be the Conn's
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		in.SetReadDeadline(time.Now().Add(patience)) // if one is robbed
		sendRuns(t, plain, to, 20, &sent)
		readRuns(t, readNow(in), 20, &read)
		readRuns(t, readRaw(raw), 20, &read)
		readRuns(t, func(p []byte) (int, error) { return in.Read(p) }, 15, &read)
		readRuns(t, readRaw(raw), 5, &read)
	}
}

// TestTwoNews: two Conns made at once of one socket both know of it.
func TestTwoNews(t *testing.T) {
	for range 300 {
		u := listen(t, "udp4", "127.0.0.1")
		f, err := u.File()
		if err != nil {
			t.Fatal(err)
		}
		u2 := dupOf(t, f)
		var wg sync.WaitGroup
		var a, b *Conn
		wg.Go(func() { a, _ = New(u, &Config{GRO: GROOn}) })
		wg.Go(func() { b, _ = New(u2, &Config{GRO: GROOn}) })
		wg.Wait()
		if a.optionOn() || b.optionOn() {
			t.Error("on though shared")
		}
		a.Close()
		b.Close()
	}
}

func dupOf(t *testing.T, f *os.File) *net.UDPConn {
	c, err := net.FilePacketConn(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	return c.(*net.UDPConn)
}
