// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android

package harness

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// InletReads says how an Inlet reads.
const InletReads = "a batch at a time, never woken"

// A batchCall is what recvmmsg(2) reads into. x/net's ReadBatch makes an
// address for each datagram, and so work for the collector.
type batchCall struct{ headers []mmsghdr }

type mmsghdr struct {
	unix.Msghdr
	n uint32
}

func (c *batchCall) prepare(buffers [][]byte) {
	c.headers = make([]mmsghdr, len(buffers))
	for i := range c.headers {
		iov := &unix.Iovec{Base: &buffers[i][0]}
		iov.SetLen(len(buffers[i]))
		c.headers[i].Iov = iov
		c.headers[i].SetIovlen(1)
	}
}

// read does not wait, so it does not tell the runtime's scheduler, which would
// do more work for it.
func (c *batchCall) read(fd int, m *Mailbag) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&c.headers[0])),
			uintptr(len(c.headers)), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			for i := range c.headers[:n] {
				m.Lengths[i] = int(c.headers[i].n)
			}
			return int(n), nil
		case unix.EAGAIN:
			return 0, nil
		case unix.EINTR:
			continue
		}
		return 0, os.NewSyscallError("recvmmsg", errno)
	}
}
