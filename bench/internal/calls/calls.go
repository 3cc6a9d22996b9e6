// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

// Package calls counts the calls of the kernel that send or receive.
package calls

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Kind is the calls that are counted.
type Kind []int

// The calls that send, and those that receive.
var (
	Send    = Kind{unix.SYS_SENDTO, unix.SYS_SENDMSG, unix.SYS_SENDMMSG}
	Receive = Kind{unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_RECVMMSG}
)

// A Counter counts by the tracepoint that each call passes: a descriptor for
// each thread, whose children are counted too. It slows the calls down, and so
// what is timed is not counted.
type Counter []int

// Count counts the calls of this process, all of its threads, from now on. It
// fails where the tracepoint is not to be had; see perf_event_open(2).
func Count(k Kind) (c Counter, err error) {
	text, err := os.ReadFile("/sys/kernel/tracing/events/raw_syscalls/sys_enter/id")
	if err != nil {
		return nil, err
	}
	id, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return nil, err
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return nil, err
	}
	attr := unix.PerfEventAttr{Type: unix.PERF_TYPE_TRACEPOINT, Config: id, Bits: unix.PerfBitInherit | unix.PerfBitDisabled}
	attr.Size = uint32(unsafe.Sizeof(attr))
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := c.add(&attr, tid, k); err != nil {
			c.Stop()
			return nil, err
		}
	}
	return c, nil
}

func (c *Counter) add(attr *unix.PerfEventAttr, tid int, k Kind) error {
	fd, err := unix.PerfEventOpen(attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if errors.Is(err, unix.ESRCH) {
		return nil // it has ended
	}
	if err != nil {
		return os.NewSyscallError("perf_event_open", err)
	}
	*c = append(*c, fd)
	filter, err := unix.BytePtrFromString(k.filter())
	if err != nil {
		return err
	}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PERF_EVENT_IOC_SET_FILTER, uintptr(unsafe.Pointer(filter)))
	if errno == 0 {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.PERF_EVENT_IOC_ENABLE, 0)
	}
	if errno != 0 {
		return os.NewSyscallError("ioctl", errno)
	}
	return nil
}

func (k Kind) filter() string {
	ids := make([]string, len(k))
	for i, id := range k {
		ids[i] = fmt.Sprintf("id == %d", id)
	}
	return strings.Join(ids, " || ")
}

// Stop returns how many calls there were.
func (c Counter) Stop() (calls int) {
	var b [8]byte
	for _, fd := range c {
		if n, err := unix.Read(fd, b[:]); err == nil && n == len(b) {
			calls += int(binary.NativeEndian.Uint64(b[:]))
		}
		unix.Close(fd)
	}
	return calls
}
