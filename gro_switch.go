// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"os"
	"sync"
	"syscall"
	"time"
	"weak"

	"github.com/batchconn/batchconn/internal/sys"
)

// Switching coalescing on and off.
//
// The option is one of the socket, and what it does shows when a message is
// read: a run that is read without it comes as one datagram, and nothing says
// so. So it goes on only while every read of the Conn is aware, which means
// that it reads into a block and cuts. It goes off in this order: drain the
// socket's queue, turn the option off, and ask whether anything came in
// between; if so, again. What a processor was putting into the queue meanwhile
// may still be a run, so reads stay aware afterwards.

// initGRO decides what can be known in New.
func (r *receiver) initGRO(mode GROMode) {
	r.gro.forced = mode == GROOn
	switch {
	case mode == GROOff:
		r.gro.off = "Config.GRO is GROOff"
	case os.Getenv("BATCHCONN_GRO") == "off":
		r.gro.off = "BATCHCONN_GRO=off in the environment"
	}
	r.alwaysNet = r.gro.off != "" || !sys.HaveBatchCall
	r.shareSocket()
	r.mu.Lock() // from here on a Conn of the same socket may turn it off
	defer r.mu.Unlock()
	if r.gro.off == "" {
		r.lookLocked()
	}
	if r.gro.off == "" && r.gro.reason == "" {
		r.gro.off = gluedReason()
	}
	if r.gro.forced {
		r.turnOnLocked()
	}
}

// lookLocked looks, in New, only at what must be known then: whether the socket
// has the option, and the user has set it. Most sockets' queues are never found
// deep, and nobody asks them for the rest.
func (r *receiver) lookLocked() {
	g := &r.gro
	if err := r.queue.ends.raw.Control(func(fd uintptr) { g.reason = sys.NoOptionReason(fd) }); err != nil {
		g.reason = err.Error()
	}
	g.userSet = g.reason == sys.ReasonGROSet
	g.probed = g.reason != ""
}

// probeLocked asks the socket whether it may coalesce.
func (r *receiver) probeLocked() string {
	g := &r.gro
	g.probed = true
	if err := r.queue.ends.raw.Control(func(fd uintptr) { g.reason = sys.NoCoalescingReason(fd, g.forced) }); err != nil {
		g.reason = err.Error()
	}
	return g.reason
}

// mayTurnOnLocked reports whether coalescing may be turned on.
func (r *receiver) mayTurnOnLocked() bool {
	g := &r.gro
	if !g.mayCome() || g.controls > 0 || r.queue.ends.closed.Load() {
		return false
	}
	if r.isPaused() {
		return false
	}
	return g.probed || r.probeLocked() == ""
}

// turnOnLocked turns coalescing on, if it may be.
func (r *receiver) turnOnLocked() {
	g := &r.gro
	if !r.mayTurnOnLocked() {
		return
	}
	r.ours.Store(true)
	if g.wanted = r.net.underWay() != 0; g.wanted {
		return // but when those reads come again, they come to us
	}
	g.on, g.settled, g.brought = true, false, false
	r.quiet, r.empties = 0, 0
	r.isAware.Store(true) // before the option
	r.control(func(fd uintptr) {
		if err := sys.SetCoalescing(fd, true); err != nil {
			g.on, g.reason = false, os.NewSyscallError("setsockopt", err).Error()
		}
	})
}

const (
	minPause = time.Second
	maxPause = time.Minute
)

// pauseLocked keeps coalescing from being turned on for a while.
func (r *receiver) pauseLocked(d time.Duration) { r.retry.Store(sinceEpoch(time.Now()) + int64(d)) }

func (r *receiver) isPaused() bool {
	at := r.retry.Load()
	return at != 0 && int64(time.Since(epoch)) < at
}

