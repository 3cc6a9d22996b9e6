// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package reading

// #cgo CFLAGS: -O2 -Wall
// #cgo LDFLAGS: -ldl
// #include <stdlib.h>
// #include "recv.h"
import "C"

import (
	"errors"
	"os"
	"syscall"
	"time"
	"unsafe"

	"github.com/batchconn/batchconn/internal/harness"
)

// InC are loops in C, each called once for a burst. missing says what is not
// there, and why.
func InC() (ways []Way, missing []string) {
	ways = []Way{
		inC("C recvfrom", C.with_recvfrom),
		inC("C recvmmsg", C.with_recvmmsg),
		inC("C recvmmsg, UDP_GRO", C.with_gro),
	}
	if why := C.recv_glib_missing(); why != nil {
		return ways, []string{"GLib g_socket_receive_messages: " + C.GoString(why)}
	}
	return append(ways, inC("GLib g_socket_receive_messages", C.with_glib)), nil
}

func inC(name string, with C.enum_with) Way {
	return Way{name, func(m *harness.Mailbag) (*Socket, error) {
		u, addr, err := listen()
		if err != nil {
			return nil, err
		}
		defer u.Close() // the C side has a duplicate, which no poller knows
		raw, err := u.SyscallConn()
		if err != nil {
			return nil, err
		}
		var r *C.struct_recv
		controlErr := raw.Control(func(fd uintptr) {
			r = C.recv_new(C.int(fd), with, C.int(len(m.Buffers)), C.int(len(m.Buffers[0])))
		})
		if controlErr != nil || r == nil {
			return nil, errors.Join(controlErr, errors.New("recv_new failed"))
		}
		lengths := unsafe.Slice(r.lengths, len(m.Buffers))
		for i := range m.Buffers {
			m.Buffers[i] = unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(r.buffers), i*len(m.Buffers[i]))), len(m.Buffers[i]))
		}
		return &Socket{
			Addr: addr,
			Read: func(i int) (int, error) {
				n := int(C.recv_some(r, C.int(i)))
				switch {
				case n == -int(syscall.EAGAIN):
					return 0, os.ErrDeadlineExceeded
				case n < 0:
					return 0, syscall.Errno(-n)
				}
				for k := i; k < i+n; k++ {
					m.Lengths[k] = int(lengths[k])
				}
				return n, nil
			},
			SetReadDeadline: func(time.Time) error { return nil },
			Close:           func() error { C.recv_free(r); return nil },
		}, nil
	}}
}
