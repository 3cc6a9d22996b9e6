// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/harness"
	"github.com/batchconn/batchconn/internal/sys"
)

// TestRawWriteNeverWaits: what the user does by RawConn.Write without waiting
// does not wait for a send that is parked with the lock of the descriptor.
func TestRawWriteNeverWaits(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := filled(t, lo, nil)
		calls := nw.startWaits(nil, 1, 2)
		raw := rawOf(t, nw.c)
		for range 3 {
			atOnce(t, "RawConn.Write", func() {
				if err := raw.Write(func(uintptr) bool { return true }); err != nil {
					t.Error(err)
				}
			})
		}
		stillWaiting(t, calls)
		lo.setTap(open)
		allEnded(t, calls, 1, nil)
	})
}

// growSendBuffer has room in a full socket of which the kernel tells nobody,
// since it is less than half of the buffer.
func (nw *narrows) growSendBuffer() {
	nw.t.Helper()
	control(nw.t, nw.u, option(unix.SOL_SOCKET, unix.SO_SNDBUF, grownBuffer))
}

// grownBuffer is more than the buffer of a narrows, and less than twice that.
const grownBuffer = 6800

// TestRoomOfNoHalf: room of which the kernel does not tell is for net's own
// writes, and for sends that do not wait: at most until the send that it is
// reserved for was made to take it.
func TestRoomOfNoHalf(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for what, send := range map[string]func(nw *narrows) error{
			"WriteTo": func(nw *narrows) error {
				_, err := nw.c.WriteTo(payload(2, 0), net.UDPAddrFromAddrPort(nw.to))
				return err
			},
			"SendTo": func(nw *narrows) error {
				_, err := nw.c.SendTo(nil, payload(2, 0), nw.to, MsgDontWait)
				return err
			},
		} {
			nw := filled(t, lo, nil)
			nw.startWaits(nil, 1, 1)
			nw.c.send.queue.since.Store(sinceEpoch(time.Now().Add(-time.Hour))) // it has starved
			nw.growSendBuffer()
			await(t, what, func() bool {
				var err error
				atOnce(t, what, func() { err = send(nw) })
				if err != nil && !errors.Is(err, ErrWouldBlock) {
					t.Fatal(err)
				}
				return err == nil
			})
			nw.c.Close()
		}
	})
}

// TestSetWriteBufferWakes: who enlarges the buffer wakes the send that waits.
func TestSetWriteBufferWakes(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := filled(t, lo, nil)
		calls := nw.startWaits(nil, 1, 1)
		if err := nw.c.SetWriteBuffer(grownBuffer); err != nil {
			t.Fatal(err)
		}
		allEnded(t, calls, 1, nil)
	})
}

// TestDeadlineBehind: a deadline that is set on the *net.UDPConn ends none of
// our calls, and net's own as in net. None of them goes round and round.
func TestDeadlineBehind(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := filled(t, lo, nil)
		q := &nw.c.send.queue
		if _, err := q.line.enter(nil, &q.ends); err != nil {
			t.Fatal(err)
		}
		var rounds atomic.Int32
		done := make(chan error, 1)
		go func() {
			done <- q.park(nil, waitFunc(func() error {
				rounds.Add(1)
				return q.wait(func(uintptr) bool { return false })
			}))
		}()
		nw.awaitWaiting(1)
		nw.u.SetWriteDeadline(aLongTimeAgo)
		if sys.ParksWriters {
			await(t, "it parks again", func() bool { return rounds.Load() > 1 })
		}
		time.Sleep(20 * time.Millisecond)
		if n := rounds.Load(); n > 3 {
			t.Errorf("it parked %d times", n)
		}
		nw.c.SetWriteDeadline(aLongTimeAgo)
		checkIs(t, receive(t, "the end", done), os.ErrDeadlineExceeded)
		q.leaveTurn()
		nw.c.SetWriteDeadline(time.Time{})

		pc := ipv4.NewPacketConn(nw.c)
		pc.PacketConn = nw.u // as docs/libraries.md has it
		pc.SetDeadline(aLongTimeAgo)
		atOnce(t, "x/net's calls", func() {
			_, err := pc.WriteTo(payload(2, 0), nil, net.UDPAddrFromAddrPort(nw.to))
			checkIs(t, err, os.ErrDeadlineExceeded)
			_, _, _, err = pc.ReadFrom(make([]byte, payloadSize))
			checkIs(t, err, os.ErrDeadlineExceeded)
		})
	})
}

