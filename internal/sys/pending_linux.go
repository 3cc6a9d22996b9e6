// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import "syscall"

func init() {
	PendingErrors = append(PendingErrors, syscall.ENONET) // no other system has it
}
