// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build aix || freebsd || solaris

package sys

// setDontFragmentMapped is for the IPv4 destinations of a dual-stack socket.
// Not all of these systems take an option of IPv4 there: then they say so.
func setDontFragmentMapped(fd uintptr) error { return setDontFragment4(fd) }
