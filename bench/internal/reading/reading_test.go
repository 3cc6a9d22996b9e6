// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package reading

import (
	"net/netip"
	"testing"

	"github.com/batchconn/batchconn/internal/harness"
)

// TestArrival: every datagram of each way of this package's own arrives,
// complete, once, in order, whatever the load.
func TestArrival(t *testing.T) {
	for _, l := range []Load{
		{1, 1, 1200, false}, {1, 1, 1200, true}, {1, 64, 64, true}, {1, 200, 300, false}, {1, 200, 300, true},
		{1, 64, 8900, true}, {1, 3, 1, true}, {16, 64, 1200, true}, {7, 50, 100, true},
	} {
		l, err := Fit(l, &Loopback)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range []Way{Net, XNet, WireGuard, Tailscale, ConnLoop, ConnReadFrom, ConnReadBatch, ConnMessages} {
			if lost, err := Check(w, l, &Loopback, 5); lost > 0 || err != nil {
				t.Errorf("%+v, %s: %d lost, %v", l, w.Name, lost, err)
			}
		}
	}
}

// TestLoserIsFound: a way that does not hand out all, or changes it, is out.
func TestLoserIsFound(t *testing.T) {
	for name, spoil := range map[string]func(m *harness.Mailbag, n int) int{
		"loses one":    func(m *harness.Mailbag, n int) int { return n - 1 },
		"damages one":  func(m *harness.Mailbag, n int) int { m.Buffers[1][7]++; return n },
		"one twice":    func(m *harness.Mailbag, n int) int { copy(m.Buffers[1], m.Buffers[0]); return n },
		"one's prefix": func(m *harness.Mailbag, n int) int { m.Lengths[1]--; return n },
		"out of order": func(m *harness.Mailbag, n int) int { m.Buffers[0], m.Buffers[1] = m.Buffers[1], m.Buffers[0]; return n },
	} {
		bad := Way{name, func(m *harness.Mailbag, at netip.Addr) (*Socket, error) {
			s, err := XNet.Open(m, at)
			if err != nil {
				return nil, err
			}
			read := s.Read
			s.Read = func(i int) (int, error) {
				n, err := read(i)
				if n > 1 {
					n = spoil(m, n)
				}
				return n, err
			}
			return s, nil
		}}
		if lost, err := Check(bad, Load{1, 8, 100, false}, &Loopback, 1); lost == 0 && err == nil {
			t.Errorf("one that %s is not found", name)
		} else {
			t.Logf("%s: %d lost, %v", name, lost, err)
		}
	}
}

// TestOverrun: a buffer that is too small drops some, and a large one nothing.
func TestOverrun(t *testing.T) {
	for _, w := range []Way{Net, WireGuard, ConnMessages} {
		f, err := NewFeed(w, Load{1, 256, 1200, false}, &Loopback)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if sent, arrived, err := f.Overrun(feedBuffer, 3); err != nil || sent != 3*256 || arrived != sent {
			t.Errorf("%s: %d of %d arrived, %v", w.Name, arrived, sent, err)
		}
		if sent, arrived, err := f.Overrun(1<<16, 3); err != nil || arrived == 0 || arrived == sent {
			t.Errorf("%s: %d of %d arrived in a small buffer, %v", w.Name, arrived, sent, err)
		}
	}
}
