// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package harness

import (
	"errors"
	"net"
	"os"
	"syscall"
)

type inletSocket struct{ fd int }

// newInletSocket duplicates u's descriptor and closes u: what the runtime's
// poller knows is u. The duplicate does not block.
func newInletSocket(u *net.UDPConn) (s inletSocket, err error) {
	raw, err := u.SyscallConn()
	if err != nil {
		return s, err
	}
	controlErr := raw.Control(func(fd uintptr) { s.fd, err = dup(int(fd)) })
	if err = errors.Join(controlErr, err); err != nil {
		return s, err
	}
	u.Close()
	return s, nil
}

func dup(fd int) (int, error) {
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	own, err := syscall.Dup(fd)
	if err != nil {
		return 0, os.NewSyscallError("dup", err)
	}
	syscall.CloseOnExec(own)
	return own, nil
}

// InletOf is an inlet of a descriptor, as a child inherits it.
func InletOf(fd int) *Inlet { return &Inlet{socket: inletSocket{fd}} }

// File returns a duplicate to be handed to a child. The poller knows it until
// it is closed.
func (in *Inlet) File() (*os.File, error) {
	fd, err := dup(in.FD())
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "inlet"), nil
}

// FD is its number.
func (in *Inlet) FD() int { return in.socket.fd }

func (s inletSocket) read(m *Mailbag) (int, error) { return m.calls.read(s.fd, m) }

func (s inletSocket) close() error { return os.NewSyscallError("close", syscall.Close(s.fd)) }
