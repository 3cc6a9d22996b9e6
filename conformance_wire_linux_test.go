// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"net/netip"
	"testing"

	"github.com/batchconn/batchconn/internal/netns"
)

// conformance are the tests of what is sent and received, whatever is in
// between.
var conformance = []struct {
	name string
	f    func(t *testing.T)
}{
	{"SendAll", TestSendAll},
	{"SameSliceAgain", TestSameSliceAgain},
	{"OneMessage", TestOneMessage},
	{"BadMessage", TestBadMessage},
	{"SendEachAllBad", TestSendEachAllBad},
	{"Closed", TestClosed},
	{"DeadlinePassed", TestDeadlinePassed},
	{"ContextDone", TestContextDone},
	{"Concurrent", TestConcurrent},
	{"BuffersAreTheCallersAgain", TestBuffersAreTheCallersAgain},
	{"Vectors", TestVectors},
	{"Longest", TestLongest},
	{"ManyFlattened", TestManyFlattened},
	{"WriteBatchSizes", TestWriteBatchSizes},
	{"AppendSegmentsSent", TestAppendSegmentsSent},
	{"SegmentationChangesNothing", TestSegmentationChangesNothing},
	{"Edges", TestEdges},
	{"Model", TestModel},
	{"WritesAsNet", TestWritesAsNet},
	{"ReadsAsNet", TestReadsAsNet},
	{"RestAsNet", TestRestAsNet},
	{"ReadBatch", TestReadBatch},
	{"ReadBatchCuts", TestReadBatchCuts},
	{"ReceiveManyVectors", TestReceiveManyVectors},
	{"ReceiveManyMessages", TestReceiveManyMessages},
	{"ReceiveModel", TestReceiveModel},
}

// TestConformanceOnWire runs them with the Conns at one end of a wire of MTU
// 1500, where segments are cut at the device, and their peers at the other,
// where what arrives at once is merged.
func TestConformanceOnWire(t *testing.T) {
	testOnWire(t, netns.WireConfig{})
}

// TestConformanceOnSlowWire is TestConformanceOnWire where what is sent waits
// for the wire.
func TestConformanceOnSlowWire(t *testing.T) {
	testOnWire(t, netns.WireConfig{Bucket: netns.Bucket{Rate: 60 << 20, Burst: 128 << 10, Limit: 16 << 20}})
}

func testOnWire(t *testing.T, cfg netns.WireConfig) {
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) { // in a process of its own, whose sites are the test's
		netns.Check(t, netns.OneProcessor()) // two would not keep the order
		w, err := ns.Wire(cfg)
		netns.Check(t, err)
		defer w.Close()
		near, far = end(w.Near), end(w.Far)
		for _, c := range conformance {
			t.Run(c.name, c.f)
		}
	})
}

// end is an end of a wire in place of loopback.
func end(e *netns.End) site {
	return site{
		addr: func(host string) netip.Addr {
			switch addr := netip.MustParseAddr(host); {
			case !addr.IsLoopback():
				return addr
			case addr.Is4():
				return e.IPv4
			}
			return e.IPv6
		},
		open: func(network string, addr *net.UDPAddr) (*net.UDPConn, error) {
			if addr.IP == nil { // the end has no IPv6
				return nil, &net.AddrError{Err: "no address", Addr: network}
			}
			return e.ListenUDP(network, addr.AddrPort())
		},
	}
}
