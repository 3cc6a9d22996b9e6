// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/batchconn/batchconn/internal/sys"
)

// Segmentation offload.
//
// A run of neighbouring messages of one size to one destination goes to the
// kernel as one message, with a control message that says where to cut it
// (udp(7), UDP_SEGMENT). The planner finds the runs; it is a function of the
// messages and the limits alone. What the socket may do at all is probed, and
// what a destination refused is remembered for a while.

const (
	// maxSegments is UDP_MAX_SEGMENTS. The kernel takes 128 since 2024, but
	// hosts behind virtio still check 64.
	maxSegments = 64

	// maxSegmented is the most payload of a segmented message: that of one
	// IPv4 datagram, because the kernel builds it as one before it cuts it.
	maxSegmented = 65507
)

// segmentLimits are what a run may be.
type segmentLimits struct {
	segments int // the most datagrams; below 2 there are no runs
	tooLarge int // the smallest size that the destination refused; 0 if none was
	headers  int // bytes that the kernel counts as if they were payload
}

// run says which of msgs, from the first, can go as one segmented message.
func (l segmentLimits) run(msgs []OutputMessage) run {
	limit := min(l.segments, len(msgs))
	first := &msgs[0]
	if limit < 2 || msgs[1].Addr != first.Addr {
		return run{n: 1}
	}
	size := first.payload()
	if size == 0 || l.tooLarge != 0 && size >= l.tooLarge || !sys.Segmentable(first.Control) {
		return run{n: 1}
	}
	left := min(maxSegmented, maxSegments*size-l.headers) - size
	vectors := sys.MaxVectors - len(first.Vectors)
	n := 1
	for ; n < limit; n++ {
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

func sameControl(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || bytes.Equal(a, b))
}

// A gso is whether a Conn may segment.
type gso struct {
	raw      syscall.RawConn
	mode     GSOMode
	segments int // Config.MaxSegments, within the kernel's limit
	headers  int // see segmentLimits
	refusals refusals

	stale atomic.Bool              // the user was at the socket's options: probe again
	more  atomic.Bool              // the user sent with MSG_MORE: a datagram may be open, and a whole run would be added to it
	state atomic.Pointer[gsoState] // nil while somebody looks
	mu    sync.Mutex
}

// A gsoState is what the last probe found. disabledReason is empty if
// segmentation is on; else it is on again at retry, unless that is zero.
type gsoState struct {
	disabledReason string
	retry          time.Time
}

func (g *gso) init(raw syscall.RawConn, cfg *Config) {
	g.raw, g.mode, g.segments, g.headers = raw, cfg.GSO, maxSegments, sys.CountedHeaders
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
	was := g.state.Swap(nil) // before stale: a caller that comes now waits for what we find
	g.stale.Store(false)     // before looking: an option that is changed now makes it stale again
	s := &gsoState{disabledReason: g.look(was == nil)}
	if s.disabledReason == "" && was != nil && time.Now().Before(was.retry) {
		s = was // its hour is not over because somebody looked at an option
	}
	g.state.Store(s)
	if s.disabledReason == testUnderWay {
		g.stale.Store(true) // the next send asks again
	}
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

// look says why segmentation is off, or nothing if it is on. In New it waits for
// the self-test.
func (g *gso) look(inNew bool) (disabledReason string) {
	switch {
	case g.mode == GSOOff:
		return "Config.GSO is GSOOff"
	case g.segments < 2:
		return "Config.MaxSegments is 1"
	case g.more.Load():
		return "MSG_MORE was used"
	case os.Getenv("BATCHCONN_GSO") == "off":
		return "BATCHCONN_GSO=off in the environment"
	}
	if g.mode != GSOOn {
		if r := sys.DamagedRelease(); r != "" {
			return r
		}
	}
	err := g.raw.Control(func(fd uintptr) { disabledReason = sys.NoSegmentsReason(fd) })
	if err != nil {
		return err.Error()
	}
	if disabledReason == "" {
		return selfTest.disabledReason(inNew)
	}
	return disabledReason
}

// disabledReason is why segmentation is off now, or empty.
func (g *gso) disabledReason() string {
	s := g.current()
	if s == nil {
		s = g.probe()
	}
	return s.disabledReason
}

// limits are those of runs sent with flags.
func (g *gso) limits(flags int) segmentLimits {
	if flags&^sys.HarmlessFlags != 0 {
		if flags&sys.MsgMore != 0 && !g.more.Swap(true) {
			g.stale.Store(true)
		}
		return segmentLimits{}
	}
	if g.disabledReason() != "" {
		return segmentLimits{}
	}
	return segmentLimits{segments: g.segments, headers: g.headers}
}

// disable turns segmentation off for a while.
func (g *gso) disable(reason string, retry time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.state.Store(&gsoState{reason, retry})
}

// remember notes that a destination refused a run and took its datagrams
// plainly.
func (g *gso) remember(r refusal) {
	now := time.Now()
	if g.refusals.add(r, now) {
		g.disable("EIO from several destinations: their device cannot segment", now.Add(eioRetry))
	}
}

// isRefusal reports whether err, of a segmented message, may be about the
// segmentation: then nothing of the message has left.
func isRefusal(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EMSGSIZE) ||
		errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EPERM)
}

// A refusal is a run that the kernel refused with err. It is the route that
// refuses, so one peer behind a small MTU slows no other, and ports do not
// matter.
type refusal struct {
	to   netip.Addr
	size int // segments of this size or larger are refused
	err  error
}

const (
	// A device that cannot segment answers EIO for all that goes through it.
	// After so many destinations within a minute it is taken to be the
	// socket's.
	maxEIO    = 3
	eioWindow = time.Minute
	eioRetry  = time.Hour
)

// refusals are the destinations that refused runs of late.
type refusals struct {
	sizes refusalTable
	mu    sync.Mutex
	eio   []recentEIO // each of another destination
}

type recentEIO struct {
	to      netip.Addr
	expires time.Time
}

// add remembers a refusal. It reports whether so many destinations answered EIO
// that it must be the socket.
func (t *refusals) add(r refusal, now time.Time) (ofSocket bool) {
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
func (t *refusals) countEIOLocked(to netip.Addr, now time.Time) bool {
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
