// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Segmentation offload.
//
// A run of neighbouring messages of one size to one destination goes to the
// kernel as one message, with a control message that says where to cut it
// (udp(7), UDP_SEGMENT). The planner finds the runs; it is a function of the
// messages and the limits alone. What the socket may do at all is probed per
// platform, and what a destination refused is remembered for a while.

const (
	// maxSegments is UDP_MAX_SEGMENTS. The kernel takes 128 since 2024, but
	// hosts behind virtio still check 64.
	maxSegments = 64

	// maxSegmented is the most payload of a segmented message: that of one
	// IPv4 datagram, because the kernel builds it as one before it cuts it.
	maxSegmented = 65507

	// largestHeaders are the most bytes of headers that kernels before 5.16
	// counted into the number of segments (commit 158390e45612).
	largestHeaders = 60
)

// segmentLimits are what a run may be.
type segmentLimits struct {
	segments int // most datagrams; below 2 there are no runs
	tooLarge int // the least size that the destination refused; 0 if none was
	headers  int // bytes that the kernel counts as if they were payload
}

// run says which of msgs, from the first, can go as one segmented message.
func (l segmentLimits) run(msgs []OutputMessage) run {
	most := min(l.segments, len(msgs))
	first := &msgs[0]
	if most < 2 || msgs[1].Addr != first.Addr {
		return run{n: 1}
	}
	size := first.payload()
	if size == 0 || l.tooLarge != 0 && size >= l.tooLarge || !segmentable(first.Control) {
		return run{n: 1}
	}
	left := min(maxSegmented, maxSegments*size-l.headers) - size
	vectors := maxVectors - len(first.Vectors)
	n := 1
	for ; n < most; n++ {
		m := &msgs[n]
		last := m.payload()
		left -= last
		vectors -= len(m.Vectors)
		if last == 0 || last > size || left < 0 || vectors < 0 || m.Addr != first.Addr || !sameControl(m.Control, first.Control) {
			break
		}
		if last < size { // the kernel cuts the rest that is shorter only at the end
			return run{n + 1, size}
		}
	}
	if n == 1 {
		size = 0
	}
	return run{n, size}
}

// payload is the bytes of m, or maxDatagram+1 if they are more than that: an int
// of 32 bits does not hold what vectors that share memory can add up to.
func (m *OutputMessage) payload() int {
	if len(m.Vectors) == 1 {
		return min(len(m.Vectors[0]), maxDatagram+1)
	}
	n := 0
	for _, v := range m.Vectors {
		if len(v) > maxDatagram-n {
			return maxDatagram + 1
		}
		n += len(v)
	}
	return n
}

func sameControl(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || bytes.Equal(a, b))
}

// A gso is whether a Conn may segment, and where it did not go.
type gso struct {
	raw      syscall.RawConn
	mode     GSOMode
	segments int // Config.MaxSegments, within the kernel's limit
	headers  int // see segmentLimits

	stale   atomic.Bool               // the user was at the socket's options: probe again
	more    atomic.Bool               // the user sent with MSG_MORE: a datagram may be open, and a whole run would be added to it
	state   atomic.Pointer[gsoState]  // nil while somebody looks
	refused atomic.Pointer[[]refusal] // replaced, never changed; nil while there is none

	mu  sync.Mutex
	eio []refusal // the last EIOs, each of another destination
}

// A gsoState is what the last probe found. reason is empty if segmentation is
// on; else it is on again at retry, unless that is zero.
type gsoState struct {
	reason string
	retry  time.Time
}

func (g *gso) init(raw syscall.RawConn, cfg *Config) {
	g.raw, g.mode, g.segments, g.headers = raw, cfg.GSO, maxSegments, countedHeaders
	if cfg.MaxSegments > 0 {
		g.segments = min(g.segments, cfg.MaxSegments)
	}
	g.stale.Store(true)
	g.probe()
}

