// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import "syscall"

// pollReadNormal is POLLRDNORM of winsock2.h.
const pollReadNormal = 0x0100

// Readable reports whether WSAPoll says POLLRDNORM, and does not wait. A
// pending error counts as readable there.
func Readable(fd uintptr) (in, failed bool) {
	ok, err := poll(fd, pollReadNormal)
	return ok || err != nil, false
}

// SocketError is 0: see Readable.
func SocketError(fd uintptr) syscall.Errno { return 0 }