// settleLocked turns coalescing off because it brings nothing, if the socket's
// queue is empty, and lets reads be plain again. Aware reads would be of no use
// to a run that comes late: without the option the kernel does not say its
// size.
func (r *receiver) settleLocked() {
	g := &r.gro
	shallow := 2*r.empties >= r.quiet
	if r.quiet, r.empties = 0, 0; !g.on || g.forced {
		return
	}
	r.control(func(fd uintptr) {
		// A run that is queued would come as one datagram. If one came before the
		// option was off, it goes on again, and settling waits for another time.
		other, _ := sys.SocketMemory(fd)
		sys.SetCoalescing(fd, false)
		if staysEmpty(fd, other) {
			g.on = false
		} else if err := sys.SetCoalescing(fd, true); err != nil {
			g.on, g.reason = false, os.NewSyscallError("setsockopt", err).Error()
		}
	})
	if g.on {
		return
	}
	if !g.brought || !shallow { // else it was of use, and there only is not much to read now
		g.pause = min(max(2*g.pause, minPause), maxPause)
		r.pauseLocked(g.pause)
	}
	g.settled = true
}

// control calls f with the descriptor, unless it is closed.
func (r *receiver) control(f func(fd uintptr)) { r.queue.ends.raw.Control(f) }

// turnOff turns coalescing off: for good if reason is not empty, else until the
// queue is found deep again.
func (r *receiver) turnOff(reason string) {
	if r.alwaysNet {
		return
	}
	r.mu.Lock()
	g := &r.gro
	if reason != "" && g.off == "" {
		g.off = reason
	}
	if g.on {
		r.control(r.turnOffLocked)
	}
	g.settled = false
	if reason != "" {
		r.ours.Store(true)
		r.isAware.Store(!g.userSet) // others have the socket, and may turn the option on
	}
	leaves := r.held != nil
	r.mu.Unlock()
	if reason != "" {
		r.queue.flush(func() bool { return r.net.underWay() == 0 })
	}
	if leaves {
		r.queue.kick()
	}
}

// maxDrains bounds how often turnOffLocked begins anew while runs arrive.
const maxDrains = 100

// lateRun is how long the queue must stay empty without the option. A processor
// that saw it on may be about to queue a run, or have queued it where the
// socket's memory does not show it yet (udp_prod_queue, Linux 6.18). One that
// is stopped in between, as those of virtual machines are, may take longer. A
// test replaces it.
var lateRun = 20 * time.Microsecond

func (r *receiver) turnOffLocked(fd uintptr) {
	r.gro.on, r.ahead = false, 1
	for range maxDrains {
		r.drainLocked(fd)
		other, _ := sys.SocketMemory(fd)
		sys.SetCoalescing(fd, false)
		if staysEmpty(fd, other) {
			return
		}
		sys.SetCoalescing(fd, true)
	}
	sys.SetCoalescing(fd, false)
}

// staysEmpty reports whether nothing is in the socket's queue, and nothing
// comes for a while. other is what the socket's memory held before. That can be
// something else, such as errors in a queue that nobody reads; so poll(2) is
// asked too then.
func staysEmpty(fd uintptr, other uint32) bool {
	for start := time.Now(); ; {
		if queued, _ := sys.SocketMemory(fd); queued != other {
			return false
		}
		if other != 0 {
			if in, _ := sys.Readable(fd); in {
				return false
			}
		}
		if time.Since(start) >= lateRun {
			return true
		}
	}
}

// drainLocked holds all that is in the socket's queue.
func (r *receiver) drainLocked(fd uintptr) {
	for {
		b := inBatches.Get().(*inBatch)
		b.ready(maxAhead, nil)
		k, errno := r.recvLocked(&b.in, fd, maxAhead, 0)
		if errno == 0 {
			b.take(0, k, nil)
			r.countLocked(b)
			r.holdLocked(b.compact())
		}
		b.free()
		if errno != 0 {
			if errno != sys.EWOULDBLOCK {
				err := os.NewSyscallError("recvmsg", errno)
				r.addPending(err)
				if isToldOnce(err) {
					continue // it was pending, and is gone
				}
			}
			return
		}
	}
}

// userControl runs f, which may read and set options, on the descriptor: with
// the socket as the user left it, and not as we did. Meanwhile no read turns
// coalescing on.
func (r *receiver) userControl(raw syscall.RawConn, f func(fd uintptr)) error {
	if r.alwaysNet {
		return raw.Control(f)
	}
	r.mu.Lock()
	r.gro.controls++
	on := r.gro.on
	r.mu.Unlock()
	defer r.endControl(on)
	if on {
		r.turnOff("")
	}
	return raw.Control(f)
}

