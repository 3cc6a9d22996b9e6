// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !unix

package harness

import (
	"errors"
	"net"
	"os"
	"syscall"
	"time"
)

// InletReads says how an Inlet reads.
const InletReads = "one at a time"

// tooLong is WSAEMSGSIZE: on Windows a datagram that does not fit is an error.
const tooLong = syscall.Errno(10040)

// Here the poller cannot be avoided.
type inletSocket struct{ *net.UDPConn }

func newInletSocket(u *net.UDPConn) (inletSocket, error) { return inletSocket{u}, nil }

// read waits a millisecond at most.
func (s inletSocket) read(m *Mailbag) (int, error) {
	s.SetReadDeadline(time.Now().Add(time.Millisecond))
	n, _, err := s.ReadFromUDPAddrPort(m.Buffers[0])
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return 0, nil
	}
	if errors.Is(err, tooLong) { // and the buffer is full
		n, err = len(m.Buffers[0]), nil
	}
	if err != nil {
		return 0, err
	}
	m.Lengths[0] = n
	return 1, nil
}

func (s inletSocket) close() error { return s.Close() }

type batchCall struct{}

func (batchCall) prepare([][]byte) {}
