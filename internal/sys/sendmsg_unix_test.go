// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package sys

import "testing"

// TestAltered: what x/sys would change is known for each system that it is
// built for, since this test runs on few of them.
func TestAltered(t *testing.T) {
	control, text := []byte{1}, [][]byte{nil, {1}}
	empty := [][]byte{{}, nil}
	tests := []struct {
		systems       []string
		text, nothing bool // altered with control messages
	}{
		{[]string{"linux", "android"}, false, false},
		{[]string{"darwin", "ios", "freebsd", "netbsd", "openbsd", "dragonfly", "aix"}, false, true},
		{[]string{"solaris", "illumos"}, true, true},
	}
	for _, test := range tests {
		for _, goos := range test.systems {
			if got := altered(goos, text, control); got != test.text {
				t.Errorf("%s, a datagram with control messages: %t", goos, got)
			}
			if got := altered(goos, empty, control); got != test.nothing {
				t.Errorf("%s, an empty one with control messages: %t", goos, got)
			}
			if altered(goos, text, nil) || altered(goos, empty, nil) {
				t.Errorf("%s: altered without control messages", goos)
			}
		}
	}
}
