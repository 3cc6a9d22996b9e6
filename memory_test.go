// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"runtime"
	"testing"
	"weak"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// letGoTests send p, by which its buffer may be held.
var letGoTests = map[string]struct {
	send func(w *world, p []byte) error
	cfg  Config
}{
	"SendMessages": {send: func(w *world, p []byte) error {
		_, err := w.conn.SendMessages(nil, []OutputMessage{{Addr: w.dest[0], Vectors: [][]byte{p[:100], p[100:]}}}, 0)
		return err
	}},
	"SendMessages, of a run": {send: func(w *world, p []byte) error {
		_, err := w.conn.SendMessages(nil, AppendSegments(nil, w.dest[0], p, 100, nil), 0)
		return err
	}},
	"SendMessages, flattened": {send: func(w *world, p []byte) error {
		_, err := w.conn.SendMessages(nil, []OutputMessage{{Addr: w.dest[0], Vectors: vectorsFrom(p, sys.MaxVectors+1)}}, 0)
		return err
	}},
	"SendMessages, that fails": {send: func(w *world, p []byte) error {
		n, _ := w.conn.SendMessages(nil, []OutputMessage{{Addr: w.dest[0], Vectors: [][]byte{p}}, {Vectors: [][]byte{p}}}, 0)
		if n != 1 {
			return errNoDestination
		}
		return nil
	}},
	"SendEach": {send: func(w *world, p []byte) error {
		_, err := w.conn.SendEach(nil, []OutputMessage{{Addr: w.dest[0], Vectors: [][]byte{p}}}, 0)
		return err
	}},
	"SendMessage, in pieces": {send: func(w *world, p []byte) error {
		_, err := w.conn.SendMessage(nil, &OutputMessage{Addr: w.dest[0], Vectors: [][]byte{p[:1], p[1:]}}, 0)
		return err
	}},
	"SendTo": {send: func(w *world, p []byte) error {
		_, err := w.conn.SendTo(nil, p, w.dest[0], 0)
		return err
	}},
	"WriteBatch": {send: func(w *world, p []byte) error {
		_, err := w.conn.WriteBatch([]ipv4.Message{{Addr: net.UDPAddrFromAddrPort(w.dest[0]), Buffers: [][]byte{p}}}, 0)
		return err
	}},
	"WriteTo": {cfg: Config{NonBlocking: true}, send: func(w *world, p []byte) error {
		_, err := w.conn.WriteTo(p, net.UDPAddrFromAddrPort(w.dest[0]))
		return err
	}},
}

// TestBuffersAreLetGo: after a send has returned, nothing of ours keeps the
// caller's buffers. The pools of x/net may, for the two collections in which
// sync.Pool empties them.
func TestBuffersAreLetGo(t *testing.T) {
	const size = 1000
	for name, test := range letGoTests {
		t.Run(name, func(t *testing.T) {
			w := plainKind.world(t, 1, &test.cfg)
			buffer := lend(t, func(p []byte) error { return test.send(w, p) }, size)
			checkLetGo(t, buffer, 2)
			follow(w.conn, func(_ int, ms []ipv4.Message) (int, error) { return len(ms), nil }) // past x/net
			buffer = lend(t, func(p []byte) error { return test.send(w, p) }, size)
			checkLetGo(t, buffer, 1)
			runtime.KeepAlive(w)
		})
	}
}

// TestWriterBuffersAreLetGo: at once, whether the datagram was sent or is held.
func TestWriterBuffersAreLetGo(t *testing.T) {
	for name, held := range map[string]bool{"sent": false, "held": true} {
		t.Run(name, func(t *testing.T) {
			world := plainKind.world(t, 1, nil)
			cfg := &WriterConfig{}
			if held {
				cfg.MaxDelay = -1
			}
			w := NewWriter(world.conn, cfg)
			defer w.Close()
			to := world.dest[0]
			buffer := lend(t, func(p []byte) error { _, err := w.WriteToUDPAddrPort(p, to); return err }, 1000)
			checkLetGo(t, buffer, 1)
		})
	}
}

// TestReadBuffersAreLetGo: of a read that leaves something held, nothing keeps
// the buffers that it received into.
func TestReadBuffersAreLetGo(t *testing.T) {
	in, _, to := readPair(t, &Config{GRO: GROOn})
	if s := in.Stats(); !s.GRO {
		t.Skip(s.GROReason)
	}
	out := newConn(t, far.listen(t, "udp4", "127.0.0.1"), &Config{GSO: GSOOff})
	var buffer weak.Pointer[byte]
	for range 50 { // until calls bring more than is asked for
		for range 20 {
			if _, err := out.SendTo(nil, []byte("alone"), to, 0); err != nil {
				t.Fatal(err)
			}
		}
		for range 10 {
			buffer = lend(t, func(p []byte) error {
				_, err := in.ReceiveMessages(nil, []InputMessage{{Vectors: [][]byte{p[:500:500]}}, {Vectors: [][]byte{p[500:]}}}, 0)
				return err
			}, 1000)
			if in.recv.hasHeld.Load() {
				checkLetGo(t, buffer, 1)
				runtime.KeepAlive(in)
				return
			}
		}
	}
	t.Error("nothing was read ahead")
}

// lend gives send a buffer that nobody else has.
//
//go:noinline
func lend(t *testing.T, send func(p []byte) error, size int) weak.Pointer[byte] {
	t.Helper()
	p := make([]byte, size)
	if err := send(p); err != nil {
		t.Fatal(err)
	}
	return weak.Make(&p[0])
}

func checkLetGo(t *testing.T, buffer weak.Pointer[byte], collections int) {
	t.Helper()
	for range collections {
		runtime.GC()
	}
	if buffer.Value() != nil {
		t.Errorf("the buffer is still reachable after %d collections", collections)
	}
}

// vectorsFrom cuts p into n vectors, the last of which has all the rest.
func vectorsFrom(p []byte, n int) [][]byte {
	vs := make([][]byte, n)
	for i := range vs {
		k := min(i%2, len(p))
		if i == n-1 {
			k = len(p)
		}
		vs[i], p = p[:k:k], p[k:]
	}
	return vs
}
