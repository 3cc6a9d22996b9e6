// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// KernelRelease is the release of the running kernel, as uname(2) says it.
func KernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// ParseRelease reads the numbers of a release; those that are not there are 0.
func ParseRelease(release string) (major, minor, patch int) {
	fmt.Sscanf(release, "%d.%d.%d", &major, &minor, &patch)
	return major, minor, patch
}
