// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package main

import (
	"errors"
	"net"
	"syscall"

	"golang.org/x/net/ipv4"
)

// An inlet is a receiving socket for which nobody is woken: the runtime's poller
// does not know it, and who reads it looks from time to time. The kernel wakes a
// sleeping receiver in the sender's time. On loopback that alone tripled the CPU
// time of a WriteTo (Linux 6.18); senders to a network never pay it, and ways
// that let receivers sleep less would look better than they are.
type inlet struct {
	*net.UDPConn // closed; for its address
	pc           *ipv4.PacketConn
	fd           int
}

func openInlet(at *net.UDPAddr) (*inlet, error) {
	u, err := listenUDP(at)
	if err != nil {
		return nil, err
	}
	defer u.Close() // leaves the duplicate out of the poller
	raw, err := u.SyscallConn()
	if err != nil {
		return nil, err
	}
	in := &inlet{UDPConn: u}
	controlErr := raw.Control(func(fd uintptr) {
		syscall.ForkLock.RLock()
		defer syscall.ForkLock.RUnlock()
		if in.fd, err = syscall.Dup(int(fd)); err == nil {
			syscall.CloseOnExec(in.fd)
		}
	})
	if err = errors.Join(controlErr, err); err != nil {
		return nil, err
	}
	in.pc = ipv4.NewPacketConn(in)
	return in, nil
}

// read reads what is there, and nothing if there is nothing.
func (in *inlet) read(ms []ipv4.Message) (int, error) {
	for {
		n, err := in.pc.ReadBatch(ms, 0)
		switch {
		case errors.Is(err, syscall.EAGAIN):
			return 0, nil
		case errors.Is(err, syscall.EINTR):
			continue
		}
		return max(n, 0), err
	}
}

// Close closes the socket; no read is under way.
func (in *inlet) Close() error { return syscall.Close(in.fd) }

// SyscallConn is what ReadBatch goes through.
func (in *inlet) SyscallConn() (syscall.RawConn, error) { return promptRawConn(in.fd), nil }

// A promptRawConn does not wait.
type promptRawConn int

func (fd promptRawConn) Control(f func(uintptr)) error    { f(uintptr(fd)); return nil }
func (fd promptRawConn) Read(f func(uintptr) bool) error  { f(uintptr(fd)); return nil }
func (fd promptRawConn) Write(f func(uintptr) bool) error { f(uintptr(fd)); return nil }
