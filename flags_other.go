// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !unix || aix

package batchconn

// MsgDontWait as a flag makes one send non-blocking. It is the system's
// MSG_DONTWAIT (send(2)), or a bit of ours where the system has none. Such a
// send returns ErrWouldBlock also while the next room is kept for a sender that
// has waited for too long.
const MsgDontWait = 1 << 30

const (
	dontWait     = 0           // sockets of package net do not wait by themselves
	privateFlags = MsgDontWait // what the kernel must not see
)
