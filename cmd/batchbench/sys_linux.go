// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const cpuNote = "CPU-ns: user and system time of the process but for the receivers' threads; on\n" +
	"loopback the sender does the kernel's work up to the receiver's queue too."

const hasCPU = true

// A thread is the clock of a thread's CPU time, which others can read.
type thread int32

// thisThread returns the clock of the calling thread (clock_getcpuclockid(3)
// has it for processes; the low bits say whose time, and which).
func thisThread() thread {
	const perThread, scheduled = 4, 2
	return thread(^unix.Gettid()<<3 | perThread | scheduled)
}

func (t thread) cpu() time.Duration { return clock(int32(t)) }

func processCPU() time.Duration { return clock(unix.CLOCK_PROCESS_CPUTIME_ID) }

func clock(id int32) time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(id, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

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
