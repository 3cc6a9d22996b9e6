// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !unix || aix || batchconn_portable

package sys

import (
	"errors"
	"os"
	"syscall"
)

// ParksWriters says that RawConn.Write waits for room.
const ParksWriters = false

// Dup returns a duplicate of a socket that the runtime's network poller knows;
// there is none on this system.
func Dup(syscall.RawConn) (*os.File, error) { return nil, errors.ErrUnsupported }
