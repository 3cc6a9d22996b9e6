// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import "syscall"

func init() {
	consumedErrors = append(consumedErrors, syscall.ENONET) // no other system has it
}
