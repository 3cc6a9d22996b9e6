// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package batchconn

import (
	"bytes"
	"errors"
	"math"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

// ownControl has the kernel cut at size, and sets a TTL.
func ownControl(size uint16) []byte {
	return slices.Concat(cmsgInt(unix.SOL_IP, unix.IP_TTL, 77), cmsg(unix.SOL_UDP, unix.UDP_SEGMENT, uint16s(size)...))
}

// refusingWorlds are sockets whose kernel refuses to segment.
func refusingWorlds(t *testing.T, f func(t *testing.T, w *world, errno syscall.Errno)) {
	t.Run("EINVAL", func(t *testing.T) {
		w := plainKind.world(t, 2, nil)
		control(t, w.conn, option(unix.SOL_SOCKET, unix.SO_NO_CHECK, 1))
		f(t, w, syscall.EINVAL)
	})
	t.Run("EIO", func(t *testing.T) {
		w := &world{kind: plainKind, bare: udpLite(t, [4]byte{127, 0, 0, 1})}
		var err error
		if w.conn, err = New(w.bare, nil); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			c := udpLite(t, [4]byte{127, 0, 0, 1})
			w.inboxes = append(w.inboxes, &inbox{conn: c, addr: addrPortOf(c)})
			w.dest = append(w.dest, addrPortOf(c))
		}
		f(t, w, syscall.EIO)
	})
}

// TestWriterCutsRefused: what its caller segments and the kernel refuses leaves
// plainly, in its place and with its other control data, and nobody is told;
// but the next such write to there fails, once.
func TestWriterCutsRefused(t *testing.T) {
	refusingWorlds(t, func(t *testing.T, world *world, errno syscall.Errno) {
		receiveTTL(t, world.inboxes[0], false)
		w := NewWriter(world.conn, &WriterConfig{MaxDelay: -1, OnError: func(to netip.AddrPort, err error) { t.Errorf("OnError(%v, %v)", to, err) }})
		own := func(s string, to int) error {
			n, oobn, err := w.WriteMsgUDPAddrPort([]byte(s), ownControl(3), world.dest[to])
			if err == nil && (n != len(s) || oobn != len(ownControl(3))) || err != nil && n+oobn != 0 {
				t.Errorf("%q: %d, %d, %v", s, n, oobn, err)
			}
			return err
		}
		must := func(err error) {
			t.Helper()
			if err != nil {
				t.Fatal(err)
			}
		}
		mustWrite(t, w, []byte("before"), world.dest[0])
		must(own("aaabbbc", 0))
		must(own("dd", 0)) // the kernel refuses that too
		mustWrite(t, w, []byte("after"), world.dest[0])
		must(w.Flush(nil))
		must(own("elsewhere", 1))
		mustWrite(t, w, []byte("plain"), world.dest[0])
		checkError(t, own("eeef", 0), errno)
		must(own("eeef", 0))
		mustWrite(t, w, []byte("last"), world.dest[0])
		must(w.Flush(nil))
		world.inboxes[0].expectTTL(t,
			[]string{"before", "aaa", "bbb", "c", "dd", "after", "plain", "eee", "f", "last"},
			[]int{0, 77, 77, 77, 77, 0, 0, 77, 77, 0})
		w.Close()
	})
}

