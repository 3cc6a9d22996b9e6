// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/netns"
)

// writeAside writes datagrams of a sender from first on, in another goroutine.
func (nw *narrows) writeAside(w *Writer, sender, first, n int) <-chan result {
	ch := make(chan result, 1)
	go func() {
		for i := range n {
			if _, err := w.WriteToUDPAddrPort(payload(sender, first+i), nw.to); err != nil {
				ch <- result{i, err}
				return
			}
		}
		ch <- result{n, nil}
	}()
	return ch
}

// TestWriterFullSocket: on a full socket exactly MaxMessages are taken, or
// MaxBytes; the next write waits, under NonBlocking would block; when there is
// room again all that was taken arrives, once and in order.
func TestWriterFullSocket(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		const limit = 20
		for _, cfg := range []WriterConfig{{MaxMessages: limit}, {MaxBytes: limit * payloadSize}, {MaxMessages: limit, MaxDelay: -1}} {
			for _, nonBlocking := range []bool{false, true} {
				nw := newNarrows(t, lo, shut, &Config{NonBlocking: nonBlocking})
				ty := nw.receive()
				filled := nw.fill()
				w := NewWriter(nw.c, &cfg)
				for i := range limit {
					mustWrite(t, w, payload(1, i), nw.to)
				}
				taken := limit
				if nonBlocking {
					n, err := w.WriteToUDPAddrPort(payload(1, limit), nw.to)
					checkWouldBlock(t, "WriteToUDPAddrPort", n, err)
					nw.lo.setTap(open)
				} else {
					more := nw.writeAside(w, 1, limit, limit)
					awaitWaiters(t, w, 1)
					nw.lo.setTap(open)
					if r := receive(t, "room", more); r.err != nil {
						t.Error(r.err)
					}
					taken += limit
				}
				if err := w.Flush(t.Context()); err != nil {
					t.Errorf("Flush = %v", err)
				}
				nw.finish(ty)
				if ty.got[0] != filled || ty.got[1] != taken {
					t.Errorf("%+v: %d and %d arrived, want %d and %d", cfg, ty.got[0], ty.got[1], filled, taken)
				}
				w.Close()
			}
		}
	})
}

// TestWriterFullIsQuiet: a call that waits for room only waits: a Flush, and
// writes, on a full socket cost no calls to the kernel except the few tries of
// the one that sends.
func TestWriterFullIsQuiet(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for _, writers := range []int{0, 1, 8} {
			nw := filled(t, lo, nil)
			w := NewWriter(nw.c, &WriterConfig{MaxMessages: 2, MaxDelay: -1, Linger: -1})
			mustWrite(t, w, nil, nw.to)
			for range writers {
				nw.writeAside(w, 1, 0, 10)
			}
			before, start := nw.c.Stats().Calls, time.Now()
			ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
			checkError(t, w.Flush(ctx), context.DeadlineExceeded)
			cancel()
			// The one that sends tries every 100 ms; a busy wait makes
			// thousands.
			limit := uint64(time.Since(start)/waitForRoom.pause) + 50
			if n := nw.c.Stats().Calls - before; n > limit {
				t.Errorf("%d writers: %d calls in %v, want at most %d", writers, n, time.Since(start), limit)
			}
			w.Close()
		}
	})
}

