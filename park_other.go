// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !unix || aix || batchconn_portable

package batchconn

import "syscall"

func newParker(raw syscall.RawConn) parker { return &pollParker{raw: raw} }
