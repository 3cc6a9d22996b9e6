// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import "testing"

func TestParseRelease(t *testing.T) {
	for release, want := range map[string][3]int{
		"6.18.44":                {6, 18, 44},
		"5.15.0-91-generic":      {5, 15, 0},
		"4.19.0+":                {4, 19, 0},
		"6.9-rc1":                {6, 9, 0},
		"5.10.16.3-microsoft":    {5, 10, 16},
		"4.4.302-st12~gdeadbeef": {4, 4, 302},
		"6":                      {6, 0, 0},
		"6.":                     {6, 0, 0},
		"nonsense":               {},
		"":                       {},
	} {
		major, minor, patch := ParseRelease(release)
		if got := [3]int{major, minor, patch}; got != want {
			t.Errorf("%q: %v, want %v", release, got, want)
		}
	}
	if n := testing.AllocsPerRun(100, func() { ParseRelease(KernelRelease()) }); n != 0 {
		t.Errorf("%v allocations: each New asks", n)
	}
}
