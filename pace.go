// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

// A pace is how many messages at a time a send takes that goes on past those
// that fail. What is converted behind a message that fails is converted in vain.
// So after a failure messages go one by one, and after a few that were sent as
// many at a time as have been sent since: then what is lost by a failure is
// never more than what was gained before it. The zero pace is all at a time.
type pace struct {
	failed bool
	sent   int // messages since the last failure
}

// carefulFor is how many messages go one by one after a failure. Where every other
// one fails, or every tenth, few batches are begun in vain.
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
