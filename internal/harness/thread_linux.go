// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package harness

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// HaveThreadCPU reports whether a Thread's CPU is known.
const HaveThreadCPU = true

// A Thread is the clock of a thread's processor time, which others can read.
type Thread int32

// ThisThread returns the clock of the calling thread, which the caller has
// locked. clock_getcpuclockid(3) has the number for processes; its low bits say
// whose time, and which.
func ThisThread() Thread {
	const perThread, scheduled = 4, 2
	return Thread(^unix.Gettid()<<3 | perThread | scheduled)
}

// CPU is the time that the thread has run, or 0 if it has ended.
func (t Thread) CPU() time.Duration { return clock(int32(t)) }

// ThreadCPU is that of the calling thread.
func ThreadCPU() time.Duration { return clock(unix.CLOCK_THREAD_CPUTIME_ID) }

func clock(id int32) time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(id, &ts) != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}

// Pause sleeps. Below a millisecond, the runtime's own sleep is a whole one
// where nothing else runs (epoll_wait(2) counts in those).
func Pause(d time.Duration) {
	if d >= time.Millisecond {
		time.Sleep(d)
		return
	}
	ts := syscall.NsecToTimespec(int64(d))
	syscall.Nanosleep(&ts, nil)
}
