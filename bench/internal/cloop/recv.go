// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package cloop

// #include <stdlib.h>
// #include "recv.h"
import "C"

import (
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"
)

// A Receiver receives in one of the ways.
type Receiver struct {
	Buffers [][]byte // what it receives into

	r       *C.struct_recv
	lengths []C.int
}

var withs = map[Receiving]C.enum_with{
	Recvfrom: C.with_recvfrom, Recvmmsg: C.with_recvmmsg, GRO: C.with_gro, GLibReceive: C.with_glib,
}

// NewReceiver receives from a duplicate of fd into count buffers.
func NewReceiver(how Receiving, fd, count, size int) (*Receiver, error) {
	c := C.recv_new(C.int(fd), withs[how], C.int(count), C.int(size))
	if c == nil {
		return nil, errors.New("recv_new failed")
	}
	r := &Receiver{r: c, lengths: unsafe.Slice(c.lengths, count), Buffers: make([][]byte, count)}
	for i := range r.Buffers {
		r.Buffers[i] = unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(c.buffers), i*size)), size)
	}
	return r, nil
}

// Read receives what there is into the buffers from i on, after a wait if need
// be, and writes the lengths of it.
func (r *Receiver) Read(i int, lengths []int, patience time.Duration) (int, error) {
	n := int(C.recv_some(r.r, C.int(i), C.int(patience.Milliseconds())))
	switch {
	case n == -int(syscall.EAGAIN):
		return 0, os.ErrDeadlineExceeded
	case n < 0:
		return 0, syscall.Errno(-n)
	}
	for k := i; k < i+n; k++ {
		lengths[k] = int(r.lengths[k])
	}
	return n, nil
}

// Close frees it.
func (r *Receiver) Close() error {
	C.recv_free(r.r)
	return nil
}
