// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !unix

package main

import "time"

const cpuNote = ""

const hasCPU = false

// A thread has no clock here that others can read.
type thread struct{}

func thisThread() thread          { return thread{} }
func (thread) cpu() time.Duration { return 0 }

func processCPU() time.Duration { return 0 }

func pause(d time.Duration) { time.Sleep(d) }
