// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import "sync/atomic"

// Stats are the counters of a Conn since New. They count the sends of this
// package, a Writer's among them, and, under Config.NonBlocking, the Write family;
// net's own Write family passes by uncounted.
type Stats struct {
	Messages   uint64 // datagrams sent
	Bytes      uint64 // payload bytes sent
	Calls      uint64 // calls to the kernel that send, whether they sent anything or not
	Segmented  uint64 // datagrams that left inside a segmented message
	Fallbacks  uint64 // segmented messages refused and sent again plainly
	Parked     uint64 // turns that sends waited for room
	WouldBlock uint64 // calls that ended with ErrWouldBlock
	Failed     uint64 // times that a message could not be sent
	GSO        bool   // segmentation is on, whether anything was segmented or not
	GSOReason  string // why it is not; empty if it is
}

type counters struct {
	messages, bytes, calls, segmented, fallbacks, parked, wouldBlock, failed atomic.Uint64
}

// Stats returns the counters. Each is exact; read together while senders run
// they may be of slightly different moments.
func (c *Conn) Stats() Stats {
	reason := "the Conn is not from New"
	if c.raw != nil {
		reason = c.gso.reason()
	}
	return Stats{
		Messages:   c.stats.messages.Load(),
		Bytes:      c.stats.bytes.Load(),
		Calls:      c.stats.calls.Load(),
		Segmented:  c.stats.segmented.Load(),
		Fallbacks:  c.stats.fallbacks.Load(),
		Parked:     c.stats.parked.Load(),
		WouldBlock: c.stats.wouldBlock.Load(),
		Failed:     c.stats.failed.Load(),
		GSO:        reason == "",
		GSOReason:  reason,
	}
}
