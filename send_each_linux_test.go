// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/net/ipv4"
)

// An offerCounter is the real adapter. It counts calls, and the messages that
// were converted for them.
type offerCounter struct {
	adapter
	calls, offered int
}

func (o *offerCounter) writeBatch(ms []ipv4.Message, flags int) (int, error) {
	o.calls++
	o.offered += len(ms)
	return o.adapter.writeBatch(ms, flags)
}

func (o *offerCounter) sendto(p []byte, to netip.AddrPort, flags int) error {
	o.calls++
	o.offered++
	return o.adapter.sendto(p, to, flags)
}

// TestFailuresCost: the work of a SendEach in which messages fail grows with
// its messages, and not with failures times the size of a batch; few failures
// cost few calls. In calls and converted messages, for each message.
func TestFailuresCost(t *testing.T) {
	const n = 2000
	random := rand.New(rand.NewPCG(1, 2))
	for _, test := range []struct {
		name           string
		fails          func(i int) bool
		offered, calls float64
	}{
		{"all", func(int) bool { return true }, 1, 1},
		{"every other", func(i int) bool { return i%2 == 0 }, 1, 1},
		{"half at random", func(int) bool { return random.IntN(2) == 0 }, 1.1, 1.1},
		{"bursts", func(i int) bool { return i/32%2 == 0 }, 1.5, 1},
		{"one in 100", func(i int) bool { return i%100 == 50 }, 3, 0.3},
		{"the first", func(i int) bool { return i == 0 }, 1, 0.03},
		{"none", func(int) bool { return false }, 1, 0.01},
	} {
		t.Run(test.name, func(t *testing.T) {
			w := kinds[0].world(t, 1, &Config{GSO: GSOOff})
			w.inboxes[0].conn.SetReadBuffer(4096) // nobody reads
			kernel := &offerCounter{adapter: w.conn.send.kernel}
			w.conn.send.kernel = kernel
			w.conn.send.noBatchCall.Store(false)
			msgs, failing := make([]OutputMessage, n), []int(nil)
			for i := range msgs {
				msgs[i] = OutputMessage{Addr: w.dest[0], Vectors: [][]byte{contents(i, 10)}}
				if test.fails(i) {
					msgs[i].Addr = netip.AddrPortFrom(w.dest[0].Addr(), 0)
					failing = append(failing, i)
				}
			}
			dealt, err := w.conn.SendEach(nil, msgs, 0)
			var batch *BatchError
			if errors.As(err, &batch) != (len(failing) > 0) || dealt != n {
				t.Fatalf("%d, %v", dealt, err)
			}
			for i := range failing {
				if len(batch.Failed) != len(failing) || batch.Failed[i].Index != failing[i] {
					t.Fatalf("%d failed, want %d", len(batch.Failed), len(failing))
				}
			}
			if offered := float64(kernel.offered-maxBatch) / n; offered > test.offered {
				t.Errorf("%d messages were converted for %d", kernel.offered, n)
			}
			if calls := float64(kernel.calls) / n; calls > test.calls {
				t.Errorf("%d calls for %d messages", kernel.calls, n)
			}
		})
	}
}

// TestWriterFailuresCost: a Writer whose datagrams all fail converts a batch in
// vain once, and not in each part that it sends; and they share an error.
func TestWriterFailuresCost(t *testing.T) {
	const n = 8 * sendChunk
	world := plainKind.world(t, 1, &Config{GSO: GSOOff})
	kernel := &offerCounter{adapter: world.conn.send.kernel}
	world.conn.send.kernel = kernel
	world.conn.send.noBatchCall.Store(false)
	var failed failures
	w := NewWriter(world.conn, &WriterConfig{MaxDelay: -1, MaxMessages: 2 * n, OnError: failed.add})
	to := netip.AddrPortFrom(world.dest[0].Addr(), 0)
	for i := range n {
		mustWrite(t, w, contents(i, 10), to)
	}
	checkError(t, w.Flush(nil), syscall.EINVAL)
	if kernel.offered > n+maxBatch {
		t.Errorf("%d messages were converted for %d", kernel.offered, n)
	}
	// The first came from the batch call, and names that.
	if errs := slices.Compact(failed.errs); len(failed.to) != n || len(errs) > 2 {
		t.Errorf("%d reported, with %d errors", len(failed.to), len(errs))
	}
}

// TestFailuresShareErrors: neighbours that fail alike at one destination share
// an error, which costs nothing then; each names its own destination and errno
// all the same.
func TestFailuresShareErrors(t *testing.T) {
	w := plainKind.world(t, 1, &Config{GSO: GSOOff})
	ip := w.dest[0].Addr()
	a, b := netip.AddrPortFrom(ip, 0), netip.AddrPortFrom(numbered(1), 0)
	good, long := w.dest[0], make([]byte, 1<<16)
	msgs := []OutputMessage{
		{Addr: a, Vectors: [][]byte{{1}}}, {Addr: a, Vectors: [][]byte{{2}}}, {Addr: a, Vectors: [][]byte{{3}}},
		{Addr: b, Vectors: [][]byte{{4}}}, {Addr: good, Vectors: [][]byte{long}}, {Addr: a, Vectors: [][]byte{{5}}},
	}
	_, err := w.conn.SendEach(nil, msgs, 0)
	var batch *BatchError
	if !errors.As(err, &batch) || len(batch.Failed) != len(msgs) {
		t.Fatal(err)
	}
	for i, f := range batch.Failed {
		want := error(syscall.EINVAL)
		if i == 4 {
			want = syscall.EMSGSIZE
		}
		checkError(t, f.Err, want)
		var op *net.OpError
		if !errors.As(f.Err, &op) || op.Addr.String() != msgs[i].Addr.String() || f.Index != i || f.Addr != msgs[i].Addr {
			t.Errorf("message %d to %v: %d to %v: %v", i, msgs[i].Addr, f.Index, f.Addr, f.Err)
		}
	}
	if batch.Failed[1].Err != batch.Failed[2].Err {
		t.Error("two neighbours to one destination have an error each")
	}
}
