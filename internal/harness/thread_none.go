// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux

package harness

import "time"

// HaveThreadCPU reports whether a Thread's CPU is known.
const HaveThreadCPU = false

// A Thread has no clock here that others can read.
type Thread struct{}

// ThisThread returns the calling thread.
func ThisThread() Thread { return Thread{} }

// CPU is not known here.
func (Thread) CPU() time.Duration { return 0 }

// ThreadCPU is not known here.
func ThreadCPU() time.Duration { return 0 }

// Pause sleeps.
func Pause(d time.Duration) { time.Sleep(d) }
