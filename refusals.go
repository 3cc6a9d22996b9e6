// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// A refusal is a run that the kernel refused with err. It is the route that
// refuses, so one peer behind a small MTU slows no other, and ports do not
// matter.
type refusal struct {
	to   netip.Addr
	size int // segments of this size or larger are refused
	err  error
}

const (
	// A device that cannot segment answers EIO for all that goes through it. If
	// so many destinations met EIO within a minute, all that the socket sends is
	// taken to go through such a device.
	maxEIO    = 3
	eioWindow = time.Minute
	eioRetry  = time.Hour
)

// refusals are the destinations that refused runs of late. Most Conns have
// none, and take no memory for them.
type refusals struct{ record atomic.Pointer[refusalRecord] }

type refusalRecord struct {
	sizes refusalTable
	mu    sync.Mutex
	eio   []recentEIO // each of another destination
}

// tooLarge is the size from which on segments to an address are refused, or 0.
func (t *refusals) tooLarge(to netip.Addr) int {
	record := t.record.Load()
	if record == nil {
		return 0
	}
	return record.sizes.tooLarge(to)
}

// table is where refusals are remembered.
func (t *refusals) table() *refusalRecord {
	if record := t.record.Load(); record != nil {
		return record
	}
	t.record.CompareAndSwap(nil, new(refusalRecord))
	return t.record.Load()
}

type recentEIO struct {
	to      netip.Addr
	expires time.Time
}

// add remembers a refusal. It reports whether so many destinations answered EIO
// that the socket's device must be the cause.
func (t *refusalRecord) add(r refusal, now time.Time) (ofSocket bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if errors.Is(r.err, syscall.EIO) {
		r.size = 1 // no size will do
		ofSocket = t.countEIOLocked(r.to, now)
	}
	t.sizes.add(r.to, r.size)
	return ofSocket
}

// countEIOLocked reports whether that many destinations had EIO of late.
func (t *refusalRecord) countEIOLocked(to netip.Addr, now time.Time) bool {
	recent := []recentEIO{{to, now.Add(eioWindow)}}
	for _, r := range t.eio {
		if r.to != to && now.Before(r.expires) {
			recent = append(recent, r)
		}
	}
	t.eio = recent
	if len(recent) < maxEIO {
		return false
	}
	t.eio = nil
	return true
}

const (
	// maxRefusals bounds the memory of a table: 4096 entries are half a
	// megabyte.
	maxRefusals   = 4096
	refusalExpiry = 10 * time.Second
)

// A refusalTable says from which size on the kernel refuses segments to a
// destination. When it is full the oldest entry goes. It takes memory only
// while it has entries.
type refusalTable struct {
	clock func() time.Time // nil: time.Now

	// until is when the last entry expires, since epoch; 0 if there is none.
	// Most sends look no further.
	until atomic.Int64

	mu    sync.RWMutex
	sizes map[netip.Addr]refusedSize
	line  []netip.Addr // the keys of sizes in order of expiry
}

type refusedSize struct {
	size    int
	expires int64 // since epoch
}

func (t *refusalTable) now() int64 {
	if t.clock != nil {
		return sinceEpoch(t.clock())
	}
	return sinceEpoch(time.Now())
}

// tooLarge is the size from which on segments to an address are refused, or 0.
func (t *refusalTable) tooLarge(to netip.Addr) int {
	until := t.until.Load()
	if until == 0 {
		return 0
	}
	now := t.now()
	if now >= until {
		t.release(now)
		return 0
	}
	t.mu.RLock()
	r := t.sizes[to.Unmap()]
	t.mu.RUnlock()
	if now >= r.expires {
		return 0
	}
	return r.size
}

// add notes that segments of a size to an address are refused. If larger ones
// are known to be, both are forgotten together, so that the line stays in
// order.
func (t *refusalTable) add(to netip.Addr, size int) {
	to = to.Unmap()
	t.mu.Lock()
	defer t.mu.Unlock()
	now := t.now()
	for len(t.line) > 0 && now >= t.sizes[t.line[0]].expires {
		t.dropOldestLocked()
	}
	if r, known := t.sizes[to]; known {
		t.sizes[to] = refusedSize{min(size, r.size), r.expires}
		return
	}
	if len(t.line) == maxRefusals {
		t.dropOldestLocked()
	}
	if t.sizes == nil {
		t.sizes = make(map[netip.Addr]refusedSize)
	}
	expires := now + int64(refusalExpiry)
	t.sizes[to] = refusedSize{size, expires}
	t.line = append(t.line, to)
	t.until.Store(expires)
}

func (t *refusalTable) dropOldestLocked() {
	delete(t.sizes, t.line[0])
	t.line = t.line[1:] // append moves what is left to a new array in time
}

// release gives the memory back when all entries have expired.
func (t *refusalTable) release(now int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if now >= t.until.Load() {
		t.sizes, t.line = nil, nil
		t.until.Store(0)
	}
}
