// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package netns

import (
	"errors"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// eachNetwork runs a test on a wire over both families.
func eachNetwork(t *testing.T, cfg WireConfig, f func(t *testing.T, w *Wire, network string)) {
	t.Helper()
	Run(t, func(t *testing.T, ns *Namespace) {
		w := newWire(t, ns, cfg)
		for _, network := range []string{"udp4", "udp6"} {
			t.Run(network, func(t *testing.T) {
				if !w.Near.Addr(network).IsValid() {
					t.Skip("the system has no IPv6")
				}
				f(t, w, network)
			})
		}
	})
}

func newWire(t *testing.T, ns *Namespace, cfg WireConfig) *Wire {
	t.Helper()
	w, err := ns.Wire(cfg)
	Check(t, err)
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Errorf("close the wire: %v", err)
		}
	})
	return w
}

// writeSegmented writes datagrams of one size by one call of the kernel.
func writeSegmented(t *testing.T, c *net.UDPConn, n, size int) {
	t.Helper()
	setOption(t, c, unix.SOL_UDP, unix.UDP_SEGMENT, size)
	p := make([]byte, n*size)
	for i := range n {
		fill(p[i*size:][:size], i)
	}
	if _, err := c.Write(p); err != nil {
		t.Fatal(err)
	}
}

// bothWays are a receiver's and a sender's ends.
func (w *Wire) bothWays() map[string][2]*End {
	return map[string][2]*End{"near to far": {w.Far, w.Near}, "far to near": {w.Near, w.Far}}
}

// TestWireSegmented: a segmented message is merged again where it arrives.
func TestWireSegmented(t *testing.T) {
	eachNetwork(t, WireConfig{}, func(t *testing.T, w *Wire, network string) {
		for name, ends := range w.bothWays() {
			rx, tx := wiredPair(t, ends[0], ends[1], network)
			writeSegmented(t, tx, 40, 1200)
			reads := readAll(t, rx, 40, patience)
			if n := count(t, reads, 1200); n != 40 || len(reads) > 20 {
				t.Errorf("%s: %d datagrams of 40 came in %d reads", name, n, len(reads))
			}
		}
	})
}

// TestWireCuts: the sender's device cuts a segmented message, as is seen where
// nothing merges what arrives.
func TestWireCuts(t *testing.T) {
	eachNetwork(t, WireConfig{GROOff: true}, func(t *testing.T, w *Wire, network string) {
		for name, ends := range w.bothWays() {
			rx, tx := wiredPair(t, ends[0], ends[1], network)
			writeSegmented(t, tx, 40, 1200)
			reads := readAll(t, rx, 40, patience)
			if n := count(t, reads, 1200); n != 40 || len(reads) != 40 {
				t.Errorf("%s: %d datagrams of 40 came in %d reads", name, n, len(reads))
			}
		}
	})
}

// TestWirePlain: datagrams that are sent one by one arrive so.
func TestWirePlain(t *testing.T) {
	eachNetwork(t, WireConfig{}, func(t *testing.T, w *Wire, network string) {
		if reads := plainReads(t, w, network); reads < 100 { // another processor may have taken two at once
			t.Errorf("%d datagrams came in %d reads", plain, reads)
		}
	})
}

// TestWireFlushTimeout: with a flush timeout they are merged.
func TestWireFlushTimeout(t *testing.T) {
	eachNetwork(t, WireConfig{FlushTimeout: 5 * time.Millisecond}, func(t *testing.T, w *Wire, network string) {
		if reads := plainReads(t, w, network); reads > 20 {
			t.Errorf("%d datagrams came in %d reads", plain, reads)
		}
	})
}

// plain is how many datagrams plainReads sends.
const plain = 120

// plainReads is how many reads it takes to receive them.
func plainReads(t *testing.T, w *Wire, network string) int {
	t.Helper()
	rx, tx := wiredPair(t, w.Far, w.Near, network)
	writeMany(t, tx, plain, 1000)
	reads := readAll(t, rx, plain, patience)
	if n := count(t, reads, 1000); n != plain {
		t.Fatalf("%d datagrams of %d arrived", n, plain)
	}
	t.Logf("%d datagrams came in %d reads", plain, len(reads))
	return len(reads)
}

// TestWireBucket: what is more than the burst comes at the rate, and no faster.
func TestWireBucket(t *testing.T) {
	bucket := Bucket{Rate: 200_000, Burst: 4 << 10, Limit: 1 << 20}
	eachNetwork(t, WireConfig{Bucket: bucket}, func(t *testing.T, w *Wire, network string) {
		for name, ends := range w.bothWays() {
			rx, tx := wiredPair(t, ends[0], ends[1], network)
			start := time.Now()
			writeMany(t, tx, 40, 1000)
			reads := readAll(t, rx, 40, patience)
			took := time.Since(start)
			if n := count(t, reads, 1000); n != 40 {
				t.Errorf("%s: %d datagrams of 40 arrived", name, n)
			}
			if minTime := time.Duration(40*1000-bucket.Burst) * time.Second / time.Duration(bucket.Rate); took < minTime {
				t.Errorf("%s: 40 datagrams took %v, which is less than %v", name, took, minTime)
			}
		}
	})
}

// TestWireMTU: that of the wire, and that of the routes over it.
func TestWireMTU(t *testing.T) {
	Run(t, func(t *testing.T, ns *Namespace) {
		for _, test := range []struct {
			cfg WireConfig
			mtu int
		}{{WireConfig{}, 1500}, {WireConfig{MTU: 9000}, 9000}, {WireConfig{RouteMTU: 1300}, 1300}} {
			w := newWire(t, ns, test.cfg)
			for network, headers := range map[string]int{"udp4": 28, "udp6": 48} {
				for name, ends := range w.bothWays() {
					if !ends[0].Addr(network).IsValid() {
						continue
					}
					rx, tx := wiredPair(t, ends[0], ends[1], network)
					if network == "udp4" {
						setOption(t, tx, unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
					} else {
						setOption(t, tx, unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
					}
					writeMany(t, tx, 1, test.mtu-headers)
					if reads := readAll(t, rx, 1, patience); count(t, reads, test.mtu-headers) != 1 {
						t.Errorf("%+v, %s, %s: %+v", test.cfg, network, name, reads)
					}
					if _, err := tx.Write(make([]byte, test.mtu-headers+1)); !errors.Is(err, unix.EMSGSIZE) {
						t.Errorf("%+v, %s, %s: a byte too much: %v", test.cfg, network, name, err)
					}
				}
			}
		}
	})
}

// TestWireEnds: the ends are networks apart, and closing takes the wire away.
func TestWireEnds(t *testing.T) {
	Run(t, func(t *testing.T, ns *Namespace) {
		w, err := ns.Wire(WireConfig{})
		Check(t, err)
		for _, e := range []*End{w.Near, w.Far} {
			err := e.Do(func() error {
				ifi, err := net.InterfaceByIndex(e.Link.Index())
				if err == nil && (ifi.Name != e.Link.Name() || ifi.Flags&net.FlagRunning == 0) {
					t.Errorf("%+v; want %s, up and running", ifi, e.Link.Name())
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		}
		if _, err := ns.ListenUDP("udp4", netip.AddrPortFrom(w.Far.IPv4, 0)); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Errorf("the far end's address is here too: %v", err)
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
		if _, err := ns.Link(w.Near.Link.Name()); !errors.Is(err, unix.ENODEV) {
			t.Errorf("after Close: %v", err)
		}
	})
}
