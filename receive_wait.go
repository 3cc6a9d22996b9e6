// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"runtime"
	"syscall"
	"time"
)

// Waiting for data.
//
// Reads that find nothing stand in the line of deadline.go. The read that has
// the place parks on the socket itself, in RawConn.Read, so that an arrival
// wakes one descriptor, and the user's deadline and Close end it as they do in
// net.

// A readQueue is where the reads of a Conn wait, and what ends their waiting.
type readQueue struct {
	place
	conn *net.UDPConn
}

func (q *readQueue) init(c *net.UDPConn, raw syscall.RawConn) {
	q.conn, q.ends.raw, q.on = c, raw, q
}

func (q *readQueue) endParkingAt(t time.Time) error { return q.conn.SetReadDeadline(t) }

// flush ends all reads that are on the socket, for them to come again, and
// returns when done says so.
func (q *readQueue) flush(done func() bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if done() {
		return
	}
	if q.state.Load() == kicked { // and stays so
		for !done() {
			runtime.Gosched()
		}
		return
	}
	q.kicks.Add(1)
	q.endParkingAt(aLongTimeAgo)
	for !done() {
		runtime.Gosched()
	}
	q.endParkingAt(q.until())
	q.kicks.Add(1)
}

func (q *readQueue) close() { q.ends.closed.Store(true) }
