// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"

	"golang.org/x/sys/windows"
)

func init() {
	bufferSize = func(c *net.UDPConn) (size int) {
		raw, err := c.SyscallConn()
		if err != nil {
			return 0
		}
		raw.Control(func(fd uintptr) {
			size, _ = windows.GetsockoptInt(windows.Handle(fd), windows.SOL_SOCKET, windows.SO_RCVBUF)
		})
		return size
	}
}
