// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"net/netip"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/netns"
	"github.com/batchconn/batchconn/internal/sys"
)

// TestFragmentsFindNoRoom: a datagram whose first fragment finds room and whose
// others do not, to which the kernel answers ENOBUFS, waits like any other.
func TestFragmentsFindNoRoom(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for way, send := range fullSends {
			nw, large := halfFull(t, lo)
			_, err := nw.c.SendTo(nil, large, nw.to, MsgDontWait)
			checkError(t, err, ErrWouldBlock)
			n, err := nw.c.SendMessages(nil, []OutputMessage{{Addr: nw.to, Vectors: [][]byte{large}}}, MsgDontWait)
			checkWouldBlock(t, way, n, err)
			sent := make(chan error, 1)
			go func() { sent <- send(nw, large) }()
			nw.awaitWaiting(1)
			lo.setTap(open)
			if err := receive(t, way, sent); err != nil {
				t.Errorf("%s: %v", way, err)
			}
			if s := nw.c.Stats(); s.Failed != 0 || s.Messages != 1 {
				t.Errorf("%s: %+v", way, s)
			}
			nw.c.Close()
			netns.Check(t, lo.ns.Loopback().RemoveBucket())
		}
	})
}

// TestFragmentsFitNowhere: where they do not fit in the empty buffer either,
// that is the user's error.
func TestFragmentsFitNowhere(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for way, send := range fullSends {
			nw := newNarrows(t, lo, open, nil)
			if err := send(nw, make([]byte, 60000)); !errors.Is(err, unix.ENOBUFS) {
				t.Errorf("%s: %v", way, err)
			}
			if s := nw.c.Stats(); s.Failed != 1 || s.Parked != 0 {
				t.Errorf("%s: %+v", way, s)
			}
		}
	})
}

// halfFull is a Conn whose buffer is more than half full, and a datagram that
// is answered ENOBUFS for that.
func halfFull(t *testing.T, lo *loopback) (nw *narrows, large []byte) {
	t.Helper()
	nw = newNarrows(t, lo, shut, nil)
	nw.u.SetWriteBuffer(16 << 10) // of which the kernel makes twice as much
	nw.rx.WriteToUDPAddrPort(make([]byte, 1400), nw.to)
	nw.rx.WriteToUDPAddrPort(make([]byte, 1400), nw.to) // and now nothing passes the tap
	for held := 0; held < 20<<10; {
		if err := nw.sendOnce(payload(0, 0)); err != nil {
			t.Fatal(err)
		}
		control(t, nw.u, func(fd int) (err error) {
			held, err = unix.IoctlGetInt(fd, unix.SIOCOUTQ)
			return err
		})
	}
	large = make([]byte, 36000)
	if err := nw.sendOnce(large); err != unix.ENOBUFS || nw.poll()&unix.POLLOUT != 0 {
		t.Skipf("this kernel answers %v, not ENOBUFS", err)
	}
	return nw, large
}

// sendOnce sends past the Conn, once.
func (nw *narrows) sendOnce(p []byte) (err error) {
	control(nw.t, nw.u, func(fd int) error {
		err = unix.Sendto(fd, p, unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: nw.to.Addr().As4(), Port: int(nw.to.Port())})
		return nil
	})
	return err
}

// fullSends send one datagram and wait for room.
var fullSends = map[string]func(nw *narrows, p []byte) error{
	"SendTo": func(nw *narrows, p []byte) error {
		_, err := nw.c.SendTo(nil, p, nw.to, 0)
		return err
	},
	"SendMessages": func(nw *narrows, p []byte) error {
		_, err := nw.c.SendMessages(nil, []OutputMessage{{Addr: nw.to, Vectors: [][]byte{p[:1], p[1:]}}}, 0)
		return err
	},
	"SendEach": func(nw *narrows, p []byte) error {
		_, err := nw.c.SendEach(nil, []OutputMessage{{Addr: nw.to, Vectors: [][]byte{p}}}, 0)
		return err
	},
	"Writer": func(nw *narrows, p []byte) error {
		w := NewWriter(nw.c, &WriterConfig{OnError: func(netip.AddrPort, error) {}})
		if _, err := w.WriteToUDPAddrPort(p, nw.to); err != nil {
			return err
		}
		return w.Flush(nil)
	},
}

// TestWaitingForRoomNoAllocation: a call that waits for room over and over
// allocates next to nothing: it does not try in vain before each wait, for
// which x/net makes an error.
func TestWaitingForRoomNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector empties pools")
	}
	if !sys.HaveBatchCall {
		t.Skip("one datagram a system call")
	}
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := newNarrows(t, lo, netns.Bucket{Rate: 12_500_000, Burst: 64 << 10, Limit: 16 << 20}, &Config{GSO: GSOOff})
		nw.u.SetWriteBuffer(100 << 10)
		msgs, _ := messagesTo([]netip.AddrPort{nw.to}, 512, 1200)
		send := func(parked uint64) (mallocs uint64) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for parked += nw.c.Stats().Parked; nw.c.Stats().Parked < parked; {
				if _, err := nw.c.SendMessages(nil, msgs, 0); err != nil {
					t.Fatal(err)
				}
			}
			runtime.ReadMemStats(&after)
			return after.Mallocs - before.Mallocs
		}
		send(5)
		if n := send(50); n > 50 {
			t.Errorf("%d allocations in 50 waits", n)
		}
	})
}

// TestErrorAfterFullSocket: a socket that was full and has room again makes no
// call wait that met an error of a message: not even where poll(2) does not yet
// call it writable.
func TestErrorAfterFullSocket(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		nw := filled(t, lo, nil)
		_, err := nw.c.SendMessages(nil, nw.messages(1, 0, 2), MsgDontWait) // which notes it
		checkError(t, err, ErrWouldBlock)
		nw.u.SetWriteBuffer(16 << 10)
		for nw.poll()&unix.POLLOUT != 0 {
			if err := nw.sendOnce(payload(0, 0)); err != nil {
				t.Fatal(err)
			}
		}
		msgs := nw.messages(1, 0, 3)
		msgs[1].Vectors = [][]byte{make([]byte, 65508)}
		n, err := nw.c.SendMessages(nil, msgs, 0)
		if n != 1 || err != nil {
			t.Fatalf("%d, %v; want the first alone", n, err)
		}
		if parked := nw.c.Stats().Parked; parked != 0 {
			t.Errorf("it waited %d times for the room that there was", parked)
		}
	})
}
