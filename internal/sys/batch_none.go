// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux || android || batchconn_portable

package sys

// HaveBatchCall reports whether x/net's WriteBatch is sendmmsg(2).
const HaveBatchCall = false

// Flags of sendmsg(2); 0 where the system does not have them.
const (
	MsgZeroCopy = 0
	MsgMore     = 0
)

// IsBatchCallRefused reports whether the system refuses the batch call, which
// is not made here.
func IsBatchCallRefused() bool { return false }