// TestReadDeadlineBehind: as TestDeadlineBehind, for the reads of net's names,
// which are ours or net's.
func TestReadDeadlineBehind(t *testing.T) {
	w := plainKind.world(t, 1, nil)
	u := w.conn.udpConn
	before := harness.ProcessCPU()
	u.SetReadDeadline(aLongTimeAgo)
	done := make(chan error, 1)
	go func() {
		_, err := w.conn.Read(make([]byte, 10))
		done <- err
	}()
	time.Sleep(300 * time.Millisecond)
	if used := harness.ProcessCPU() - before; used > 100*time.Millisecond {
		t.Errorf("a read that waits took %v of processor in 300 ms", used)
	}
	w.conn.Close()
	checkIs(t, receive(t, "Read", done), net.ErrClosed)
}

func checkIs(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Errorf("error %v; want %v", err, want)
	}
}

// TestFirstWatcher: the first WaitWritable, which makes the place, goes by a
// deadline that was set before, and ends with a Close that comes meanwhile.
func TestFirstWatcher(t *testing.T) {
	rule := waitForRoom
	rule.ready = func(uintptr) (bool, error) { return false, nil }
	open := func() *Conn {
		c := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
		c.send.queue.rule = &rule
		return c
	}
	c := open()
	c.SetWriteDeadline(time.Now().Add(time.Millisecond))
	atOnce(t, "WaitWritable", func() { checkIs(t, c.WaitWritable(nil), os.ErrDeadlineExceeded) })
	for range 200 {
		c := open()
		done := make(chan error, 1)
		go func() { done <- c.WaitWritable(nil) }()
		c.Close()
		checkIs(t, receive(t, "WaitWritable", done), net.ErrClosed)
	}
	c = open()
	c.Close() // and only then the place is made
	_, err := c.send.queue.watcher().ready()
	checkIs(t, err, net.ErrClosed)
}

// TestBlockingSocket: a File made the socket blocking, and so a write of net's
// own waits in the kernel with the lock. Ours are cancelled all the same.
func TestBlockingSocket(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := filled(t, lo, nil)
		rule := waitForRoom
		rule.dupExpiry = -1 // the write was seen long ago
		nw.c.send.queue.rule = &rule
		f, err := nw.c.File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		f.Fd()
		wrote := make(chan error, 1)
		go func() {
			_, err := nw.c.WriteTo(payload(9, 0), net.UDPAddrFromAddrPort(nw.to))
			wrote <- err
		}()
		time.Sleep(20 * time.Millisecond) // for it to be in the kernel
		ctx, cancel := context.WithCancel(t.Context())
		calls := nw.startWaits(ctx, 1, 2)
		cancel()
		allEnded(t, calls, 0, context.Canceled)
		lo.setTap(open)
		if err := receive(t, "WriteTo", wrote); err != nil {
			t.Error(err)
		}
	})
}

// TestSetDeadlineKicked: SetDeadline sets both deadlines, whoever is kicked
// meanwhile.
func TestSetDeadlineKicked(t *testing.T) {
	c := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
	places := []*place{&c.send.queue.place, &c.recv.queue.place}
	for kickedOnes := range 1 << len(places) {
		for _, deadline := range []time.Time{aLongTimeAgo, {}} {
			for i, p := range places {
				if kickedOnes>>i&1 != 0 {
					p.state.Store(parked)
					p.kick()
				}
			}
			if err := c.SetDeadline(deadline); err != nil {
				t.Fatal(err)
			}
			for i, p := range places {
				if kickedOnes>>i&1 != 0 {
					p.unpark()
				}
				if (p.ends.deadline.Load() == 0) != deadline.IsZero() {
					t.Errorf("kicked %b: the record of %v is %d", kickedOnes, deadline, p.ends.deadline.Load())
				}
			}
			at := func(uintptr) bool { return true }
			raw := c.recv.queue.ends.raw
			for _, err := range []error{raw.Read(at), raw.Write(at)} {
				if errors.Is(err, os.ErrDeadlineExceeded) == deadline.IsZero() {
					t.Errorf("kicked %b, deadline %v: %v", kickedOnes, deadline, err)
				}
			}
		}
	}
}
