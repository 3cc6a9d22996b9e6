// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"syscall"
	"time"
)

const cpuNote = "CPU-ns: user and system time of the sending threads, which on loopback do the\n" +
	"kernel's work up to the receiver's queue too."

const hasCPU = true

// threadCPU is the CPU time of this thread (getrusage(2), RUSAGE_THREAD).
func threadCPU() time.Duration {
	var ru syscall.Rusage
	if syscall.Getrusage(syscall.RUSAGE_THREAD, &ru) != nil {
		return 0
	}
	return time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
}

func processCPU() time.Duration { return 0 }

// pause sleeps. Below a millisecond, the runtime's own sleep is a whole one
// where nothing else runs (epoll_wait(2) counts in those).
func pause(d time.Duration) {
	if d >= time.Millisecond {
		time.Sleep(d)
		return
	}
	ts := syscall.NsecToTimespec(int64(d))
	syscall.Nanosleep(&ts, nil)
}
