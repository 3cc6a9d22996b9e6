// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix && (!linux || android)

package harness

import (
	"os"

	"golang.org/x/sys/unix"
)

// InletReads says how an Inlet reads.
const InletReads = "one at a time, never woken"

type batchCall struct{}

func (batchCall) prepare([][]byte) {}

// read takes one datagram with each recvfrom(2) until nothing is left.
func (batchCall) read(fd int, m *Mailbag) (int, error) {
	for i := 0; ; {
		if i == len(m.Buffers) {
			return i, nil
		}
		n, _, err := unix.Recvfrom(fd, m.Buffers[i], 0)
		switch {
		case err == nil:
			m.Lengths[i] = n
			i++
		case err == unix.EINTR:
		case i > 0 || err == unix.EAGAIN:
			return i, nil // an error that stands is met again
		default:
			return 0, os.NewSyscallError("recvfrom", err)
		}
	}
}
