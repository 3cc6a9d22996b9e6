// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/batchconn/batchconn/internal/netns"
	"github.com/batchconn/batchconn/internal/sys"
)

type conformanceTest struct {
	name string
	f    func(t *testing.T)
}

// conformance are the tests of what is sent and received, whatever is in
// between. It leaves out those that need segments longer than 1500 bytes, or
// the order of datagrams of several senders, which merging does not keep.
var conformance = []conformanceTest{
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
	{"Model", TestModel},
	{"WritesAsNet", TestWritesAsNet},
	{"ReadsAsNet", TestReadsAsNet},
	{"RestAsNet", TestRestAsNet},
	{"ReadBatch", TestReadBatch},
	{"ReadBatchCuts", TestReadBatchCuts},
	{"ReceiveManyVectors", TestReceiveManyVectors},
	{"ReceiveManyMessages", TestReceiveManyMessages},
}

// TestConformanceOnWire runs them with the Conns at one end of a wire of MTU
// 1500, where segments are cut at the device, and their peers at the other,
// where what arrives at once is merged.
func TestConformanceOnWire(t *testing.T) {
	if testing.Short() {
		t.Skip("each of them has run without a wire")
	}
	if major, minor, _ := sys.ParseRelease(sys.KernelRelease()); major < 6 || major == 6 && minor < 4 {
		t.Skip("a kernel before 6.4 may leave arrivals to ksoftirqd, and then the wire's ring of 256 packets drops some")
	}
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) { // in a process of its own, whose sites are the test's
		netns.Check(t, netns.OneProcessor()) // two would not keep the order
		w, err := ns.Wire(netns.WireConfig{})
		netns.Check(t, err)
		defer w.Close()
		near, far = end(w.Near), end(w.Far)
		for _, c := range conformance {
			t.Run(c.name, c.f)
		}
		for _, e := range []*netns.End{w.Near, w.Far} {
			e.Do(func() error {
				devices, err := os.ReadFile("/proc/thread-self/net/dev")
				if t.Failed() {
					t.Logf("what the wire has dropped:\n%s%v", devices, err)
				}
				return nil
			})
		}
	})
}

// TestFullWire sends through a wire that is slower than the senders, one by
// one, segmented and not: they wait for room, and all arrives, in order.
func TestFullWire(t *testing.T) {
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) {
		netns.Check(t, netns.OneProcessor()) // two would not keep the order
		w, err := ns.Wire(netns.WireConfig{Bucket: netns.Bucket{Rate: 2 << 20, Burst: 64 << 10, Limit: 4 << 20}})
		netns.Check(t, err)
		defer w.Close()
		for _, network := range []string{"udp4", "udp6"} {
			for name, mode := range map[string]GSOMode{"segmented": GSOAuto, "plain": GSOOff} {
				t.Run(network+" "+name, func(t *testing.T) {
					if !w.Far.Addr(network).IsValid() {
						t.Skip("the system has no IPv6")
					}
					testFullWire(t, w, network, mode)
				})
			}
		}
	})
}

func testFullWire(t *testing.T, w *netns.Wire, network string, mode GSOMode) {
	const n, size = 1000, 1200
	in, err := w.Far.Listen(network)
	netns.Check(t, err)
	defer in.Close()
	growBuffer(in)
	u, err := w.Near.Listen(network)
	netns.Check(t, err)
	u.SetWriteBuffer(64 << 10)
	out := newConn(t, u, &Config{GSO: mode})
	var msgs []OutputMessage
	var want [][]byte
	for i := range n {
		want = append(want, contents(i, size))
		msgs = append(msgs, OutputMessage{Addr: addrPortOf(in), Vectors: [][]byte{want[i]}})
	}
	sent := make(chan error, 1)
	go func() { sent <- sendAll(out, t.Context(), msgs) }()
	got := &inbox{in, addrPortOf(in)}
	for buf := make([]byte, 1<<16); len(want) > 0; want = want[1:] {
		if p := got.read(t, buf); !bytes.Equal(p, want[0]) {
			t.Fatalf("datagram %d is %s, want %s", n-len(want), brief(p), brief(want[0]))
		}
	}
	if err := receive(t, "the sender", sent); err != nil {
		t.Error(err)
	}
	got.expect(t, nil)
	if s := out.Stats(); s.Messages != n || s.Parked == 0 || s.Failed != 0 || s.Fallbacks != 0 || (s.Segmented != 0) != s.GSO {
		t.Errorf("%+v", s)
	}
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
