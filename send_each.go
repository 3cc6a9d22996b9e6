// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"slices"
)

// sendEach is send that goes on past messages that cannot be sent.
func (s *sender) sendEach(ctx context.Context, msgs []OutputMessage, flags int) (int, []MessageError, error) {
	n := 0
	var pace pace
	var try secondTry
	var failed failedMessages
	for {
		sent, o := s.send(ctx, msgs[n:][:pace.next(len(msgs)-n)], flags)
		n += sent
		again, pending := try.judge(s, sent, o)
		if pending.err != nil {
			s.addPending(o)
			return n, failed.list, s.report(pending)
		}
		if again {
			continue
		}
		pace.note(sent, o)
		if o.err != nil {
			if !o.ofMessage {
				return n, failed.list, s.report(o)
			}
			s.count(o)
			failed.add(s, n, len(msgs)-n, o)
			n++
		}
		if n == len(msgs) {
			return n, failed.list, nil
		}
	}
}

// A pace is how many messages at a time a send takes that goes on past those
// that fail. What is converted behind a message that fails is converted in
// vain. So after a failure messages go one by one, and after a few that were
// sent as many at a time as have been sent since: then what is lost by a
// failure is never more than what was gained before it. The zero pace is all at
// a time.
type pace struct {
	failed bool
	sent   int // messages since the last failure
}

// carefulFor is how many messages go one by one after a failure. Where every
// other one fails, or every tenth, few batches are begun in vain.
const carefulFor = 16

// next is how many of n messages to send now.
func (p *pace) next(n int) int {
	switch {
	case !p.failed:
		return n
	case p.sent < carefulFor:
		return min(n, 1)
	}
	return min(n, p.sent)
}

// note takes account of what became of them.
func (p *pace) note(sent int, o outcome) {
	p.sent += sent
	if o.ofMessage {
		*p = pace{failed: true}
	}
}

// failedMessages are the messages of one SendEach that failed.
type failedMessages struct {
	list   []MessageError
	errors opErrors
}

// grownAtOnce is for how many messages there is place at once where the first
// few have all failed: it is likely that all will.
const grownAtOnce = 1024

// add adds the message at an index, the first of so many that are left.
func (f *failedMessages) add(s *sender, index, left int, o outcome) {
	if n := len(f.list); n == cap(f.list) { // append's own way, by a quarter, copies them five times
		more := 1 + 2*n
		if n > 1 && n == index {
			more = max(more, grownAtOnce)
		}
		f.list = slices.Grow(f.list, min(more, left))
	}
	f.list = append(f.list, MessageError{Index: index, Addr: o.to, Err: f.errors.of(s, o)})
}

// opErrors are those of several messages. Where one destination fails again and
// again its messages share an error; those of others are made a few at a time.
type opErrors struct {
	last  outcome
	err   error // of last
	spare []opError
	made  int // as many more are made as were needed so far
}

// maxSpare bounds what stays in memory if the user keeps one error of many:
// so many are five kilobytes.
const maxSpare = 32

func (e *opErrors) of(s *sender, o outcome) error {
	if e.err != nil && o == e.last {
		return e.err
	}
	if len(e.spare) == 0 {
		e.spare = make([]opError, min(1+e.made, maxSpare))
		e.made += len(e.spare)
	}
	next := &e.spare[0]
	e.spare, e.last = e.spare[1:], o
	e.err = next.set(s, o.err, o.to)
	return e.err
}