// TestWriterIdleRefused: an idle write returns what the kernel says of it; none
// of it has left, and nobody else hears of it.
func TestWriterIdleRefused(t *testing.T) {
	refusingWorlds(t, func(t *testing.T, world *world, errno syscall.Errno) {
		w := NewWriter(world.conn, &WriterConfig{OnError: func(to netip.AddrPort, err error) { t.Errorf("OnError(%v, %v)", to, err) }})
		for range 2 {
			n, oobn, err := w.WriteMsgUDPAddrPort([]byte("aaabbbc"), ownControl(3), world.dest[0])
			if checkError(t, err, errno); n+oobn != 0 {
				t.Errorf("%d, %d with an error", n, oobn)
			}
			var syscallErr *os.SyscallError
			if !errors.As(err, &syscallErr) { // which quic-go looks for
				t.Errorf("%v is no SyscallError", err)
			}
			time.Sleep(2 * idleAfter)
		}
		time.Sleep(2 * idleAfter)
		_, err := w.WriteToUDPAddrPort([]byte("x"), netip.AddrPortFrom(world.dest[0].Addr(), 0))
		checkError(t, err, syscall.EINVAL) // any idle write
		if err := w.Flush(nil); err != nil {
			t.Errorf("Flush = %v", err)
		}
		world.conn.SendTo(nil, []byte("end"), world.dest[0], 0)
		if got := world.inboxes[0].read(t, make([]byte, 100)); string(got) != "end" {
			t.Errorf("%q arrived", got)
		}
	})
}

// TestWriterCutsOnce: pieces are sent once each, whatever fits at a time; if
// they are refused too, that is the write's error and says nothing about
// segmentation.
func TestWriterCutsOnce(t *testing.T) {
	for _, refused := range []syscall.Errno{syscall.EIO, syscall.EINVAL, syscall.EMSGSIZE, syscall.EPERM} {
		t.Run(unix.ErrnoName(refused), func(t *testing.T) { testCutsOnce(t, refused) })
	}
}

func testCutsOnce(t *testing.T, refused syscall.Errno) {
	world := plainKind.world(t, 1, &Config{GSO: GSOOff})
	k := &cutlessKernel{refused: refused}
	k.fake = follow(world.conn, k.take)
	var failed failures
	w := NewWriter(world.conn, &WriterConfig{MaxDelay: -1, OnError: failed.add})
	write := func(p string) error {
		_, _, err := w.WriteMsgUDPAddrPort([]byte(p), ownControl(3), world.dest[0])
		return err
	}
	const text = "000111222333444555666777888999"
	if err := write(text); err != nil {
		t.Fatal(err)
	}
	mustWrite(t, w, []byte("end"), world.dest[0])
	if refused == syscall.EPERM { // says nothing about segmentation
		checkError(t, w.Flush(nil), refused)
		return
	}
	if err := w.Flush(nil); err != nil || len(failed.errs) != 0 {
		t.Fatal(err, failed.errs)
	}
	if got := string(bytes.Join(k.taken, nil)); got != text+"end" {
		t.Errorf("%q left", got)
	}
	checkError(t, write(text), refused)

	k.taken, k.plainly = nil, syscall.ENOBUFS
	if err := write(text); err != nil {
		t.Fatal(err)
	}
	if err := w.Flush(nil); !errors.Is(err, syscall.ENOBUFS) || len(failed.errs) != 1 || len(k.taken) != 0 {
		t.Errorf("Flush = %v, %d reported, %d left", err, len(failed.errs), len(k.taken))
	}
	if err := write(text); err != nil {
		t.Errorf("remembered though it was not the segmentation: %v", err)
	}
	if w.mu.Lock(); w.held.bytes != len(text)+len(ownControl(3)) {
		t.Errorf("%d bytes are held", w.held.bytes)
	}
	w.mu.Unlock()
}

// A cutlessKernel refuses what it would have to cut, and takes other messages
// one at a time, with a full socket at every third call.
type cutlessKernel struct {
	*fake
	refused error
	plainly error // refuses the others too
}

func (k *cutlessKernel) take(call int, ms []ipv4.Message) (int, error) {
	size, _, _ := sys.FindSegmentControl(ms[0].OOB)
	switch {
	case size != 0 && len(ms[0].Buffers[0]) > size:
		return 0, os.NewSyscallError("sendmmsg", k.refused)
	case k.plainly != nil:
		return 0, os.NewSyscallError("sendmmsg", k.plainly)
	case call%3 == 0:
		return 0, os.NewSyscallError("sendmmsg", sys.EWOULDBLOCK)
	}
	return 1, nil
}