// probe asks the socket anew, one caller at a time.
func (g *gso) probe() *gsoState {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.current(); s != nil {
		return s
	}
	was := g.state.Swap(nil) // before stale: who comes now waits for what we find
	g.stale.Store(false)     // before looking: who changes an option now makes it stale again
	s := &gsoState{reason: g.whyNot(was == nil)}
	if s.reason == "" && was != nil && time.Now().Before(was.retry) {
		s = was // its hour is not over because somebody looked at an option
	}
	g.state.Store(s)
	return s
}

// current is what the last probe found, or nil if it is time for another.
func (g *gso) current() *gsoState {
	if g.stale.Load() { // before state, which is nil once stale is not
		return nil
	}
	s := g.state.Load()
	if s != nil && !s.retry.IsZero() && time.Now().After(s.retry) {
		return nil
	}
	return s
}

// whyNot says why segmentation is off, or nothing if it is on.
func (g *gso) whyNot(inNew bool) string {
	switch {
	case g.mode == GSOOff:
		return "Config.GSO is GSOOff"
	case g.segments < 2:
		return "Config.MaxSegments is 1"
	case g.more.Load():
		return "MSG_MORE was used"
	}
	return whyNoSegments(g.raw, g.mode, inNew)
}

// reason is why segmentation is off now, or empty.
func (g *gso) reason() string {
	s := g.current()
	if s == nil {
		s = g.probe()
	}
	return s.reason
}

// most is how many datagrams a message sent with flags may hold; 0 for no
// segmentation.
func (g *gso) most(flags int) int {
	if flags&^harmlessFlags != 0 {
		if flags&msgMore != 0 && !g.more.Swap(true) {
			g.stale.Store(true)
		}
		return 0
	}
	if g.reason() != "" {
		return 0
	}
	return g.segments
}

// A refusal is a destination that refused a segmented message and took its
// datagrams plainly. It is the route that refuses, so one peer behind a small
// MTU slows no other, and ports do not matter.
type refusal struct {
	to      netip.Addr
	size    int // segments of this size or larger are refused
	expires time.Time
}

const (
	maxRefusals   = 64
	refusalExpiry = 10 * time.Second

	// A device that cannot segment answers EIO for all that goes through it.
	// After so many destinations within a minute it is taken to be the
	// socket's.
	maxEIO    = 3
	eioWindow = time.Minute
	eioRetry  = time.Hour
)

// isRefusal reports whether err, of a segmented message, may be about the
// segmentation: then nothing of the message has left.
func isRefusal(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EMSGSIZE) ||
		errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EPERM)
}

// tooLarge is the size from which on segments to an address are refused, or 0.
func (g *gso) tooLarge(to netip.Addr) int {
	refused := g.refused.Load()
	if refused == nil {
		return 0
	}
	for _, r := range *refused {
		if r.to == to && time.Now().Before(r.expires) {
			return r.size
		}
	}
	return 0
}

// A refusedRun is a run that the kernel refused with err.
type refusedRun struct {
	to   netip.Addr
	size int
	err  error
}

// remember notes that a destination refused a run and took its datagrams
// plainly.
func (g *gso) remember(refused refusedRun) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now, to, size := time.Now(), refused.to, refused.size
	if errors.Is(refused.err, syscall.EIO) {
		size = 1 // no size will do
		g.countEIO(to, now)
	}
	next := make([]refusal, 0, maxRefusals)
	next = append(next, refusal{to, size, now.Add(refusalExpiry)})
	if known := g.refused.Load(); known != nil {
		for _, r := range *known {
			if r.to != to && now.Before(r.expires) && len(next) < maxRefusals {
				next = append(next, r)
			}
		}
	}
	g.refused.Store(&next)
}

// countEIO turns segmentation off for the socket if that many destinations had
// EIO of late.
func (g *gso) countEIO(to netip.Addr, now time.Time) {
	recent := []refusal{{to: to, expires: now.Add(eioWindow)}}
	for _, r := range g.eio {
		if r.to != to && now.Before(r.expires) {
			recent = append(recent, r)
		}
	}
	g.eio = recent
	if len(recent) >= maxEIO {
		g.eio = nil
		g.state.Store(&gsoState{reason: "EIO from several destinations: their device cannot segment", retry: now.Add(eioRetry)})
	}
}
