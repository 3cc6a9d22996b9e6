// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"slices"
	"syscall"
	"time"
)

// A stop is what ended a send before its last message; the zero stop is
// nothing.
type stop struct {
	err       error // wrapped for the user
	ofMessage bool  // err belongs to the message it was met at: others may still go
	kept      bool  // err was kept by an earlier send
}

// send is transmit with a batch of its own, if it takes one.
func (c *Conn) send(ctx context.Context, msgs []OutputMessage, flags int) (int, stop) {
	if len(msgs) == 1 && len(msgs[0].Vectors) == 1 && len(msgs[0].Control) == 0 {
		if s, done := c.trySingle(ctx, msgs[0].Vectors[0], msgs[0].Addr, flags); done {
			if s.err != nil {
				return 0, s
			}
			msgs[0].BytesSent = len(msgs[0].Vectors[0])
			return 1, s
		}
	}
	b := newBatch()
	n, s := c.transmit(ctx, b, msgs, flags, c.mayWait(flags))
	b.free()
	return n, s
}

// mayWait reports whether a send of the user's may wait for room.
func (c *Conn) mayWait(flags int) bool { return !c.nonBlocking && flags&MsgDontWait == 0 }

// transmit is the one way down to the kernel. It sends msgs in order, says how
// many were sent and what stopped it, and sets BytesSent of those sent.
func (c *Conn) transmit(ctx context.Context, b *batch, msgs []OutputMessage, flags int, wait bool) (n int, s stop) {
	if err := c.alive(ctx); err != nil {
		return 0, c.halt(err)
	}
	if len(msgs) == 0 {
		return 0, stop{}
	}
	if err := c.takeKept(); err != nil {
		return 0, stop{err: err, kept: true}
	}
	flags &^= privateFlags
	b.discard()
	b.segments = c.gso.most(flags)
	for n < len(msgs) {
		if err := c.ready(ctx); err != nil {
			return n, c.halt(err)
		}
		if b.empty() && !b.fill(c, msgs[n:], flags) {
			return n, c.refuse(b.bad, msgs[n].Addr)
		}
		k, err := c.attempt(b, flags, wait)
		if err == ErrWouldBlock && wait {
			k, err = c.sendInTurn(ctx, b, flags)
		}
		n += b.account(c, msgs[n:], k)
		if err != nil && !b.fallBack(c, msgs[n:], err) {
			return n, c.stopAt(err, msgs[n].Addr)
		}
	}
	return n, stop{}
}

// alive says why a send cannot go on: no socket, closed, or ctx is done.
func (c *Conn) alive(ctx context.Context) error {
	if c.raw == nil {
		return syscall.EINVAL
	}
	if c.room.closed.Load() {
		return net.ErrClosed
	}
	if ctx != nil {
		return ctx.Err()
	}
	return nil
}

// ready is alive and the write deadline: what is checked before each call to
// the kernel.
func (c *Conn) ready(ctx context.Context) error {
	if err := c.alive(ctx); err != nil {
		return err
	}
	if at := c.room.deadline.Load(); at != 0 && sinceEpoch(time.Now()) >= at {
		return os.ErrDeadlineExceeded
	}
	return nil
}

// attempt writes what b holds unless the room is spoken for: a sender that may
// wait lines up behind those who wait to send, and none takes the room that is
// being kept for one that starved.
func (c *Conn) attempt(b *batch, flags int, wait bool) (int, error) {
	if c.room.senders.Load() != 0 && (wait || c.room.reserved.Load()) {
		return 0, ErrWouldBlock
	}
	return c.write(b, flags)
}

// write puts what b holds to the kernel with one call and never waits: a full
// socket is ErrWouldBlock. n may be above 0 with an error, which then is that
// of the message after the first n.
func (c *Conn) write(b *batch, flags int) (n int, err error) {
	for {
		portable := c.noBatchCall.Load()
		if portable {
			n, err = c.portable.writeBatch(b.pending(), flags)
		} else {
			n, err = c.adapter.writeBatch(b.pending(), flags)
		}
		c.stats.calls.Add(1)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, errWouldBlock):
			err = ErrWouldBlock
		case errors.Is(err, syscall.ENOSYS) && !portable:
			c.noBatchCall.Store(true) // the kernel will not learn sendmmsg while we run
			err = nil
		case errors.Is(err, syscall.EINTR):
			err = nil
		default:
			return n, cause(err)
		}
		if n > 0 {
			return n, nil // the next write meets it again, or goes on
		}
		if err != nil {
			return 0, err
		}
	}
}

// cause is err without the layers that net and x/net put around an error of a
// system call.
func cause(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return net.ErrClosed
	}
	for {
		op, ok := err.(*net.OpError)
		if !ok {
			return err
		}
		err = op.Err
	}
}

// stopAt tells the errors of a message from those that end the call.
func (c *Conn) stopAt(err error, to netip.AddrPort) stop {
	if _, ok := err.(*os.SyscallError); ok {
		return c.refuse(err, to)
	}
	return c.halt(err)
}

// halt is the end of a call for no fault of a message.
func (c *Conn) halt(err error) stop {
	return stop{err: c.wrap(err, netip.AddrPort{})}
}

// refuse is the end of a call at a message that cannot be sent.
func (c *Conn) refuse(err error, to netip.AddrPort) stop {
	return stop{err: c.wrap(err, to), ofMessage: true}
}

// report is the error that the user gets for s; it counts it.
func (c *Conn) report(s stop) error {
	if s.ofMessage {
		c.stats.failed.Add(1)
	} else if s.err != nil && errors.Is(s.err, ErrWouldBlock) {
		c.stats.wouldBlock.Add(1)
	}
	return s.err
}

// wrap makes the one OpError that users see.
func (c *Conn) wrap(err error, to netip.AddrPort) error {
	op := &net.OpError{Op: "write", Net: "udp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
	if to.Addr().IsValid() {
		op.Addr = net.UDPAddrFromAddrPort(to)
	}
	return op
}

// keep keeps s for the next send if the kernel has forgotten it by having
// reported it: the pending error of a connected socket (udp(7), SO_ERROR). One
// that another send kept while WriteBatch was on its way is kept again.
func (c *Conn) keep(s stop) {
	if s.kept || c.connected && s.ofMessage && isConsumed(s.err) {
		c.keepError(s.err)
	}
}

// keepError keeps err before those that are kept already.
func (c *Conn) keepError(err error) {
	for {
		others := c.kept.Load()
		if c.kept.CompareAndSwap(others, &keptError{err, others}) {
			return
		}
	}
}

// keepTooLong keeps an EMSGSIZE that was pending.
func (c *Conn) keepTooLong() { c.keepError(c.wrap(errMessageTooLong, netip.AddrPort{})) }

// takeKept forgets a kept error and returns it, or nil if there is none.
func (c *Conn) takeKept() error {
	for {
		first := c.kept.Load()
		if first == nil {
			return nil
		}
		if c.kept.CompareAndSwap(first, first.others) {
			return first.err
		}
	}
}

// A keptError is one that the next send returns, with those for sends after it.
type keptError struct {
	err    error
	others *keptError
}

func isConsumed(err error) bool {
	return slices.ContainsFunc(consumedErrors, func(errno error) bool { return errors.Is(err, errno) })
}

func clearBytesSent(msgs []OutputMessage) {
	for i := range msgs {
		msgs[i].BytesSent = 0
	}
}
