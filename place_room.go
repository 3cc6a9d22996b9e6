// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/batchconn/batchconn/internal/sys"
)

// A roomPlace is a place of callers that wait for room.
//
// A sender is parked on the socket, with the lock for which net's own writes
// wait, and which these hold while they wait. Nobody hands that lock over: each
// might take it again and again and keep the other waiting. So when a write of
// net's own comes, and for a while after it, senders are parked on a duplicate
// of the socket; and once there is a File, through which others may make the
// socket blocking, always, since then a write of net's own may have the lock
// for as long as it likes. Callers of WaitWritable, which may be many and long,
// always are.
//
// The duplicate is there as long as it is used now and then. Failing that (no
// descriptor left, no duplicates on this system), the caller polls: one that
// may wait does not fail for that.
type roomPlace struct {
	place
	rule     *roomRule
	conn     *net.UDPConn // the socket, if callers may be parked on it
	netWrote atomic.Bool  // a write of net's own has begun since a caller looked
	atLock   atomic.Bool  // the caller that is to be parked on the socket has not got the lock yet

	// Under mu.
	onDup   bool  // the last that was parked was so on the duplicate
	ticks   bool  // the ticker runs
	hasFile bool  // others may have made the socket blocking
	netSeen int64 // since epoch: when a caller found netWrote; 0: never
	retryAt int64 // since epoch: when to kick the caller that is parked; 0: never
	dup     *duplicate
	ticker  *time.Timer
}

// A duplicate is one of the socket's descriptor.
type duplicate struct {
	*os.File
	raw  syscall.RawConn
	used int64 // since epoch: when a caller was parked on it last
}

func (p *roomPlace) init(raw syscall.RawConn, rule *roomRule) {
	p.ends.raw, p.on, p.rule = raw, p, rule
}

// wait is RawConn.Write: it parks until f, which is called at once and whenever
// there may be room, returns true.
func (p *roomPlace) wait(f func(fd uintptr) bool) error {
	raw, err := p.ready()
	switch {
	case err != nil:
		return err
	case raw == nil:
		return p.poll(f)
	}
	defer p.atLock.Store(false)
	return raw.Write(f)
}

// ready returns what to park on; nil is nothing.
func (p *roomPlace) ready() (raw syscall.RawConn, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.ends.closed.Load() {
		return nil, net.ErrClosed
	}
	p.retryAt = 0
	beside := p.conn != nil && p.besideNetLocked()
	if beside {
		p.retryLocked() // they may take all room, again and again
	}
	if p.onDup = !sys.ParksWriters || p.conn == nil || beside || p.hasFile; p.onDup {
		return p.duplicateLocked(), nil
	}
	p.atLock.Store(true)
	return p.ends.raw, nil
}

// besideNetLocked reports whether there have been writes of net's own of late.
func (p *roomPlace) besideNetLocked() bool {
	now := sinceEpoch(time.Now())
	if p.netWrote.Swap(false) {
		p.netSeen = now
	}
	return p.netSeen != 0 && now-p.netSeen < int64(p.rule.dupExpiry)
}

// netWrites says that a write of net's own is about to begin. The sender that
// is parked on the socket leaves it first: it has the lock, and is woken for
// half of the buffer only, while the write may find room or, by the user's
// RawConn, not wait at all. It returns what isKick wants to know.
func (p *roomPlace) netWrites() (before uint32) {
	if !p.netWrote.Load() {
		p.netWrote.Store(true)
	}
	if p.state.Load() != unparked {
		p.clearSocket()
	}
	return p.kicks.Load()
}

// noteFile keeps callers off the socket from now on.
func (p *roomPlace) noteFile() {
	p.mu.Lock()
	p.hasFile = true
	p.mu.Unlock()
	p.clearSocket()
}

// clearSocket has the caller that is parked on the socket, or waits for its
// lock, move to a duplicate.
func (p *roomPlace) clearSocket() {
	p.mu.Lock()
	if !p.onDup {
		p.kickLocked()
	}
	p.mu.Unlock()
	for p.state.Load() == kicked && !p.atLock.Load() {
		runtime.Gosched()
	}
	if p.atLock.Load() {
		runtime.Gosched() // the caller that waits for the lock goes first
	}
}

// retry has the caller that is parked try again after a pause, if nothing has
// woken it. It is for those to whom the kernel does not owe a wake-up.
func (p *roomPlace) retry() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.retryLocked()
}

