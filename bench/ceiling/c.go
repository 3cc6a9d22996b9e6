// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

// #cgo CFLAGS: -O2
// #include "send.h"
import "C"

import (
	"encoding/binary"
	"runtime"
	"syscall"
	"time"
	"unsafe"
)

// waysInC are the loops of send.c, on the same socket as net and x/net.
func (s *scene) waysInC() []way {
	in := func(name string, loop func(j *C.struct_job, d *C.struct_done) C.int) way {
		return way{name, func(d time.Duration) (sample, error) { return s.runInC(loop, d) }}
	}
	return []way{
		in("C sendto", func(j *C.struct_job, d *C.struct_done) C.int { return C.send_sendto(j, d) }),
		in("C sendmmsg", func(j *C.struct_job, d *C.struct_done) C.int { return C.send_sendmmsg(j, d) }),
		in("C sendmmsg, UDP_SEGMENT, n vectors", func(j *C.struct_job, d *C.struct_done) C.int { return C.send_segmented_vectors(j, d) }),
		in("C sendmmsg, UDP_SEGMENT, 1 vector", func(j *C.struct_job, d *C.struct_done) C.int { return C.send_segmented(j, d) }),
	}
}

// runInC stays in C for all of the time, so that the way there costs nothing.
func (s *scene) runInC(loop func(*C.struct_job, *C.struct_done) C.int, t time.Duration) (sample, error) {
	to := make([]C.struct_sockaddr_in, len(s.to))
	for i, a := range s.to {
		to[i].sin_family = syscall.AF_INET
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&to[i].sin_port))[:], a.Port())
		*(*[4]byte)(unsafe.Pointer(&to[i].sin_addr)) = a.Addr().As4()
	}
	var pinner runtime.Pinner
	defer pinner.Unpin()
	pinner.Pin(&to[0])
	pinner.Pin(&s.payload[0])
	job := C.struct_job{
		count: C.int(s.count), size: C.int(*size), burst: C.int(s.burst),
		to: &to[0], destinations: C.int(len(to)),
		payload: (*C.char)(unsafe.Pointer(&s.payload[0])), ns: C.long(t),
	}
	raw, err := s.net.SyscallConn()
	if err != nil {
		return sample{}, err
	}
	var done C.struct_done
	var errno C.int
	err = raw.Control(func(fd uintptr) {
		job.fd = C.int(fd)
		errno = loop(&job, &done)
	})
	if err == nil && errno != 0 {
		err = syscall.Errno(errno)
	}
	return sample{int(done.datagrams), time.Duration(done.wall_ns), time.Duration(done.cpu_ns)}, err
}
