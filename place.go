// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// A place is where one caller is parked: on a descriptor, in RawConn.Read or
// RawConn.Write. That is the socket itself, so that an arrival, or room, wakes
// one descriptor, or a duplicate where it cannot be, see roomPlace.
//
// So what the caller waits for wakes it, and the deadline of the descriptor and
// its Close end the parking as in net. Whatever else is to wake the caller
// kicks it: a mark, and a deadline in the past on the descriptor. Only the
// kicked caller takes that deadline back, and until it has, what the user sets
// is only recorded. The interleavings that matter:
//
//   - The caller marks itself parked, looks for what it waits for and at what
//     may end the call, and parks. What comes after the mark kicks. It ends the
//     parking also if the caller is not there yet, since RawConn looks at the
//     deadline first; what came before is found by the look.
//   - A kick that meets no mark does nothing, and the caller that it was for
//     has what it waited for, or has ended.
//   - A kick that comes too late, from the context of a caller that has left,
//     meets the next one. That takes the deadline back, looks in vain and parks
//     again: it goes by its own context and the user's deadline, and never by
//     what the descriptor says.
//   - A kick and what the caller waits for come together. Both wake it, and
//     what it has done stands.
//   - The user moves the deadline while a kick stands. The kicked caller puts
//     the one that is recorded then on the descriptor. That is done under mu,
//     as are kicks: neither can undo the other.
//   - A deadline is set on the *net.UDPConn itself, past the Conn. It ends a
//     call of net's own, and ours put the user's in its place.
type place struct {
	ends  ends
	line  line
	on    descriptor
	state atomic.Int32 // of the caller that has the place
	mu    sync.Mutex   // for kicks, and for deadlines that reach the descriptor

	// How often a deadline of ours, that of a kick or a flush, was put on the
	// descriptor or taken back: while one is there, it is odd.
	kicks atomic.Uint32
}

const (
	unparked = iota
	parked
	kicked
)

// A descriptor is what a caller is parked on.
type descriptor interface {
	endParkingAt(t time.Time) error // mu is held
}

// A parkedCall is what a caller wants. wait parks it until that is done, and
// returns nil, or what ended the parking.
type parkedCall interface{ wait() error }

// park has c wait, with the place, until that ends by anything but the deadline
// of a kick.
func (p *place) park(ctx context.Context, c parkedCall) error {
	for {
		err := p.parkOnce(ctx, c)
		p.unpark()
		if err == nil {
			return nil
		}
		if ended := p.ends.checkWaited(ctx); ended != nil {
			return ended
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return cause(err)
		}
		p.restore()
	}
}

// restore returns when a deadline that is not the user's is taken back: that of
// a flush, which holds mu, or of a kick. One that was set past the Conn it
// takes back itself, or who met it would meet it for ever.
func (p *place) restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Load() != kicked && !p.ends.closed.Load() {
		p.on.endParkingAt(p.until())
	}
}

func (p *place) parkOnce(ctx context.Context, c parkedCall) error {
	p.state.Store(parked) // before the look: what comes after it is told by a kick
	if ctx == nil || ctx.Done() == nil {
		return c.wait()
	}
	stop := context.AfterFunc(reasoned{ctx}, p.kick)
	defer stop() // a kick too late wakes another in vain, and does nothing else
	return c.wait()
}

// unpark ends parking, and takes back a kick.
func (p *place) unpark() {
	if p.state.CompareAndSwap(parked, unparked) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.state.Store(unparked)
	p.on.endParkingAt(p.until()) // fails only on a closed socket
	p.kicks.Add(1)
}

// until is the user's deadline.
func (p *place) until() time.Time {
	at := p.ends.deadline.Load()
	if at == 0 {
		return time.Time{}
	}
	return epoch.Add(time.Duration(at))
}

// kick has the caller that is parked look again, or look why it should not. If
// none is, it does nothing: the next looks before it parks.
func (p *place) kick() {
	if p.state.Load() != parked {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.kickLocked()
}

func (p *place) kickLocked() {
	if p.state.CompareAndSwap(parked, kicked) {
		p.kicks.Add(1)
		p.on.endParkingAt(aLongTimeAgo)
	}
}

var aLongTimeAgo = time.Unix(1, 0)

// setDeadline sets the user's deadline: in our record, and on the descriptor by
// set, unless a kicked caller is going to do so.
func (p *place) setDeadline(t time.Time, set func(time.Time) error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.state.Load() == kicked {
		if p.ends.closed.Load() {
			return set(t) // for its error
		}
	} else if err := set(t); err != nil {
		return err
	}
	p.ends.deadline.Store(deadlineSinceEpoch(t))
	return nil
}

// isKick reports whether err, of a call of net's own on the same descriptor, is
// the work of a kick, or of a flush. That call tries again. before is what
// kicks was when the call began.
func (p *place) isKick(err error, before uint32) bool {
	if !p.isNotUsers(err) || before%2 == 0 && p.kicks.Load() == before {
		return false
	}
	runtime.Gosched() // to let the kicked caller go first
	return true
}

// isNotUsers reports whether err is a deadline, but not the user's.
func (p *place) isNotUsers(err error) bool {
	return err != nil && errors.Is(err, os.ErrDeadlineExceeded) && !p.ends.expired()
}
