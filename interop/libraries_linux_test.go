// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"flag"
	"testing"

	"github.com/batchconn/batchconn/internal/netns"
)

func init() {
	libraries = append(libraries, library{"quic-go, control messages", nil, runQUICControl})
}

var flushTimeout = flag.Duration("flush", 0,
	"how long the wire holds what arrives to merge it with more, as a network card whose interrupts come late")

// TestWire runs the libraries on a wire: what is segmented is cut where it
// leaves, and merged again where it arrives.
func TestWire(t *testing.T) {
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) {
		w, err := ns.Wire(netns.WireConfig{FlushTimeout: *flushTimeout})
		netns.Check(t, err)
		t.Cleanup(func() { w.Close() })
		runLibraries(t, network{[2]netEnd{{w.Near.IPv4, w.Near.Do}, {w.Far.IPv4, w.Far.Do}}})
	})
}
