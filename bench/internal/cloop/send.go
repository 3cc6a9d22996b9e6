// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package cloop

// #cgo CFLAGS: -O2 -Wall
// #cgo LDFLAGS: -ldl
// #include "send.h"
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"runtime"
	"syscall"
	"unsafe"
)

// Missing says why there are no loops, or is empty.
const Missing = ""

// GLib is the version of GLib. missing says why there is none.
func GLib() (version, missing string) {
	if why := C.glib_missing(); why != nil {
		return "", C.GoString(why)
	}
	var v [3]C.uint
	C.glib_version(&v[0])
	return fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]), ""
}

// Send does a job in a way, and stays in C for all of its time, so that the way
// there costs nothing. It returns how many datagrams it sent.
func Send(how Sending, j *Job) (datagrams int, err error) {
	to := make([]C.struct_sockaddr_in, len(j.To))
	for i, a := range j.To {
		to[i].sin_family = syscall.AF_INET
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&to[i].sin_port))[:], a.Port())
		*(*[4]byte)(unsafe.Pointer(&to[i].sin_addr)) = a.Addr().As4()
	}
	var pinner runtime.Pinner
	defer pinner.Unpin()
	pinner.Pin(&to[0])
	pinner.Pin(&j.Payload[0])
	job := C.struct_job{
		fd: C.int(j.FD), count: C.int(j.Count), size: C.int(j.Size), burst: C.int(j.Burst), batches: C.int(j.Batches),
		to: &to[0], destinations: C.int(len(to)),
		payload: (*C.char)(unsafe.Pointer(&j.Payload[0])), ns: C.long(j.Time),
	}
	var done C.struct_done
	var errno C.int
	switch how {
	case Sendto:
		errno = C.send_sendto(&job, &done)
	case Sendmmsg:
		errno = C.send_sendmmsg(&job, &done)
	case Segmented:
		errno = C.send_segmented(&job, &done)
	case SegmentedVectors:
		errno = C.send_segmented_vectors(&job, &done)
	case GLibSend:
		errno = C.send_glib(&job, &done)
	}
	switch {
	case done.what[0] != 0:
		err = errors.New(C.GoString(&done.what[0]))
	case errno != 0:
		err = syscall.Errno(errno)
	}
	return int(done.datagrams), err
}