// endControl looks at what the user has set. Coalescing that was turned off for
// the Control goes on again at once: what was queued as a run is cut then.
func (r *receiver) endControl(wasOn bool) {
	r.mu.Lock()
	r.gro.controls--
	aware := r.optionsChangedLocked()
	if r.gro.resume = r.gro.resume || wasOn; r.gro.resume && r.gro.controls == 0 {
		r.gro.resume = false
		r.turnOnLocked()
	}
	r.mu.Unlock()
	if aware {
		r.queue.flush(func() bool { return r.net.underWay() == 0 })
	}
}

// setOptions runs f, which sets options that say what comes beside a datagram.
// Coalescing stays on: without it, a run that a processor is putting into the
// queue would come as one datagram. It goes off only if the kernel would merge
// what is now to be told apart.
func (r *receiver) setOptions(f func(fd uintptr)) error {
	if err := r.queue.ends.raw.Control(f); err != nil || r.alwaysNet {
		return err
	}
	r.mu.Lock()
	merges := false
	if r.gro.on {
		r.control(func(fd uintptr) { merges = sys.MergesMarks(fd, r.gro.forced) != "" })
	}
	r.gro.probed = r.gro.on && !merges
	r.mu.Unlock()
	if merges {
		r.turnOff("")
	}
	return nil
}

// optionsChangedLocked looks whether the user has set the option, or taken it
// away, and has the rest looked at before the option is turned on. aware says
// that reads are aware from now on, those of package net's own too, which must
// be ended.
func (r *receiver) optionsChangedLocked() (aware bool) {
	g := &r.gro
	g.probed = false
	r.control(func(fd uintptr) {
		g.longControl = sys.HasLongControl(fd)
		on, _ := sys.Coalescing(fd)
		switch {
		case on && !g.userSet:
			g.userSet = true
			r.isAware.Store(false)
		case !on && g.userSet:
			g.userSet = false
			if aware = g.off != ""; aware {
				r.ours.Store(true) // before reads are aware, and hold what net's would not see
			}
			r.isAware.Store(aware)
		}
	})
	return aware
}

// sockets are the sockets of Conns, by cookie. Two Conns of one socket share
// the option, and each must know.
var sockets = struct {
	sync.Mutex
	receivers map[uint64]weak.Pointer[receiver] // the first of each, which has the next
	added     int
}{receivers: make(map[uint64]weak.Pointer[receiver])}

const reasonShared = "the socket is another Conn's too"

// shareSocket makes r known to the other Conns of its socket, and them to r.
func (r *receiver) shareSocket() {
	r.control(func(fd uintptr) { r.cookie = sys.SocketCookie(fd) })
	if r.cookie == 0 {
		return
	}
	sockets.Lock()
	r.next = sockets.receivers[r.cookie]
	sockets.receivers[r.cookie] = weak.Make(r)
	if sockets.added++; sockets.added%sweepEvery == 0 {
		sweepSockets()
	}
	var others []*receiver
	for other := r.next.Value(); other != nil; other = other.next.Value() {
		others = append(others, other)
	}
	sockets.Unlock()
	for _, other := range others {
		other.turnOff(reasonShared)
		r.turnOff(reasonShared)
	}
}

// sweepEvery is how many sockets are added before those are forgotten that
// have no Conn any more, and were never closed.
const sweepEvery = 1024

func sweepSockets() {
	for cookie, p := range sockets.receivers {
		if p.Value() == nil {
			delete(sockets.receivers, cookie)
		}
	}
}

// unshareSocket is for a Conn that is closed.
func (r *receiver) unshareSocket() {
	sockets.Lock()
	defer sockets.Unlock()
	first := sockets.receivers[r.cookie].Value()
	if first == nil {
		return
	}
	if first == r {
		if r.next.Value() == nil {
			delete(sockets.receivers, r.cookie)
		} else {
			sockets.receivers[r.cookie] = r.next
		}
		return
	}
	for other := first; other != nil; other = other.next.Value() {
		if other.next.Value() == r {
			other.next = r.next
			return
		}
	}
}
