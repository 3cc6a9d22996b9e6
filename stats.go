// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import "sync/atomic"

// Stats are the counters of a Conn since New. They count the sends of this
// package, a Writer's among them, and, under Config.NonBlocking, the Write
// family; net's own Write family passes by uncounted. They count all reads
// except those through SyscallConn and File.
type Stats struct {
	Messages   uint64 // datagrams sent
	Bytes      uint64 // payload bytes sent
	Calls      uint64 // calls to the kernel that send, whether they sent anything or not
	Segmented  uint64 // datagrams that left inside a segmented message
	Fallbacks  uint64 // segmented messages refused and sent again plainly
	Parked     uint64 // turns that sends waited for room
	WouldBlock uint64 // sends that ended with ErrWouldBlock
	Failed     uint64 // times that a message could not be sent
	GSO        bool   // segmentation is on, whether anything was segmented or not
	GSOReason  string // why it is not; empty if it is

	Received      uint64 // datagrams received
	ReceivedBytes uint64 // payload bytes received; of a datagram that was cut, at least what there was room for
	ReceiveCalls  uint64 // calls to the kernel that receive, whether they received anything or not; those of net's own reads only if they did
	Coalesced     uint64 // datagrams that came inside a coalesced message
	Dropped       uint64 // what the kernel dropped because the receive buffer was full, since the socket was made; a run is one. Linux only
	GRO           bool   // coalescing is on, or will be while the queue is deep
	GROReason     string // why it is not; empty if it is
}

// sendCounters are the sender's.
type sendCounters struct {
	messages, bytes, calls, segmented, fallbacks, wouldBlock, failed atomic.Uint64
}

// sent counts what a kernel call has sent.
func (c *sendCounters) sent(t tally) {
	c.messages.Add(uint64(t.messages))
	c.bytes.Add(uint64(t.bytes))
	if t.segmented > 0 {
		c.segmented.Add(uint64(t.segmented))
	}
}

// Stats returns the counters. Each is exact; read together while senders run
// they may be of slightly different moments.
func (c *Conn) Stats() Stats {
	if !c.isFromNew() {
		const reason = "the Conn is not from New"
		return Stats{GSOReason: reason, GROReason: reason}
	}
	reason := c.send.gso.disabledReason()
	sent := &c.send.counters
	segmented := sent.segmented.Load() // before messages, which are counted first: never more than these
	st := Stats{
		Messages:   sent.messages.Load(),
		Bytes:      sent.bytes.Load(),
		Calls:      sent.calls.Load(),
		Segmented:  segmented,
		Fallbacks:  sent.fallbacks.Load(),
		Parked:     c.send.queue.turns.Load(),
		WouldBlock: sent.wouldBlock.Load(),
		Failed:     sent.failed.Load(),
		GSO:        reason == "",
		GSOReason:  reason,
	}
	c.recv.addStats(&st)
	return st
}
