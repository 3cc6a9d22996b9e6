// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package way

// #cgo CFLAGS: -O2 -Wall
// #cgo LDFLAGS: -ldl
// #include "send.h"
import "C"

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"runtime"
	"syscall"
	"time"
	"unsafe"

	"github.com/batchconn/batchconn/internal/harness"
)

// InC are the loops of send.c, which stay in C for all of their time, so that
// the way there costs nothing. missing says why there are none.
func InC() (ways []Way, missing string) {
	return []Way{
		inC("C sendto", func(j *C.struct_job, d *C.struct_done) C.int { return C.send_sendto(j, d) }),
		inC("C sendmmsg", func(j *C.struct_job, d *C.struct_done) C.int { return C.send_sendmmsg(j, d) }),
		inC("C sendmmsg, UDP_SEGMENT, n vectors", func(j *C.struct_job, d *C.struct_done) C.int { return C.send_segmented_vectors(j, d) }),
		inC(OneVector, func(j *C.struct_job, d *C.struct_done) C.int { return C.send_segmented(j, d) }),
	}, ""
}

// GLib is its g_socket_send_messages, called in C, and its version. missing says
// why there is none.
func GLib() (w Way, version, missing string) {
	if why := C.glib_missing(); why != nil {
		return Way{}, "", C.GoString(why)
	}
	var v [3]C.uint
	C.glib_version(&v[0])
	w = inC("GLib g_socket_send_messages", func(j *C.struct_job, d *C.struct_done) C.int { return C.send_glib(j, d) })
	return w, fmt.Sprintf("%d.%d.%d", v[0], v[1], v[2]), ""
}

type loop func(*C.struct_job, *C.struct_done) C.int

func inC(name string, l loop) Way {
	return Way{Name: name, Open: func(*Load) (*Socket, error) {
		u, err := Listen()
		if err != nil {
			return nil, err
		}
		return &Socket{Sender: func(b *Batch) Sender { return l.sender(u, b) }, Close: u.Close}, nil
	}}
}

func (l loop) sender(u *net.UDPConn, b *Batch) Sender {
	to := make([]C.struct_sockaddr_in, len(b.To))
	for i, a := range b.To {
		to[i].sin_family = syscall.AF_INET
		binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&to[i].sin_port))[:], a.Port())
		*(*[4]byte)(unsafe.Pointer(&to[i].sin_addr)) = a.Addr().As4()
	}
	return func(d time.Duration) (int, error) {
		var pinner runtime.Pinner
		defer pinner.Unpin()
		pinner.Pin(&to[0])
		pinner.Pin(&b.payload[0])
		raw, err := u.SyscallConn()
		if err != nil {
			return 0, err
		}
		job := C.struct_job{
			count: C.int(b.Count), size: C.int(b.Size), burst: C.int(b.Burst), batches: C.int(harness.BatchesPerLook(b.Count, d)),
			to: &to[0], destinations: C.int(len(to)),
			payload: (*C.char)(unsafe.Pointer(&b.payload[0])), ns: C.long(d),
		}
		var done C.struct_done
		var errno C.int
		err = raw.Control(func(fd uintptr) {
			job.fd = C.int(fd)
			errno = l(&job, &done)
		})
		switch {
		case err != nil:
		case done.what[0] != 0:
			err = errors.New(C.GoString(&done.what[0]))
		case errno != 0:
			err = syscall.Errno(errno)
		}
		return int(done.datagrams), err
	}
}
