// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !unix || aix

package sys

const (
	// MsgDontWait is the flag by which the user asks not to wait: a bit of ours.
	MsgDontWait = 1 << 30

	// DontWait goes to the kernel with every call. Sockets of package net do not
	// wait by themselves.
	DontWait = 0

	// PrivateFlags are those that the kernel must not see.
	PrivateFlags = MsgDontWait
)
