// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package batchconn

import "golang.org/x/sys/unix"

const (
	haveBatchCall = true // x/net's WriteBatch is sendmmsg(2)
	msgZeroCopy   = unix.MSG_ZEROCOPY
	msgMore       = unix.MSG_MORE
)
