// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"net/netip"
	"os"
	"syscall"
)

// trySingle sends one datagram by itself: what it takes to make a batch and to
// take it apart again is a sixth of the time of so short a call. It reports false
// if it sent nothing and met no error of the datagram's: then the batch's way is
// to be gone, which waits for room and says what is wrong with a send.
func (c *Conn) trySingle(ctx context.Context, p []byte, to netip.AddrPort, flags int) (s stop, done bool) {
	if flags&^MsgDontWait != 0 || c.ready(ctx) != nil || c.kept.Load() != nil || c.room.senders.Load() != 0 ||
		c.checkDestination(to) != nil || to.Addr().Zone() != "" {
		return stop{}, false
	}
	err := c.adapter.sendto(p, to, flags&^privateFlags)
	errno, ofKernel := err.(syscall.Errno)
	if err == nil || ofKernel {
		c.stats.calls.Add(1)
	}
	switch {
	case err == nil:
		c.stats.messages.Add(1)
		c.stats.bytes.Add(uint64(len(p)))
		return stop{}, true
	case !ofKernel, errno == errWouldBlock, errno == syscall.EINTR, errno == syscall.ENOSYS:
		return stop{}, false
	}
	return c.refuse(os.NewSyscallError("sendto", err), to), true
}
