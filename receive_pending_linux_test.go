// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestPendingBeforeHeld: by whatever name one reads, an error that is pending
// comes first, once, and then what is held.
func TestPendingBeforeHeld(t *testing.T) {
	in, out, to := coalescing(t)
	sent, read := 0, 0
	for _, call := range readCalls {
		sendRuns(t, out, to, 1, &sent)
		readRuns(t, readNow(in), 1, &read) // two are held
		in.recv.addPending(unix.ENOBUFS)
		if got, err := call.call(in, []roomFor{newRoom([]int{100}, 0)}, 0); !errors.Is(err, unix.ENOBUFS) || len(got) != 0 {
			t.Errorf("%s: %v, %v; want ENOBUFS", call.name, got, err)
		}
		for range 2 {
			got, err := call.call(in, []roomFor{newRoom([]int{100}, 0)}, 0)
			if err != nil || len(got) != 1 || got[0].payload[0] != byte('a'+read%26) {
				t.Fatalf("%s, then: %v, %v", call.name, got, err)
			}
			read++
		}
	}
}

// TestPendingPastDeadline: past its deadline a read ends for that, as in net,
// and a pending error waits for the next.
func TestPendingPastDeadline(t *testing.T) {
	for _, mode := range []GROMode{GROAuto, GROOn} {
		in, _, _ := readPair(t, &Config{GRO: mode})
		for _, call := range readCalls {
			in.recv.addPending(unix.ENOBUFS)
			in.SetReadDeadline(time.Now().Add(-time.Second))
			if _, err := call.call(in, []roomFor{newRoom([]int{100}, 0)}, 0); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("%s: %v", call.name, err)
			}
			in.SetReadDeadline(time.Time{})
			if _, err := call.call(in, []roomFor{newRoom([]int{100}, 0)}, 0); !errors.Is(err, unix.ENOBUFS) {
				t.Errorf("%s, without a deadline: %v", call.name, err)
			}
		}
	}
}

// contextReads are the reads that take a context, with room for one message, or
// with none in none. They say what they got.
var contextReads = []struct {
	name string
	read func(c *Conn, ctx context.Context, none bool, flags int) (string, error)
}{
	{"ReceiveMessages", func(c *Conn, ctx context.Context, none bool, flags int) (string, error) {
		msgs := []InputMessage{{Vectors: [][]byte{make([]byte, 10)}}}
		if none {
			msgs = msgs[:0]
		}
		n, err := c.ReceiveMessages(ctx, msgs, flags)
		if n == 0 {
			return "", err
		}
		return string(msgs[0].Vectors[0][:msgs[0].BytesReceived]), err
	}},
	{"ReceiveMessage", func(c *Conn, ctx context.Context, _ bool, flags int) (string, error) {
		p := make([]byte, 10)
		n, err := c.ReceiveMessage(ctx, &InputMessage{Vectors: [][]byte{p}}, flags)
		return string(p[:n]), err
	}},
	{"ReceiveFrom", func(c *Conn, ctx context.Context, _ bool, flags int) (string, error) {
		p := make([]byte, 10)
		n, _, err := c.ReceiveFrom(ctx, p, flags)
		return string(p[:n]), err
	}},
}

// TestReceiveOrderOfChecks: a read looks first whether the Conn is closed, then
// at its context, whether there are messages, at the deadline, at what is
// pending, and at last for a datagram, held or not.
func TestReceiveOrderOfChecks(t *testing.T) {
	for _, mode := range []GROMode{GROAuto, GROOn, GROOff} {
		for _, call := range contextReads {
			for _, flags := range []int{0, MsgDontWait, MsgWaitAll} {
				in, out, to := readPair(t, &Config{GRO: mode})
				sent, read := 0, 0
				sendRuns(t, out, to, 1, &sent)
				readRuns(t, readNow(in), 1, &read) // the others are in the kernel, or held
				testReceiveOrder(t, in, func(ctx context.Context, none bool, want string, wantErr error) {
					t.Helper()
					in.WaitReadable(nil) // a busy kernel delivers late
					if got, err := call.read(in, ctx, none, flags); got != want || !errors.Is(err, wantErr) {
						t.Fatalf("GRO %v, %s, flags %#x: %q, %v; want %q, %v", mode, call.name, flags, got, err, want, wantErr)
					}
				}, call.name == "ReceiveMessages")
				out.Close()
			}
		}
	}
}