// TestWriterLargeIsNotCopied: what its caller segments goes down as it is if
// nothing is held that it would have to follow.
func TestWriterLargeIsNotCopied(t *testing.T) {
	world := plainKind.world(t, 1, nil)
	w := NewWriter(world.conn, nil)
	p := bytes.Repeat([]byte("aaa"), 50)
	var copied []bool
	follow(world.conn, func(_ int, ms []ipv4.Message) (int, error) {
		for i := range ms {
			if len(ms[i].Buffers[0]) == len(p) {
				copied = append(copied, &ms[i].Buffers[0][0] != &p[0])
			}
		}
		return len(ms), nil
	})
	write := func() {
		if _, _, err := w.WriteMsgUDPAddrPort(p, ownControl(3), world.dest[0]); err != nil {
			t.Fatal(err)
		}
	}
	for range 3 {
		w.mu.Lock()
		w.newest = math.MaxInt64 // in a burst
		w.mu.Unlock()
		write()
	}
	w.mu.Lock()
	w.newest, w.turn = math.MaxInt64, flusherDue // but it does not come
	w.mu.Unlock()
	mustWrite(t, w, []byte("x"), world.dest[0])
	write()
	w.mu.Lock()
	w.turn = idle
	w.mu.Unlock()
	if err := w.Flush(nil); err != nil || !slices.Equal(copied, []bool{false, false, false, true}) {
		t.Errorf("Flush = %v; copied: %v", err, copied)
	}
}

// TestWriterFullRefused: a Writer that is full has the next write fail too, at
// once, and one that is closed is closed.
func TestWriterFullRefused(t *testing.T) {
	world, w, k := fullWriter(t)
	own := func() error {
		_, _, err := w.WriteMsgUDPAddrPort([]byte("aaabbbc"), ownControl(3), world.dest[1])
		return err
	}
	w.rememberRefusal(world.dest[1], w.engine.opError(syscall.EIO, world.dest[1]))
	atOnce(t, "the write", func() { checkError(t, own(), syscall.EIO) })
	k.letGo()
	if err := own(); err != nil {
		t.Errorf("told again: %v", err)
	}
	w.rememberRefusal(world.dest[1], w.engine.opError(syscall.EIO, world.dest[1]))
	w.mu.Lock()
	w.closed = true // as while Close lingers
	w.mu.Unlock()
	checkError(t, own(), net.ErrClosed)
	w.mu.Lock()
	w.closed = false
	w.mu.Unlock()
}

// TestWriterForgetsRefusals: what is remembered of destinations has bounds.
func TestWriterForgetsRefusals(t *testing.T) {
	w := NewWriter(plainKind.world(t, 1, nil).conn, nil)
	for i := range 3 * maxRefused {
		w.rememberRefusal(netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1}), uint16(i)), syscall.EIO)
	}
	last := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 1}), 3*maxRefused-1)
	if len(w.refused) != maxRefused || w.refused[last] == nil {
		t.Errorf("%d are remembered, the last: %v", len(w.refused), w.refused[last])
	}
}

// TestWriterCutPending: the pieces of a refused write do not fail for what ICMP
// says of an earlier datagram. Flush tells it, and OnError hears nothing.
func TestWriterCutPending(t *testing.T) {
	w, s := scripted(t, connectedKind, replies(syscall.EINVAL, refused))
	var failed failures
	wr := NewWriter(w.conn, &WriterConfig{MaxDelay: -1, OnError: failed.add})
	if _, _, err := wr.WriteMsgUDPAddrPort([]byte("aaabbbc"), ownControl(3), netip.AddrPort{}); err != nil {
		t.Fatal(err)
	}
	checkError(t, wr.Flush(nil), refused)
	if len(failed.errs) != 0 || string(bytes.Join(s.taken, []byte("|"))) != "aaa|bbb|c" {
		t.Errorf("%v reported, %q went out", failed.errs, s.taken)
	}
	if err := wr.Flush(nil); err != nil {
		t.Errorf("told again: %v", err)
	}
}