// TestWriterFullEnds: on a full socket, with eight goroutines writing, Flush
// ends by its context and by the deadline, writes by the deadline, and what was
// taken arrives all the same.
func TestWriterFullEnds(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		// So few that all fit in a receive buffer of the usual size, should the
		// receiver come late.
		const n = 30
		nw := newNarrows(t, lo, shut, nil)
		ty := nw.receive()
		nw.fill()
		w := NewWriter(nw.c, &WriterConfig{MaxMessages: 20})
		var calls []<-chan result
		for g := range 8 {
			calls = append(calls, nw.writeAside(w, 1+g, 0, 1000))
		}
		awaitWaiters(t, w, 8)
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		checkError(t, w.Flush(ctx), context.DeadlineExceeded)
		w.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		checkError(t, w.Flush(t.Context()), os.ErrDeadlineExceeded)
		taken := make([]int, 8)
		for g, ch := range calls {
			r := receive(t, "the deadline", ch)
			checkError(t, r.err, os.ErrDeadlineExceeded)
			taken[g] = r.n
		}
		w.SetWriteDeadline(time.Time{})
		for g := range calls {
			calls[g] = nw.writeAside(w, 1+g, taken[g], n)
		}
		awaitWaiters(t, w, 8)
		nw.lo.setTap(open)
		for g, ch := range calls {
			if r := receive(t, "room", ch); r.err != nil || r.n != n {
				t.Errorf("writer %d: %d, %v", g, r.n, r.err)
			}
		}
		if err := w.Flush(t.Context()); err != nil {
			t.Errorf("Flush = %v", err)
		}
		nw.finish(ty)
		for g := range 8 {
			if ty.got[1+g] != taken[g]+n {
				t.Errorf("of writer %d %d arrived, %d were taken", g, ty.got[1+g], taken[g]+n)
			}
		}
	})
}

// TestWriterFullClose: Close on a full socket, with eight goroutines writing,
// waits as long as Linger says, ends all writes, and reports what it could not
// send; all else arrives.
func TestWriterFullClose(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for _, linger := range []time.Duration{-1, 0, 300 * time.Millisecond, time.Hour} {
			t.Run(fmt.Sprint(linger), func(t *testing.T) { testFullClose(t, lo, linger) })
		}
	})
}

func testFullClose(t *testing.T, lo *loopback, linger time.Duration) {
	left := nothingLeft(t)
	nw := newNarrows(t, lo, shut, nil)
	nw.t = t
	nw.fill()
	var failed failures
	w := NewWriter(nw.c, &WriterConfig{MaxMessages: 20, Linger: linger, OnError: failed.add})
	var calls []<-chan result
	for g := range 8 {
		calls = append(calls, nw.writeAside(w, 1+g, 0, 1000))
	}
	awaitWaiters(t, w, 8)
	willSend := linger == time.Hour
	if willSend {
		time.AfterFunc(50*time.Millisecond, func() { lo.setTap(open) })
	}
	start := time.Now()
	err := w.Close()
	took := time.Since(start)
	taken := 0
	for _, ch := range calls {
		r := receive(t, "Close to end the writes", ch)
		checkError(t, r.err, net.ErrClosed)
		taken += r.n
	}
	if want := max(linger, 0); willSend && (err != nil || took > patience) {
		t.Errorf("Close = %v after %v", err, took)
	} else if !willSend {
		if linger == 0 {
			want = defaultLinger
		}
		if took < want || took > want+patience {
			t.Errorf("Close took %v", took)
		}
		checkError(t, err, net.ErrClosed)
	}
	for i, err := range failed.errs {
		if checkError(t, err, net.ErrClosed); failed.to[i] != nw.to {
			t.Errorf("reported for %v", failed.to[i])
		}
	}
	if taken != 20 || (len(failed.errs) == 0) != willSend {
		t.Errorf("%d taken, %d reported", taken, len(failed.errs))
	}
	lo.setTap(open)
	nw.arrives(taken - len(failed.errs))
	nw.rx.Close()
	left()
}

// arrives makes sure that n datagrams arrive beside those of sender 0, each
// sender's in order, and no more.
func (nw *narrows) arrives(n int) {
	nw.t.Helper()
	mark, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(nw.to))
	if err != nil {
		nw.t.Fatal(err)
	}
	defer mark.Close()
	mark.Write(payload(lastSender, 0)) // through the same queue
	next, buf := map[uint32]uint32{}, make([]byte, 2048)
	nw.rx.SetReadDeadline(time.Now().Add(patience))
	for {
		k, _, err := nw.rx.ReadFromUDPAddrPort(buf)
		if err != nil {
			nw.t.Fatal(err)
		}
		sender, seq := binary.BigEndian.Uint32(buf), binary.BigEndian.Uint32(buf[4:])
		if sender == lastSender {
			break
		}
		if seq != next[sender] || !bytes.Equal(buf[:k], payload(int(sender), int(seq))) {
			nw.t.Errorf("sender %d: datagram %d, want %d, or damaged", sender, seq, next[sender])
		}
		next[sender] = seq + 1
		if sender != 0 {
			n--
		}
	}
	if n != 0 {
		nw.t.Errorf("%d too few arrived", n)
	}
}

