// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// KernelRelease is the release of the running kernel, as uname(2) says it. It
// is asked for once: each New wants it.
var KernelRelease = sync.OnceValue(func() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
})

// ParseRelease reads the numbers of a release; those that are not there are 0.
func ParseRelease(release string) (major, minor, patch int) {
	var numbers [3]int
	for i := range numbers {
		digits := len(release) - len(strings.TrimLeft(release, "0123456789"))
		numbers[i], _ = strconv.Atoi(release[:digits])
		if digits == 0 || digits == len(release) || release[digits] != '.' {
			break
		}
		release = release[digits+1:]
	}
	return numbers[0], numbers[1], numbers[2]
}
