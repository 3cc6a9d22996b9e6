// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import "golang.org/x/sys/windows"

// MsgTrunc is the flag of a datagram that was longer than its buffers.
const MsgTrunc = windows.MSG_TRUNC
