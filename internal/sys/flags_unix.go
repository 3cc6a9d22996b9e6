// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix && !aix

package sys

import "golang.org/x/sys/unix"

const (
	// MsgDontWait is the flag by which the user asks not to wait.
	MsgDontWait = unix.MSG_DONTWAIT

	// DontWait goes to the kernel with every call.
	DontWait = unix.MSG_DONTWAIT

	// PrivateFlags are those that the kernel must not see.
	PrivateFlags = 0
)
