// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix && !aix && !batchconn_portable

package sys

import (
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ParksWriters says that RawConn.Write waits for room.
const ParksWriters = true

// Dup returns a duplicate of a socket that the runtime's network poller knows,
// with deadlines and locks of its own. It is not made with UDPConn.File, whose
// Fd makes the live socket blocking.
func Dup(raw syscall.RawConn) (*os.File, error) {
	var dup int
	var err error
	controlErr := raw.Control(func(fd uintptr) {
		dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if controlErr != nil {
		return nil, controlErr
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(dup), "batchconn"), nil
}
