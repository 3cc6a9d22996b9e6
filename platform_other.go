// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux || android || batchconn_portable

package batchconn

const (
	haveBatchCall = false
	msgZeroCopy   = 0
	msgMore       = 0
)
