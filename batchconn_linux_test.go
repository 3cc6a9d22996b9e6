// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"

	"golang.org/x/sys/unix"
)

func init() {
	growBuffer = func(c *net.UDPConn) {
		if setOption(c, unix.SO_RCVBUFFORCE, 16<<20) != nil { // needs CAP_NET_ADMIN
			c.SetReadBuffer(16 << 20)
		}
	}
	bufferSize = func(c *net.UDPConn) int {
		raw, err := c.SyscallConn()
		if err != nil {
			return 0
		}
		size := 0
		raw.Control(func(fd uintptr) { size, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF) })
		return size
	}
}

// setOption sets an option of SOL_SOCKET.
func setOption(c *net.UDPConn, option, value int) (err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, value) })
	return err
}
