// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"slices"
	"testing"

	"github.com/batchconn/batchconn/internal/sys"
)

// raceEnabled is set by race_test.go.
var raceEnabled bool

// TestNoAllocation: a call that sends everything without waiting allocates
// nothing.
func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("under -race sync.Pool drops what it is given at random")
	}
	if !sys.HaveBatchCall {
		t.Skip("the portable way makes a closure and an address per datagram")
	}
	cancellable, cancel := context.WithCancel(t.Context())
	defer cancel()
	contexts := map[string]context.Context{"nil": nil, "background": context.Background(), "cancellable": cancellable}
	for _, cfg := range []*Config{{}, {GSO: GSOOff}, {NonBlocking: true}} {
		forEachKind(t, 3, cfg, func(t *testing.T, w *world) {
			for name, ctx := range contexts {
				w.testNoAllocation(t, name, ctx)
			}
		})
	}
}

func (w *world) testNoAllocation(t *testing.T, name string, ctx context.Context) {
	t.Helper()
	m := w.write(t, 100, inTurn, mixed)
	m.msgs = append(m.msgs, slices.Repeat([]OutputMessage{{Addr: w.dest[0], Vectors: [][]byte{make([]byte, 100)}}}, maxBatch)...)
	ms := xnetMessages(m.msgs)
	p := make([]byte, 1200)
	var err error
	calls := map[string]func(){
		"SendMessages":           func() { _, err = w.conn.SendMessages(ctx, m.msgs, 0) },
		"SendMessages, few":      func() { _, err = w.conn.SendMessages(ctx, m.msgs[:5], 0) },
		"SendMessages, dontwait": func() { _, err = w.conn.SendMessages(ctx, m.msgs[:5], MsgDontWait) },
		"SendEach":               func() { _, err = w.conn.SendEach(ctx, m.msgs, 0) },
		"SendMessage":            func() { _, err = w.conn.SendMessage(ctx, &m.msgs[0], 0) },
		"SendMessage, local":     func() { msg := m.msgs[1]; _, err = w.conn.SendMessage(ctx, &msg, 0) },
		"SendTo":                 func() { _, err = w.conn.SendTo(ctx, p, w.dest[0], 0) },
		"WriteBatch":             func() { _, err = w.conn.WriteBatch(ms, 0) },
	}
	if w.connected {
		calls["Write"] = func() { _, err = w.conn.Write(p) }
	} else {
		for _, to := range w.dest {
			calls["WriteToUDPAddrPort "+to.String()] = func() { _, err = w.conn.WriteToUDPAddrPort(p, to) }
		}
	}
	for call, f := range calls {
		if n := testing.AllocsPerRun(10, f); n != 0 || err != nil {
			t.Errorf("%s with ctx %s: %v allocations, error %v", call, name, n, err)
		}
	}
}

func TestAppendSegmentsNoAllocation(t *testing.T) {
	w := plainKind.world(t, 1, nil)
	p := make([]byte, 100_000)
	msgs := AppendSegments(nil, w.dest[0], p, 1200, nil)
	if n := testing.AllocsPerRun(20, func() { msgs = AppendSegments(msgs[:0], w.dest[0], p, 1200, nil) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
