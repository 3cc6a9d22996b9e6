// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package harness

import (
	"syscall"
	"time"
)

// HaveProcessCPU reports whether ProcessCPU is known.
const HaveProcessCPU = true

// ProcessCPU is the user and system time of this process, all of its threads
// (getrusage(2), RUSAGE_SELF).
func ProcessCPU() time.Duration {
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}
