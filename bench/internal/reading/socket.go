// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package reading

import (
	"errors"
	"os"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/harness"
)

// An Opened is a way's socket with a duplicate of its descriptor, which not
// every library hands out: all get the same receive buffer by it, and the same
// look at their queue.
type Opened struct {
	*Socket
	Inlet *harness.Inlet
}

// Open opens a way's socket by f and finds its descriptor, which is new and of
// the same port.
func Open(f func() (*Socket, error)) (o Opened, err error) {
	before, err := descriptors()
	if err != nil {
		return o, err
	}
	if o.Socket, err = f(); err != nil {
		return o, err
	}
	fd, err := o.find(before)
	if err == nil {
		fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	}
	if err != nil {
		o.Socket.Close()
		return o, err
	}
	o.Inlet = harness.InletOf(fd)
	return o, nil
}

func (o Opened) find(before map[int]uint16) (int, error) {
	after, err := descriptors()
	for fd, port := range after {
		if _, old := before[fd]; !old && port == o.Addr.Port() {
			return fd, nil
		}
	}
	return 0, errors.Join(err, errors.New("no descriptor of the socket"))
}

// descriptors are those of this process's IPv4 sockets, with their ports.
func descriptors() (map[int]uint16, error) {
	names, err := os.ReadDir("/proc/self/fd")
	all := map[int]uint16{}
	for _, n := range names {
		fd, err := strconv.Atoi(n.Name())
		if err != nil {
			continue
		}
		if at, err := unix.Getsockname(fd); err == nil {
			if at, ok := at.(*unix.SockaddrInet4); ok { // wireguard-go has one of IPv6 too
				all[fd] = uint16(at.Port)
			}
		}
	}
	return all, err
}

// Close closes both.
func (o Opened) Close() error { return errors.Join(o.Socket.Close(), o.Inlet.Close()) }

// Waiting reports whether there is something in the kernel's queue.
func (o Opened) Waiting() bool {
	p := []unix.PollFd{{Fd: int32(o.Inlet.FD()), Events: unix.POLLIN}}
	n, _ := unix.Poll(p, 0)
	return n > 0
}

// SetBuffer gives a socket a receive buffer, beyond the system's limit where it
// may, and returns what there is.
func SetBuffer(in *harness.Inlet, bytes int) int {
	if unix.SetsockoptInt(in.FD(), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, bytes) != nil {
		unix.SetsockoptInt(in.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF, bytes)
	}
	n, _ := unix.GetsockoptInt(in.FD(), unix.SOL_SOCKET, unix.SO_RCVBUF)
	return n
}
