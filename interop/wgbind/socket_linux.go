// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package wgbind

import (
	"encoding/binary"
	"errors"
	"net"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// SetMark sets SO_MARK, socket(7).
func (b *Bind) SetMark(mark uint32) error {
	c := b.open.Load()
	if c == nil {
		return nil
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var errno error
	err = raw.Control(func(fd uintptr) { errno = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(mark)) })
	return errors.Join(err, errno)
}

// joinReceived has the kernel join datagrams of one size from one address,
// udp(7), UDP_GRO. Kernels before 5.0 have no such option.
func joinReceived(c *net.UDPConn) {
	if raw, err := c.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_GRO, 1) })
	}
}

// joined is the size of the datagrams in a message, and its other control
// messages.
func joined(m *ipv4.Message) (size int, info []byte) {
	info = m.OOB[:m.NN]
	h, data, rest, err := unix.ParseOneSocketControlMessage(info)
	if err == nil && h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO { // comes first (udp_recvmsg)
		return int(binary.NativeEndian.Uint32(data)), rest
	}
	return m.N, info
}
