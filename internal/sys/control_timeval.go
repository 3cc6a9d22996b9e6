// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build darwin || dragonfly || freebsd || netbsd || openbsd || solaris

package sys

import (
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

var timestampOption = controlOption{ControlTime, anyFamily, unix.SOL_SOCKET, unix.SO_TIMESTAMP, 0}

// The layout of struct timeval.
const (
	timevalSec    = int(unsafe.Sizeof(unix.Timeval{}.Sec))
	timevalUsec   = int(unsafe.Sizeof(unix.Timeval{}.Usec))
	timevalUsecAt = int(unsafe.Offsetof(unix.Timeval{}.Usec))
)

// takeTimestamp reads what SO_TIMESTAMP brings, a struct timeval.
func (c *Control) takeTimestamp(typ int, data []byte) bool {
	if typ != unix.SCM_TIMESTAMP {
		return true
	}
	if len(data) < timevalUsecAt+timevalUsec {
		return false
	}
	sec, usec := nativeInt(data[:timevalSec]), nativeInt(data[timevalUsecAt:][:timevalUsec])
	return c.takeTime(sec, usec, int64(time.Second/time.Microsecond))
}