// TestWriterRoomOnASlowLink: a write that waits goes on as datagrams leave, not
// only when many have left.
func TestWriterRoomOnASlowLink(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for _, mode := range []GSOMode{GSOAuto, GSOOff} {
			nw := newNarrows(t, lo, netns.Bucket{Rate: 25_000, Burst: 2 << 10, Limit: 1 << 20}, &Config{GSO: mode})
			w := NewWriter(nw.c, &WriterConfig{MaxMessages: 200, Linger: -1})
			p := make([]byte, 1000)
			for {
				w.SetWriteDeadline(time.Now().Add(time.Millisecond))
				if _, err := w.WriteToUDPAddrPort(p, nw.to); err != nil {
					checkError(t, err, os.ErrDeadlineExceeded)
					break
				}
			}
			w.SetWriteDeadline(time.Time{})
			before := nw.c.Stats().Messages
			for i := range 3 {
				if _, err := w.WriteToUDPAddrPort(p, nw.to); err != nil {
					t.Fatal(err)
				}
				n := nw.c.Stats().Messages - before
				if limit := uint64((i + 1) * 4 * fullChunk); n > limit { // the woken writer may run late
					t.Errorf("%d writes waited until %d datagrams had left, want at most %d", i+1, n, limit)
				}
			}
			w.Close()
			netns.Check(t, lo.ns.Loopback().RemoveBucket())
		}
	})
}

// TestWriterControl: control data goes with its datagram, and a segment size
// among it cuts where the caller says.
func TestWriterControl(t *testing.T) {
	for _, k := range kinds[:2] {
		t.Run(k.name, func(t *testing.T) {
			world := k.world(t, 1, nil)
			in := world.inboxes[0]
			receiveTTL(t, in, k.v6)
			w := NewWriter(world.conn, &WriterConfig{MaxDelay: -1})
			send := func(p string, control []byte) {
				buf, oob := []byte(p), bytes.Clone(control)
				n, oobn, err := w.WriteMsgUDPAddrPort(buf, oob, world.dest[0])
				if n != len(p) || oobn != len(control) || err != nil {
					t.Fatalf("%d, %d, %v", n, oobn, err)
				}
				clear(buf)
				clear(oob)
			}
			var want []string
			var ttls []int
			for i := range 100 {
				want, ttls = append(want, string(contents(i, 50))), append(ttls, 1+i/7)
				send(want[i], ttlControl(k.v6, ttls[i]))
			}
			cut := cmsg(unix.SOL_UDP, unix.UDP_SEGMENT, uint16s(3)...)
			send("aaabbbc", append(cut, ttlControl(k.v6, 77)...))
			want, ttls = append(want, "aaa", "bbb", "c"), append(ttls, 77, 77, 77)
			if err := w.Flush(nil); err != nil {
				t.Fatal(err)
			}
			in.expectTTL(t, want, ttls)
			in.expect(t, nil)
		})
	}
}

// ttlControl has a datagram leave with a TTL.
func ttlControl(v6 bool, ttl int) []byte {
	if v6 {
		return cmsgInt(unix.IPPROTO_IPV6, unix.IPV6_HOPLIMIT, ttl)
	}
	return cmsgInt(unix.IPPROTO_IP, unix.IP_TTL, ttl)
}

