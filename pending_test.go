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
	"slices"
	"testing"

	"golang.org/x/net/ipv4"
)

// pendingConn is a Conn with a pending error: its first message went, and the
// second met the error.
func pendingConn(t *testing.T, cfg *Config) (*world, *fake) {
	t.Helper()
	w := connectedKind.world(t, 1, cfg)
	s := follow(w.conn, func(call int, ms []ipv4.Message) (int, error) {
		if call == 1 {
			return 1, os.NewSyscallError("sendmsg", refused)
		}
		return len(ms), nil
	})
	if n, err := w.conn.SendMessages(nil, make([]OutputMessage, 2), 0); n != 1 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	return w, s
}

// TestPendingError: any next send reports a pending error before it sends,
// once; a call that ends before it would send leaves it.
func TestPendingError(t *testing.T) {
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, call := range sends {
		t.Run(call.name, func(t *testing.T) {
			w, s := pendingConn(t, nil)
			if call.ctx {
				_, err := call.call(w.conn, cancelled, make([]OutputMessage, 1))
				checkError(t, err, context.Canceled)
			}
			if n, err := w.conn.SendMessages(nil, nil, 0); n != 0 || err != nil {
				t.Errorf("no messages: %d, %v", n, err)
			}
			n, err := call.call(w.conn, nil, make([]OutputMessage, 3))
			if n != 0 || s.calls != 1 {
				t.Errorf("n = %d, %d calls of the kernel", n, s.calls)
			}
			checkError(t, err, refused)
			if n, err := call.call(w.conn, nil, make([]OutputMessage, 1)); n != 1 || err != nil {
				t.Errorf("a pending error was reported twice: %d, %v", n, err)
			}
		})
	}
	t.Run("NonBlocking Write", func(t *testing.T) {
		w, _ := pendingConn(t, &Config{NonBlocking: true, GSO: GSOOff})
		_, err := w.conn.Write([]byte{1})
		checkError(t, err, refused)
	})
	t.Run("closed", func(t *testing.T) {
		w, _ := pendingConn(t, nil)
		w.conn.Close()
		_, err := w.conn.SendMessages(nil, make([]OutputMessage, 1), 0)
		checkError(t, err, net.ErrClosed)
	})
}

// TestPendingErrorMeetsWriteBatch: an error that one sender left pending in the
// middle of another's WriteBatch is still told to somebody.
func TestPendingErrorMeetsWriteBatch(t *testing.T) {
	w := connectedKind.world(t, 1, &Config{GSO: GSOOff})
	follow(w.conn, func(call int, ms []ipv4.Message) (int, error) {
		if call == 1 {
			w.conn.send.addPending(rejected(os.NewSyscallError("sendmmsg", refused), netip.AddrPort{}))
		}
		return len(ms), nil
	})
	ms := make([]ipv4.Message, 3*maxBatch)
	for n := 0; n < len(ms); {
		k, err := w.conn.WriteBatch(ms[n:], 0)
		if err != nil {
			checkError(t, err, refused)
			return
		}
		n += k
	}
	_, err := w.conn.WriteBatch(ms[:1], 0)
	checkError(t, err, refused)
}

// TestPendingAtChunkEdge: an error that another sender leaves pending while
// WriteBatch is between two of its chunks is still the next send's.
func TestPendingAtChunkEdge(t *testing.T) {
	var w *world
	left := 2 * maxDatagrams
	w, _ = scripted(t, connectedKind, func(_ int, ms []ipv4.Message) (int, error) {
		if left -= len(ms); left == maxDatagrams {
			w.conn.send.addPending(rejected(refused, w.dest[0]))
		}
		return len(ms), nil
	})
	ms := slices.Repeat([]ipv4.Message{{Buffers: [][]byte{{1}}}}, left)
	if n, err := w.conn.WriteBatch(ms, 0); n != maxDatagrams || err != nil {
		t.Fatalf("WriteBatch = %d, %v", n, err)
	}
	if n, err := w.conn.WriteBatch(ms[maxDatagrams:], 0); n != 0 || !errors.Is(err, refused) {
		t.Errorf("the rest: %d, %v; want the pending error", n, err)
	}
	if n, err := w.conn.WriteBatch(ms[maxDatagrams:], 0); n != maxDatagrams || err != nil {
		t.Errorf("again: %d, %v", n, err)
	}
}
