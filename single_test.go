// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"os"
	"syscall"
	"testing"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// TestSingle: a datagram by itself takes one call and no batch, and where that
// is interrupted, full or not to be had the batch's way, each once.
func TestSingle(t *testing.T) {
	for _, test := range []struct {
		name  string
		first error
		calls int
	}{
		{"sent", nil, 1},
		{"interrupted", syscall.EINTR, 2},
		{"full", sys.EWOULDBLOCK, 2},
		{"not asked", errors.ErrUnsupported, 2},
	} {
		w, s := scripted(t, plainKind, func(call int, ms []ipv4.Message) (int, error) {
			if call == 1 && test.first != nil {
				return 0, test.first
			}
			return len(ms), nil
		})
		n, err := w.conn.SendTo(nil, contents(1, 100), w.dest[0], 0)
		if n != 100 || err != nil || s.calls != test.calls || len(s.taken) != 1 {
			t.Errorf("%s: %d, %v; %d went out in %d calls, want 1 in %d", test.name, n, err, len(s.taken), s.calls, test.calls)
		}
		if st := w.conn.Stats(); st.Messages != 1 || st.Bytes != 100 {
			t.Errorf("%s: %+v", test.name, st)
		}
	}
}

// TestSingleRefused: the kernel's error is told once, as that of the datagram,
// and the datagram is not sent again.
func TestSingleRefused(t *testing.T) {
	w, s := scripted(t, plainKind, func(int, []ipv4.Message) (int, error) {
		return 0, os.NewSyscallError("sendto", syscall.EPERM)
	})
	msg := OutputMessage{Addr: w.dest[0], Vectors: [][]byte{contents(1, 100)}, BytesSent: 7}
	n, err := w.conn.SendMessage(context.Background(), &msg, 0)
	checkError(t, err, syscall.EPERM)
	if n != 0 || msg.BytesSent != 0 || s.calls != 1 || w.conn.Stats().Failed != 1 {
		t.Errorf("%d, BytesSent %d in %d calls; %+v", n, msg.BytesSent, s.calls, w.conn.Stats())
	}
}

// TestWriterAloneIsFirst: the datagram of an idle Writer, of which there is no
// copy yet, leaves before those that are written while it finds no room.
func TestWriterAloneIsFirst(t *testing.T) {
	for full := range 4 { // calls that find no room
		world := plainKind.world(t, 1, nil)
		entered, goOn := make(chan struct{}), make(chan struct{})
		s := follow(world.conn, func(call int, ms []ipv4.Message) (int, error) {
			if call == 1 {
				close(entered)
				<-goOn
			}
			if call <= full {
				return 0, os.NewSyscallError("sendmmsg", sys.EWOULDBLOCK)
			}
			return len(ms), nil
		})
		w := NewWriter(world.conn, nil)
		written := make(chan struct{})
		go func() {
			defer close(written)
			p := contents(0, 20)
			mustWrite(t, w, p, world.dest[0])
			clear(p) // it is the caller's again
		}()
		<-entered
		for i := 1; i < 10; i++ {
			mustWrite(t, w, contents(i, 20), world.dest[0])
		}
		close(goOn)
		<-written
		if err := w.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		var arrived []byte
		for _, p := range s.taken {
			arrived = append(arrived, p...)
		}
		for i := range 10 {
			if want := contents(i, 20); len(arrived) != 200 || string(arrived[20*i:20*i+20]) != string(want) {
				t.Fatalf("%d calls without room: datagram %d is not in its place, of %d bytes", full, i, len(arrived))
			}
		}
		w.Close()
	}
}
