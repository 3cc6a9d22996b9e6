// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package sys

import "golang.org/x/sys/unix"

// MsgTrunc is the flag of a datagram that was longer than its buffers.
const MsgTrunc = unix.MSG_TRUNC
