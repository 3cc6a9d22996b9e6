// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"testing"

	"github.com/batchconn/batchconn/internal/netns"
)

// Before the loopback of a test's own network a socket fills up, as it never
// does on the machine's.
var (
	shut    = netns.Bucket{Rate: 1, Burst: 2 << 10, Limit: 1 << 20}       // the burst, and then nothing for minutes
	trickle = netns.Bucket{Rate: 125_000, Burst: 2 << 10, Limit: 1 << 20} // 1 Mbit/s
	open    = netns.Bucket{Rate: 1 << 30, Burst: 4 << 20, Limit: 1 << 20}
)

// A loopback is the lo of the test's own network, all of which it is: up, with
// MTU 1500, with 127.0.0.1 and, where the system has IPv6, ::1.
type loopback struct {
	t  *testing.T
	ns *netns.Namespace
}

// inNamespace runs f with a network of its own, as netns.Run.
func inNamespace(t *testing.T, f func(t *testing.T, lo *loopback)) {
	t.Helper()
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) { f(t, &loopback{t, ns}) })
}

// setTap puts a token bucket before all that leaves from now on, and in place of
// an earlier one: what waits there stays and goes on at the new rate.
func (lo *loopback) setTap(b netns.Bucket) {
	lo.t.Helper()
	netns.Check(lo.t, lo.ns.Loopback().SetBucket(b))
}

// oneProcessor keeps what passes a tap in order.
func (lo *loopback) oneProcessor() {
	lo.t.Helper()
	netns.Check(lo.t, netns.OneProcessor())
}