func (p *roomPlace) retryLocked() {
	p.retryAt = sinceEpoch(time.Now().Add(p.rule.pause))
	p.tickLocked()
}

// tickLocked has the ticker run. It is no timer that is set for each wait: to
// move one wakes a thread of the runtime's, and while one is set that thread is
// woken by whatever else happens to a socket.
func (p *roomPlace) tickLocked() {
	switch {
	case p.ticks:
		return
	case p.ticker == nil:
		p.ticker = time.AfterFunc(p.rule.pause, p.tick)
	default:
		p.ticker.Reset(p.rule.pause)
	}
	p.ticks = true
}

func (p *roomPlace) duplicateLocked() syscall.RawConn {
	now := sinceEpoch(time.Now())
	if p.dup != nil {
		p.dup.used = now
		return p.dup.raw
	}
	dup, err := sys.Dup(p.ends.raw)
	if err != nil {
		return nil
	}
	raw, err := dup.SyscallConn()
	if err != nil || dup.SetWriteDeadline(p.until()) != nil { // the runtime's poller does not take it
		dup.Close()
		return nil
	}
	p.dup = &duplicate{dup, raw, now}
	p.tickLocked()
	if p.state.Load() == kicked {
		dup.SetWriteDeadline(aLongTimeAgo)
	}
	return raw
}

func (p *roomPlace) endParkingAt(t time.Time) error {
	if p.dup != nil {
		p.dup.SetWriteDeadline(t)
	}
	if p.conn != nil {
		return p.conn.SetWriteDeadline(t)
	}
	return nil
}

// tick kicks the caller that is to try again, and closes a duplicate that was
// not used for long.
func (p *roomPlace) tick() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.ticks = false
	now, isParked := sinceEpoch(time.Now()), p.state.Load() != unparked
	if p.dup != nil && !(isParked && p.onDup) && now-p.dup.used >= int64(p.rule.dupExpiry) {
		p.dup.Close()
		p.dup = nil
	}
	retries := isParked && p.retryAt != 0
	if retries && now >= p.retryAt {
		p.kickLocked()
	}
	if retries || p.dup != nil {
		p.tickLocked()
	}
}

// setDeadline sets the user's deadline in our record, on the duplicate, and by
// set on what else there is.
func (p *roomPlace) setDeadline(t time.Time, set func(time.Time) error) error {
	return p.place.setDeadline(t, func(t time.Time) error {
		err := set(t)
		if err == nil && p.dup != nil {
			p.dup.SetWriteDeadline(t)
		}
		return err
	})
}

// close wakes a caller that is parked on a duplicate, and returns once it is
// off the socket. Until then it may want mu.
func (p *roomPlace) close() {
	p.mu.Lock()
	p.ends.closed.Store(true)
	dup := p.dup
	p.dup = nil
	p.mu.Unlock()
	if dup != nil {
		dup.Close()
	}
}

// pollEvery is how often a caller that polls looks.
const pollEvery = time.Millisecond

// poll is wait without anything to park on. Like the kernel, it goes on once half
// of the buffer is free. Writes of net's own wait for that half, and would starve
// if this caller took the first bit of room. Once another of them has begun it
// takes what there is, and otherwise it tries once in a rule.pause, whatever the
// room. Where there is said to be room and f finds none, its pauses grow.
func (p *roomPlace) poll(f func(fd uintptr) bool) error {
	w := poller{p: p, f: f, pause: pollEvery}
	for look := w.look; ; time.Sleep(pollEvery) {
		if !time.Now().Before(w.nextLook) {
			if err := p.ends.raw.Control(look); w.done || err != nil {
				return err
			}
		}
		if p.state.Load() == kicked || p.ends.closed.Load() || p.ends.expired() {
			return os.ErrDeadlineExceeded
		}
	}
}

// A poller is a wait that polls.
type poller struct {
	p *roomPlace
	f func(fd uintptr) bool

	pause    time.Duration // between two looks
	nextLook time.Time     // for room
	nextTry  time.Time     // whether there is room or not
	done     bool
}

func (w *poller) look(fd uintptr) {
	now := time.Now()
	ready, err := w.p.rule.ready(fd)
	if ready || err != nil || w.p.netWrote.Load() || !now.Before(w.nextTry) {
		w.done = w.f(fd)
		w.nextTry = now.Add(w.p.rule.pause)
	}
	if ready {
		w.pause = min(2*w.pause, w.p.rule.pause)
	} else {
		w.pause = pollEvery
	}
	w.nextLook = now.Add(w.pause)
}
