// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"os"
	"slices"
	"sync/atomic"
	"syscall"

	"github.com/batchconn/batchconn/internal/sys"
)

// pendingErrors are errors that the kernel has told, and so forgotten, when a
// call had no way to return them. The next calls return them, each once.
type pendingErrors struct {
	first atomic.Pointer[pendingError]
}

// A pendingError comes before others.
type pendingError struct {
	outcome outcome
	others  *pendingError
}

// any reports whether there is one.
func (p *pendingErrors) any() bool { return p.first.Load() != nil }

// add puts o before those that are pending already.
func (p *pendingErrors) add(o outcome) {
	o.pending, o.ofMessage = true, false
	for {
		others := p.first.Load()
		if p.first.CompareAndSwap(others, &pendingError{o, others}) {
			return
		}
	}
}

// take removes one and returns it; its err is nil if there is none.
func (p *pendingErrors) take() outcome {
	for {
		first := p.first.Load()
		if first == nil {
			return outcome{}
		}
		if p.first.CompareAndSwap(first, first.others) {
			return first.outcome
		}
	}
}

// isToldOnce reports whether the kernel may have forgotten err by telling it:
// it was pending on the socket (udp(7), SO_ERROR).
func isToldOnce(err error) bool {
	errno, ok := errnoOf(err)
	return ok && slices.Contains(sys.PendingErrors, errno)
}

// errnoOf is the kernel's own error in err. Most are found without errors.As,
// which takes a third of the time that the kernel takes to refuse a message.
func errnoOf(err error) (syscall.Errno, bool) {
	if e, is := err.(*os.SyscallError); is {
		err = e.Err
	}
	if errno, is := err.(syscall.Errno); is {
		return errno, true
	}
	var errno syscall.Errno // on the heap, for errors.As
	ok := errors.As(err, &errno)
	return errno, ok
}

// mayBePending reports whether err may have been pending. EMSGSIZE, if a router
// asked for shorter datagrams, is mostly of one message, and then stands.
func mayBePending(err error) bool {
	errno, ok := errnoOf(err)
	return ok && (errno == syscall.EMSGSIZE || slices.Contains(sys.PendingErrors, errno))
}

// isSameErrno reports whether two errors of the kernel are of one kind,
// whatever system call met them.
func isSameErrno(a, b error) bool {
	x, ok := errnoOf(a)
	y, also := errnoOf(b)
	return ok && also && x == y
}
