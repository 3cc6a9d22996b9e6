// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix && !aix && !batchconn_portable

package batchconn

import (
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// newParker makes a parker of a duplicate of the socket. Failing that (no
// descriptor left), it polls: a send that may wait does not fail for that.
func newParker(raw syscall.RawConn) parker {
	p, err := newDupParker(raw)
	if err != nil {
		return &pollParker{raw: raw}
	}
	return p
}

// A dupParker parks in the runtime's network poller on a duplicate of the
// socket, which has a deadline and a write lock of its own. It is not made with
// UDPConn.File, whose Fd makes the live socket blocking.
type dupParker struct {
	file  *os.File
	raw   syscall.RawConn
	blind bool
	look  func(fd uintptr) bool
	err   error // of look
}

func newDupParker(raw syscall.RawConn) (*dupParker, error) {
	var dup int
	var err error
	controlErr := raw.Control(func(fd uintptr) {
		dup, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 0)
	})
	if controlErr != nil {
		return nil, controlErr
	}
	if err != nil {
		return nil, err
	}
	p := &dupParker{file: os.NewFile(uintptr(dup), "batchconn")}
	if err := p.file.SetWriteDeadline(time.Time{}); err != nil { // not pollable
		p.file.Close()
		return nil, err
	}
	if p.raw, err = p.file.SyscallConn(); err != nil {
		p.file.Close()
		return nil, err
	}
	p.look = func(fd uintptr) (ok bool) {
		if p.blind {
			return false
		}
		ok, p.err = hasRoom(fd)
		return ok || p.err != nil
	}
	return p, nil
}

func (p *dupParker) park(blind bool) error {
	p.blind = blind
	if err := p.raw.Write(p.look); err != nil {
		return err
	}
	return p.err
}

func (p *dupParker) setDeadline(t time.Time) { p.file.SetWriteDeadline(t) }
func (p *dupParker) close()                  { p.file.Close() }
