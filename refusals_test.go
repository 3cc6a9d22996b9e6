// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net/netip"
	"sync"
	"syscall"
	"testing"
	"time"
)

// age makes all that t holds older.
func (t *refusalTable) age(d time.Duration) {
	was := t.clock
	if was == nil {
		was = time.Now
	}
	t.clock = func() time.Time { return was().Add(d) }
}

// A stopped clock goes on when the test says so.
type stoppedClock struct{ at time.Time }

func (c *stoppedClock) now() time.Time          { return c.at }
func (c *stoppedClock) advance(d time.Duration) { c.at = c.at.Add(d) }
func newStoppedClock() *stoppedClock            { return &stoppedClock{time.Now()} }

// numbered is one of many addresses.
func numbered(i int) netip.Addr {
	return netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
}

func (t *refusalTable) check(tb testing.TB, what string, to netip.Addr, want int) {
	tb.Helper()
	if got := t.tooLarge(to); got != want {
		tb.Errorf("%s: too large is %d, want %d", what, got, want)
	}
}

// TestRefusals: what a destination refused is remembered of that destination,
// from its size up, for a while.
func TestRefusals(t *testing.T) {
	const expiry = 10 * time.Second
	var g gso
	sizes, a, b := &g.refusals.table().sizes, numbered(1), numbered(2)
	clock := newStoppedClock()
	sizes.clock = clock.now
	sizes.check(t, "at first", a, 0)
	g.remember(refusal{a, 1400, syscall.EMSGSIZE})
	sizes.check(t, "refused", a, 1400)
	sizes.check(t, "as mapped", netip.AddrFrom16(a.As16()), 1400)
	sizes.check(t, "another", b, 0)

	clock.advance(expiry / 2)
	g.remember(refusal{b, 900, syscall.EIO})
	sizes.check(t, "EIO", b, 1)
	sizes.check(t, "refused before", a, 1400)
	g.remember(refusal{netip.AddrFrom16(a.As16()), 1300, syscall.EINVAL})
	sizes.check(t, "refused again", a, 1300)
	g.remember(refusal{a, 1350, syscall.EMSGSIZE}) // by a sender that did not know yet
	sizes.check(t, "refused less", a, 1300)

	clock.advance(expiry/2 - 1)
	sizes.check(t, "nearly expired", a, 1300)
	clock.advance(1)
	sizes.check(t, "expired", a, 0)
	sizes.check(t, "the other is not", b, 1)
	g.remember(refusal{a, 1200, syscall.EMSGSIZE})
	sizes.check(t, "refused after that", a, 1200)
	clock.advance(expiry / 2)
	sizes.check(t, "the other is now", b, 0)
	sizes.check(t, "and it alone", a, 1200)
	if s := g.state.Load(); s != nil {
		t.Errorf("one EIO turned segmentation off: %+v", s)
	}
}

// TestManyRefusals: as many as there is room for are remembered, and then the
// oldest goes. What has expired takes no room.
func TestManyRefusals(t *testing.T) {
	if maxRefusals < 4096 {
		t.Errorf("room for %d", maxRefusals)
	}
	clock := newStoppedClock()
	table := refusalTable{clock: clock.now}
	for i := range maxRefusals {
		table.add(numbered(i), 1000)
		clock.advance(1)
	}
	table.add(numbered(0), 900) // known, and takes no room
	for i := range maxRefusals {
		table.check(t, "of as many as there is room for", numbered(i), map[bool]int{true: 900, false: 1000}[i == 0])
	}
	for i := range 10 {
		table.add(numbered(maxRefusals+i), 1000)
	}
	for i := range maxRefusals + 10 {
		table.check(t, "of ten more", numbered(i), map[bool]int{true: 0, false: 1000}[i < 10])
	}
	clock.advance(refusalExpiry - 20) // all but the last few have expired
	table.add(numbered(1), 1000)
	if n := len(table.sizes); n != len(table.line) || n < 10 || n > 40 {
		t.Errorf("%d are held, %d in line, after most have expired", n, len(table.line))
	}
	for i := range 3 * maxRefusals {
		table.add(numbered(i), 1000)
	}
	if len(table.sizes) != maxRefusals || len(table.line) != maxRefusals || cap(table.line) > 3*maxRefusals {
		t.Errorf("%d are held, %d in line of %d", len(table.sizes), len(table.line), cap(table.line))
	}
}

// TestRefusalsMemory: a table takes memory only while something is refused.
func TestRefusalsMemory(t *testing.T) {
	clock := newStoppedClock()
	table := refusalTable{clock: clock.now}
	table.tooLarge(numbered(1))
	if table.sizes != nil || table.line != nil {
		t.Errorf("%+v before anything was refused", table.sizes)
	}
	table.add(numbered(1), 1000)
	clock.advance(refusalExpiry)
	table.check(t, "expired", numbered(2), 0)
	if table.sizes != nil || table.line != nil || table.until.Load() != 0 {
		t.Errorf("%+v is held after all has expired", table.sizes)
	}
	table.add(numbered(2), 1000)
	if n := testing.AllocsPerRun(100, func() { table.tooLarge(numbered(2)) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// TestRefusalsTogether: senders look and add side by side.
func TestRefusalsTogether(t *testing.T) {
	var table refusalTable
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := range maxRefusals / 4 {
				table.add(numbered(i*4+g), i+1)
				table.check(t, "added by this one", numbered(i*4+g), i+1)
				table.check(t, "added by nobody", numbered(1<<20), 0)
			}
		})
	}
	wg.Wait()
}
