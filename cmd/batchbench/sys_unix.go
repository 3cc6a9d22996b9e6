// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix && !linux

package main

import (
	"syscall"
	"time"
)

const cpuNote = "CPU-ns: user and system time of the whole process, receivers included."

const hasCPU = true

// A thread has no clock here that others can read.
type thread struct{}

func thisThread() thread          { return thread{} }
func (thread) cpu() time.Duration { return 0 }

// processCPU is the CPU time of the process (getrusage(2), RUSAGE_SELF).
func processCPU() time.Duration {
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_SELF, &ru) != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func pause(d time.Duration) { time.Sleep(d) }