// testReceiveOrder takes away, one after the other, what ends a read.
func testReceiveOrder(t *testing.T, in *Conn, check func(ctx context.Context, none bool, want string, wantErr error), many bool) {
	t.Helper()
	done, cancel := context.WithCancel(t.Context())
	cancel()
	in.recv.addPending(unix.ENOBUFS)
	in.SetReadDeadline(time.Now().Add(-time.Second))
	check(done, false, "", context.Canceled)
	if many {
		check(done, true, "", context.Canceled)
		check(t.Context(), true, "", nil)
	}
	check(t.Context(), false, "", os.ErrDeadlineExceeded)
	in.SetReadDeadline(time.Time{})
	check(t.Context(), false, "", unix.ENOBUFS)
	check(done, false, "", context.Canceled)
	check(t.Context(), false, "bbbbbbbbbb", nil)
	in.SetReadDeadline(time.Now().Add(-time.Second))
	check(t.Context(), false, "", os.ErrDeadlineExceeded)
	in.SetReadDeadline(time.Time{})
	check(t.Context(), false, "cccccccccc", nil)
	in.recv.addPending(unix.ENOBUFS)
	in.Close()
	check(done, false, "", net.ErrClosed)
	check(t.Context(), true, "", net.ErrClosed)
}

// connectedPair is a connected Conn that is read, and its peer.
func connectedPair(t *testing.T, cfg *Config) (in *Conn, peer *net.UDPConn) {
	t.Helper()
	peer = listen(t, "udp4", "127.0.0.1")
	u, err := net.DialUDP("udp4", nil, peer.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	growBuffer(u)
	return newConn(t, u, cfg), peer
}

// TestWaitReadablePending: WaitReadable ends at an error that is pending,
// before it and while it waits, takes nothing, and the next read returns it,
// once.
func TestWaitReadablePending(t *testing.T) {
	inNamespace(t, func(t *testing.T, _ *loopback) {
		for _, mode := range []GROMode{GROAuto, GROOn, GROOff} {
			in, _ := connectedPair(t, &Config{GRO: mode})
			for _, waits := range []bool{false, true} {
				ended := make(chan error, 1)
				if waits {
					go func() { ended <- in.WaitReadable(t.Context()) }()
					awaitReader(t, in)
				}
				sendUnreachable(t, in.LocalAddr().(*net.UDPAddr), in.RemoteAddr().(*net.UDPAddr), 3, 0)
				if !waits {
					awaitError(t, in.conn())
					ended <- in.WaitReadable(t.Context())
				}
				if err := receiveWithin(t, "WaitReadable", ended); err != nil {
					t.Errorf("%v, waits %v: %v", mode, waits, err)
				}
				atOnce(t, "a second WaitReadable", func() { in.WaitReadable(nil) })
				if _, err := in.Read(make([]byte, 10)); !errors.Is(err, unix.ECONNREFUSED) {
					t.Errorf("%v, waits %v: the read: %v", mode, waits, err)
				}
				nothingMore(t, in)
			}
		}
	})
}

// TestWaitReadableErrorQueue: an entry in the error queue alone is nothing that
// a receive would return, and WaitReadable waits on.
func TestWaitReadableErrorQueue(t *testing.T) {
	inNamespace(t, func(t *testing.T, _ *loopback) {
		in, peer := connectedPair(t, nil)
		control(t, in, option(unix.SOL_IP, unix.IP_RECVERR, 1))
		sendUnreachable(t, in.LocalAddr().(*net.UDPAddr), in.RemoteAddr().(*net.UDPAddr), 3, 0)
		awaitError(t, in.conn())
		if _, err := in.Read(make([]byte, 10)); !errors.Is(err, unix.ECONNREFUSED) {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		ended := make(chan error, 1)
		go func() { ended <- in.WaitReadable(ctx) }()
		awaitReader(t, in)
		cancel()
		if err := receiveWithin(t, "WaitReadable", ended); !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		go func() { ended <- in.WaitReadable(nil) }()
		awaitReader(t, in)
		if _, err := peer.WriteTo([]byte("x"), in.LocalAddr()); err != nil {
			t.Fatal(err)
		}
		if err := receiveWithin(t, "WaitReadable of a datagram", ended); err != nil {
			t.Error(err)
		}
	})
}

// TestWaitReadableHeld: something held is enough, and stays; a deadline in the
// past, a context that is done and Close come before it.
func TestWaitReadableHeld(t *testing.T) {
	in, out, to := coalescing(t)
	sent, read := 0, 0
	sendRuns(t, out, to, 1, &sent)
	readRuns(t, readNow(in), 1, &read)
	done, cancel := context.WithCancel(context.Background())
	cancel()
	check := func(what string, ctx context.Context, want error) {
		t.Helper()
		atOnce(t, what, func() {
			if err := in.WaitReadable(ctx); !errors.Is(err, want) {
				t.Errorf("%s: %v, want %v", what, err, want)
			}
		})
	}
	check("held", nil, nil)
	check("context", done, context.Canceled)
	in.SetReadDeadline(time.Now().Add(-time.Second))
	check("deadline", nil, os.ErrDeadlineExceeded)
	in.SetReadDeadline(time.Time{})
	readRuns(t, readNow(in), 2, &read) // it took nothing
	nothingMore(t, in)
	in.Close()
	check("closed", nil, net.ErrClosed)
}

// TestWaitReadableNoDescriptorAllowed: poll(2) takes no descriptor where the
// limit is 0, and WaitReadable sees a datagram all the same, one that is there
// and one that comes, and does not see one that is not there.
func TestWaitReadableNoDescriptorAllowed(t *testing.T) {
	in, out, to := readPair(t, &Config{GRO: GROOff})
	var was unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	none := unix.Rlimit{Cur: 0, Max: was.Max}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Skip(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &was)
	for _, waits := range []bool{false, true} {
		ended := make(chan error, 1)
		if waits {
			go func() { ended <- in.WaitReadable(nil) }()
			awaitReader(t, in)
		}
		if _, err := out.SendTo(nil, []byte("x"), to, 0); err != nil {
			t.Fatal(err)
		}
		if !waits {
			go func() { ended <- in.WaitReadable(nil) }()
		}
		if err := receiveWithin(t, "WaitReadable", ended); err != nil {
			t.Error(err)
		}
		if n, _, err := in.ReceiveFrom(nil, make([]byte, 10), MsgDontWait); n != 1 || err != nil {
			t.Errorf("waits %v: %d, %v", waits, n, err)
		}
	}
}

// TestReadThroughWriter: reading through a Writer is reading through its Conn:
// each datagram goes to one of them, in order, by whatever name.
func TestReadThroughWriter(t *testing.T) {
	for _, mode := range []GROMode{GROAuto, GROOn, GROOff} {
		in, out, to := readPair(t, &Config{GRO: mode})
		w := NewWriter(in, nil)
		reads := append(readsOf(w), readsOf(in)...)
		sent, read := 0, 0
		for i := range 40 {
			sendRuns(t, out, to, 10, &sent)
			for range 30 {
				readRuns(t, reads[(i+7*read)%len(reads)], 1, &read)
			}
		}
		nothingMore(t, in)
		if s := in.Stats(); s.Received != 1200 || w.Stats() != s {
			t.Errorf("%+v, %+v", s, w.Stats())
		}
	}
}

// A familyReader is what a Conn and a Writer have in common for readers.
type familyReader interface {
	Read(b []byte) (int, error)
	ReadFrom(b []byte) (int, net.Addr, error)
	ReadFromUDP(b []byte) (int, *net.UDPAddr, error)
	ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error)
	ReadFromAddrPort(b []byte) (int, netip.AddrPort, error)
	ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error)
	ReceiveFrom(ctx context.Context, b []byte, flags int) (int, netip.AddrPort, error)
	ReceiveMessages(ctx context.Context, msgs []InputMessage, flags int) (int, error)
}

func readsOf(c familyReader) []func([]byte) (int, error) {
	return []func([]byte) (int, error){
		c.Read,
		func(p []byte) (int, error) { n, _, err := c.ReadFrom(p); return n, err },
		func(p []byte) (int, error) { n, _, err := c.ReadFromUDP(p); return n, err },
		func(p []byte) (int, error) { n, _, err := c.ReadFromUDPAddrPort(p); return n, err },
		func(p []byte) (int, error) { n, _, err := c.ReadFromAddrPort(p); return n, err },
		func(p []byte) (int, error) { n, _, _, _, err := c.ReadMsgUDP(p, nil); return n, err },
		func(p []byte) (int, error) { n, _, err := c.ReceiveFrom(nil, p, 0); return n, err },
		func(p []byte) (int, error) {
			m := []InputMessage{{Vectors: [][]byte{p}}}
			_, err := c.ReceiveMessages(nil, m, 0)
			return m[0].BytesReceived, err
		},
	}
}
