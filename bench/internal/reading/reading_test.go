// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package reading

import (
	"errors"
	"fmt"
	"testing"

	"github.com/batchconn/batchconn/internal/harness"
)

// TestArrival: every datagram of each way arrives, complete, once, in order.
func TestArrival(t *testing.T) {
	all, missing := All()
	for _, m := range missing {
		t.Log("left out: ", m)
	}
	if len(all) < 9 {
		t.Errorf("%d ways", len(all))
	}
	for _, l := range []Load{
		{1, 1, 1200, false}, {1, 1, 1200, true}, {1, 64, 1200, false}, {1, 64, 1200, true}, {1, 64, 64, true},
		{1, 200, 300, false}, {1, 200, 300, true}, {1, 64, 8900, false}, {1, 64, 8900, true}, {1, 3, 1, true},
		{16, 64, 1200, true}, {64, 64, 1200, true}, {16, 64, 1200, false}, {7, 50, 100, true},
	} {
		l, err := Fit(l)
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range all {
			t.Run(fmt.Sprintf("%+v/%s", l, w.Name), func(t *testing.T) {
				f, err := NewFeed(w, l)
				if errors.Is(err, ErrSize) {
					t.Skip(err)
				}
				if err != nil {
					t.Fatal(err)
				}
				defer f.Close()
				if lost, err := f.Check(5); lost > 0 || err != nil {
					t.Errorf("%d lost, %v", lost, err)
				}
			})
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
		bad := Way{name, func(m *harness.Mailbag) (*Socket, error) {
			s, err := XNet.Open(m)
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
		f, err := NewFeed(bad, Load{1, 8, 100, false})
		if err != nil {
			t.Fatal(err)
		}
		if lost, err := f.Check(1); lost == 0 && err == nil {
			t.Errorf("who %s is not found", name)
		} else {
			t.Logf("%s: %d lost, %v", name, lost, err)
		}
		f.Close()
	}
}