// receiveTTL has the kernel tell the TTL of what arrives.
func receiveTTL(t *testing.T, in *inbox, v6 bool) {
	t.Helper()
	var err error
	if v6 {
		err = ipv6.NewPacketConn(in.conn).SetControlMessage(ipv6.FlagHopLimit, true)
	} else {
		err = ipv4.NewPacketConn(in.conn).SetControlMessage(ipv4.FlagTTL, true)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestWriterReportsRefused: the kernel's own refusal, of one destination among
// others and of one that segmentation coalesces.
func TestWriterReportsRefused(t *testing.T) {
	world := plainKind.world(t, 2, nil)
	var failed failures
	w := NewWriter(world.conn, &WriterConfig{MaxDelay: -1, OnError: failed.add})
	bad := netip.AddrPortFrom(world.dest[0].Addr(), 0) // EINVAL
	want := make([][][]byte, 2)
	for i := range 300 {
		if i%3 == 2 {
			mustWrite(t, w, contents(i, 30), bad)
			continue
		}
		want[i%3] = append(want[i%3], contents(i, 30))
		mustWrite(t, w, contents(i, 30), world.dest[i%3])
	}
	checkError(t, w.Flush(nil), syscall.EINVAL)
	if len(failed.to) != 100 {
		t.Errorf("%d reported, want 100", len(failed.to))
	}
	for i, to := range failed.to {
		if checkError(t, failed.errs[i], syscall.EINVAL); to != bad {
			t.Errorf("reported for %v", to)
		}
	}
	for i, in := range world.inboxes {
		in.expect(t, want[i])
	}
}

// TestWriterOneProcessor: a goroutine that never lets its only processor go,
// and writes now and then, keeps no datagram: each has left when the first
// write returns that comes flusherLate after it. The kernel says when that was.
// On a busy machine the kernel too takes processors away: one round of ten must
// be undisturbed.
func TestWriterOneProcessor(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(1))
	for round := range 10 {
		late, of, worst := lateOnOneProcessor(t)
		t.Logf("%d of %d datagrams left later than the write after them, by up to %v", late, of, worst)
		if late < of/500 {
			return
		}
		if round == 9 {
			t.Error("in each round datagrams were late")
		}
	}
}

func lateOnOneProcessor(t *testing.T) (late, of int, worst time.Duration) {
	const bursts, burst = 100, 64
	world := plainKind.world(t, 1, nil)
	in := world.inboxes[0]
	if err := controlErr(in.conn, option(unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1)); err != nil {
		t.Skip("no timestamps: ", err)
	}
	w := NewWriter(world.conn, nil)
	begun, done := make([]time.Time, bursts*burst), make([]time.Time, bursts*burst)
	p := make([]byte, 1200)
	for i := range begun {
		begun[i] = time.Now()
		mustWrite(t, w, p, world.dest[0])
		done[i] = time.Now()
		if i%burst == burst-1 {
			for time.Since(done[i]) < 200*time.Microsecond {
			}
		}
		if i%(10*burst) == 9*burst+50 {
			runtime.Gosched() // now the flusher comes to be in the kernel
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	for i, next := 0, 0; i < len(begun); i++ {
		at := arrivalTime(t, in)
		for next < len(begun) && begun[next].Sub(begun[i]) < flusherLate {
			next++
		}
		if next == len(begun) {
			break // the end of the last burst
		}
		of++
		if by := at.Sub(done[next]); by > time.Millisecond { // the stamps are of the wall's clock
			late++
			worst = max(worst, by)
		}
	}
	return late, of, worst
}

// arrivalTime reads a datagram and says when the kernel got it.
func arrivalTime(t *testing.T, in *inbox) time.Time {
	t.Helper()
	buf, oob := make([]byte, 2048), make([]byte, 256)
	in.conn.SetReadDeadline(time.Now().Add(patience))
	_, oobn, _, _, err := in.conn.ReadMsgUDP(buf, oob)
	if err != nil {
		t.Fatal(err)
	}
	cm, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(cm) == 0 {
		t.Fatalf("no timestamp in % x: %v", oob[:oobn], err)
	}
	switch b := cm[0].Data; len(b) { // a struct timespec
	case 8:
		return time.Unix(int64(binary.NativeEndian.Uint32(b)), int64(binary.NativeEndian.Uint32(b[4:])))
	default:
		return time.Unix(int64(binary.NativeEndian.Uint64(b)), int64(binary.NativeEndian.Uint64(b[8:])))
	}
}
