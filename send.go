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
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// A sender is the engine that sends: the way down from messages to the kernel.
// transmit plans a batch, puts it to the kernel with one call, records what was
// sent, waits where there is no room and falls back where a run was refused.
// single is a short cut for a lone datagram.
type sender struct {
	to     destinations
	kernel adapter

	isIPv6      bool
	nonBlocking bool
	noBatchCall atomic.Bool // it is refused: writePortably instead
	noSendto    atomic.Bool // sendto is refused, and the other calls may not be
	wasFull     atomic.Bool // what ended a batch call the last time was a full socket, and not an error

	queue    roomQueue
	gso      gso
	pending  pendingErrors
	counters sendCounters

	name socketName
}

var waitForRoom = roomRule{
	ready:        sys.Writable,
	pause:        100 * time.Millisecond,
	starvedAfter: 30 * time.Millisecond,
	dupExpiry:    time.Second,
}

func (s *sender) init(c *net.UDPConn, raw syscall.RawConn, isIPv6 bool, cfg *Config) {
	s.isIPv6, s.nonBlocking = isIPv6, cfg.NonBlocking
	if isIPv6 {
		s.kernel = &adapterV6{s: s}
	} else {
		s.kernel = &adapterV4{s: s}
	}
	s.to = destinations{c.RemoteAddr() != nil, s.kernel}
	s.noBatchCall.Store(!sys.HaveBatchCall)
	s.name = socketName{c, networkOf(c)}
	s.queue.init(c, raw, &waitForRoom)
	s.gso.init(raw, cfg)
}

// An outcome is what ended a send before its last message; the zero outcome is
// nothing.
type outcome struct {
	err       error
	to        netip.AddrPort // the destination of the message it was met at, if it is of that
	ofMessage bool           // err belongs to that message: others may still go
	pending   bool           // err was met by an earlier send
}

// ended is the end of a call for no fault of a message.
func ended(err error) outcome { return outcome{err: err} }

// rejected is the end of a call at a message that cannot be sent.
func rejected(err error, to netip.AddrPort) outcome {
	return outcome{err: err, to: to, ofMessage: true}
}

// send sends msgs with a batch of its own, if it takes one.
func (s *sender) send(ctx context.Context, msgs []OutputMessage, flags int) (int, outcome) {
	if n, o, done := s.lone(ctx, msgs, flags); done {
		return n, o
	}
	b := newOutBatch()
	n, o := s.transmit(ctx, b, msgs, flags, s.mayWait(flags))
	b.free()
	return n, o
}

// lone sends msgs if they are one datagram, and reports whether it did. If not,
// transmit has to do it.
func (s *sender) lone(ctx context.Context, msgs []OutputMessage, flags int) (n int, o outcome, done bool) {
	if len(msgs) != 1 || len(msgs[0].Vectors) != 1 || len(msgs[0].Control) != 0 {
		return 0, outcome{}, false
	}
	m := &msgs[0]
	done, err := s.single(ctx, m.Vectors[0], m.Addr, flags)
	switch {
	case !done:
		return 0, outcome{}, false
	case err != nil:
		return 0, rejected(err, m.Addr), true
	}
	m.BytesSent = len(m.Vectors[0])
	return 1, outcome{}, true
}

// sendOne sends a copy of msg that lives in the pooled batch, so that nothing
// of the caller's moves to the heap.
func (s *sender) sendOne(ctx context.Context, msg OutputMessage, flags int) (int, error) {
	b := newOutBatch()
	b.one[0] = msg
	return s.sendHeld(ctx, b, flags)
}

// sendPacket sends a datagram of one vector.
func (s *sender) sendPacket(ctx context.Context, p, control []byte, to netip.AddrPort, flags int) (int, error) {
	if len(control) == 0 {
		if done, err := s.single(ctx, p, to, flags); done {
			if err != nil {
				return 0, s.report(rejected(err, to))
			}
			return len(p), nil
		}
	}
	b := newOutBatch()
	b.vector[0] = p
	b.one[0] = OutputMessage{Addr: to, Vectors: b.vector[:], Control: control}
	return s.sendHeld(ctx, b, flags)
}

// sendHeld sends b.one and frees b.
func (s *sender) sendHeld(ctx context.Context, b *outBatch, flags int) (int, error) {
	n, o := s.transmit(ctx, b, b.one[:], flags, s.mayWait(flags))
	bytes := 0
	if n == 1 {
		bytes = b.one[0].BytesSent
	}
	b.free()
	return bytes, s.report(o)
}

// sendXNet sends x/net's messages. It sets N and NN of those that were sent.
func (s *sender) sendXNet(ms []ipv4.Message, flags int) (n int, o outcome) {
	b := newOutBatch()
	defer b.free()
	for {
		msgs, bad := b.adopt(ms[n:])
		sent, o := s.transmit(nil, b, msgs, flags, s.mayWait(flags))
		for i := range msgs[:sent] {
			ms[n+i].N, ms[n+i].NN = msgs[i].BytesSent, len(msgs[i].Control)
		}
		n += sent
		if o.err == nil && bad {
			o = s.rejectAddress(n == 0)
		}
		if o.err != nil || n == len(ms) {
			return n, o
		}
	}
}

// rejectAddress is the end of a call at an address that is none. If it is that
// of the first message, what comes before a message in every call comes first.
func (s *sender) rejectAddress(first bool) outcome {
	if first {
		if o := s.pending.take(); o.err != nil {
			return o
		}
		if err := s.queue.ends.check(nil); err != nil {
			return ended(err)
		}
	}
	return rejected(errInvalidMessage, netip.AddrPort{})
}

// mayWait reports whether a send of the user's may wait for room.
func (s *sender) mayWait(flags int) bool { return !s.nonBlocking && flags&MsgDontWait == 0 }

// transmit sends msgs in order, says how many were sent and what ended it, and
// sets BytesSent of those sent.
func (s *sender) transmit(ctx context.Context, b *outBatch, msgs []OutputMessage, flags int, wait bool) (n int, o outcome) {
	if err := s.queue.ends.open(ctx); err != nil {
		return 0, ended(err)
	}
	if len(msgs) == 0 {
		return 0, outcome{}
	}
	if o := s.pending.take(); o.err != nil {
		return 0, o
	}
	flags &^= sys.PrivateFlags
	b.discard()
	p := plan{to: &s.to, refusals: &s.gso.refusals, limits: s.gso.limits(flags), zeroCopy: flags&sys.MsgZeroCopy != 0}
	var fb fallback
	cut := false // the last batch call took some of b and not all
	for n < len(msgs) {
		if err := s.queue.ends.check(ctx); err != nil {
			return n, ended(err)
		}
		if b.empty() {
			if err := fb.fill(b, p, msgs[n:]); err != nil {
				return n, rejected(err, msgs[n].Addr)
			}
		}
		k, err := s.put(ctx, b, flags, wait, cut)
		if k > 0 {
			n += s.record(&fb, b.sent(msgs[n:], k))
		}
		cut = err == nil && !b.empty() && !s.noBatchCall.Load()
		if err != nil && !s.pass(&fb, err) && !s.fallBack(&fb, b, err, msgs[n].Addr) {
			if fb.retried {
				s.addTooLong()
			}
			return n, outcomeOf(err, msgs[n].Addr)
		}
	}
	return n, outcome{}
}

// single sends a lone datagram of one vector by itself: what it takes to make a
// batch and to take it apart again is a sixth of the time of so short a call.
// It reports false if it sent nothing and met no error of the datagram's: then
// transmit has to do it, which waits for room and says what is wrong with a
// send. An error is the datagram's.
func (s *sender) single(ctx context.Context, p []byte, to netip.AddrPort, flags int) (done bool, err error) {
	if flags&^MsgDontWait != 0 || s.noSendto.Load() || s.queue.ends.check(ctx) != nil || s.pending.any() || s.queue.takers.Load() != 0 ||
		s.to.check(to) != nil || to.Addr().Zone() != "" {
		return false, nil
	}
	err = s.kernel.sendto(p, to, flags&^sys.PrivateFlags)
	errno, ofKernel := err.(syscall.Errno)
	if err == nil || ofKernel {
		s.counters.calls.Add(1)
	}
	switch {
	case err == nil:
		s.counters.sent(tally{messages: 1, bytes: len(p)})
		return true, nil
	case !ofKernel, errno == sys.EWOULDBLOCK, errno == syscall.EINTR,
		errno == syscall.ENOBUFS && sys.FullIsENOBUFS, s.isQueued(err):
		return false, nil
	case isCallRefused(err, sys.IsSendtoRefused):
		s.noSendto.Store(true)
		return false, nil
	}
	return true, sendtoError(errno)
}

// lastSendtoError is made once for as long as the kernel's answer is the same.
var lastSendtoError atomic.Pointer[os.SyscallError]

func sendtoError(errno syscall.Errno) error {
	e := lastSendtoError.Load()
	if e == nil || e.Err != errno {
		e = &os.SyscallError{Syscall: "sendto", Err: errno}
		lastSendtoError.Store(e)
	}
	return e
}

// put puts what b holds to the kernel, in turn if it has to wait and may. n may
// be above 0 with an error, which then is that of the message after the first
// n.
//
// A batch call that was cut met a full socket or an error, and does not say
// which. Where it was the full socket the last time, a call that may wait asks,
// and does not try in vain before it waits: x/net makes an error for each such
// try.
func (s *sender) put(ctx context.Context, b *outBatch, flags int, wait, cut bool) (n int, err error) {
	if s.queue.mustWait(wait) || wait && cut && s.wasFull.Load() && s.bufferIsFull() {
		err = ErrWouldBlock
	} else {
		n, err = s.write(b, flags)
	}
	if err == ErrWouldBlock && wait {
		n, err = s.writeInTurn(ctx, b, flags)
	}
	return n, err
}

// writeInTurn is write that waits for room.
func (s *sender) writeInTurn(ctx context.Context, b *outBatch, flags int) (n int, err error) {
	c := sendCalls.Get().(*sendCall)
	c.s, c.ctx, c.b, c.flags = s, ctx, b, flags
	if err = s.queue.inTurn(ctx, c); err == nil {
		n, err = c.n, c.err
	}
	c.s, c.ctx, c.b = nil, nil, nil
	sendCalls.Put(c)
	return n, err
}

// A sendCall is a write that waits; pooled, so that none makes a closure.
type sendCall struct {
	s     *sender
	ctx   context.Context
	b     *outBatch
	flags int

	n   int
	err error

	try func(fd uintptr) bool // write, if there is room
}

var sendCalls = sync.Pool{New: func() any {
	c := new(sendCall)
	c.try = c.write
	return c
}}

func (c *sendCall) wait() error { return c.s.queue.wait(c.try) }

// write reports false if the socket is full. That is looked at first: x/net
// makes an error for each try in vain.
func (c *sendCall) write(fd uintptr) bool {
	c.s.queue.atLock.Store(false)
	if c.n, c.err = 0, c.s.queue.ends.check(c.ctx); c.err != nil {
		return true
	}
	if sys.SendBufferFull(fd) {
		return false
	}
	if c.n, c.err = c.s.write(c.b, c.flags); c.err == ErrWouldBlock {
		c.s.queue.retry()
		return false
	}
	return true
}

// write puts what b holds to the kernel with one call and never waits: a full
// socket is ErrWouldBlock, with which n is 0.
func (s *sender) write(b *outBatch, flags int) (n int, err error) {
	for again := false; ; {
		portable := s.noBatchCall.Load()
		if portable {
			n, err = s.writePortably(b.pending(), flags)
		} else {
			n, err = s.kernel.writeBatch(b.pending(), flags)
		}
		s.counters.calls.Add(1)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, sys.EWOULDBLOCK):
			s.noteFull(true)
			err = ErrWouldBlock
		case !portable && isCallRefused(err, sys.IsBatchCallRefused):
			s.noBatchCall.Store(true) // neither the kernel nor the filter will change while we run
			err = nil
		case errors.Is(err, syscall.EINTR):
			err = nil
		case n == 0 && sys.FullIsENOBUFS && errors.Is(err, syscall.ENOBUFS):
			switch full, known := s.isFull(b); {
			case full:
				err = ErrWouldBlock
			case !known || again:
				return 0, cause(err)
			default: // it has room, but perhaps had none
				again, err = true, nil
			}
		default:
			s.noteFull(false)
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

func (s *sender) noteFull(full bool) {
	if s.wasFull.Load() != full {
		s.wasFull.Store(full)
	}
}

func (s *sender) bufferIsFull() bool {
	full, _ := callOnce(s.queue.ends.raw, sys.SendBufferFull)
	return full
}

// isCallRefused reports whether err, of a system call, is about that call and
// not about what was sent: the kernel does not know it, or a seccomp filter
// that was made for others refuses it, as always finds out.
func isCallRefused(err error, always func() bool) bool {
	errno, _ := errnoOf(err)
	return errno == syscall.ENOSYS || (errno == syscall.EPERM || errno == syscall.EACCES) && always()
}

// isFull reports whether ENOBUFS of the message at the head meant that the
// socket has no room. That is not known where the queue of a device tells of
// what it dropped (ip(7), IP_RECVERR): the socket may have had room. It is
// never so of segments, for which the kernel makes one buffer, and of which a
// queue may have taken some.
func (s *sender) isFull(b *outBatch) (full, known bool) {
	if b.runs[b.head].n > 1 || !sys.Segmentable(b.ms[b.head].OOB) {
		return false, false
	}
	ready := true
	s.queue.ends.raw.Control(func(fd uintptr) { ready, _ = s.queue.rule.ready(fd) })
	return !ready, !s.gso.found().errorQueue
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

// outcomeOf tells the errors of a message from those that end the call.
func outcomeOf(err error, to netip.AddrPort) outcome {
	if _, ok := err.(*os.SyscallError); ok {
		return rejected(err, to)
	}
	return ended(err)
}

// record counts what a call has sent, and returns how many messages. If they
// were the last of a refused run, it was the segmentation that was refused, and
// not a message.
func (s *sender) record(fb *fallback, t tally) int {
	s.counters.sent(t)
	if fb.plain > 0 {
		if fb.plain -= t.messages; fb.plain == 0 {
			s.gso.remember(fb.refused)
		}
	}
	fb.passed = 0
	if fb.retried {
		fb.retried = false
		s.addTooLong()
	}
	return t.messages
}

// A fallback is the way on after a run that the kernel refused: its messages go
// plainly, what comes after them is planned anew, and if they leave, the
// refusal is remembered.
type fallback struct {
	plain   int // how many messages still go plainly
	refused refusal
	retried bool // a run goes again as it is, since its EMSGSIZE may have been pending
	passed  int  // how many errors the message at the head met that were of the error queue
}

// fill has b filled by the plan, or plainly from what is left of a refused run.
func (fb *fallback) fill(b *outBatch, p plan, msgs []OutputMessage) error {
	if fb.plain > 0 {
		p.limits, msgs = segmentLimits{}, msgs[:fb.plain]
	}
	return b.fill(&p, msgs)
}

// fallBack has the run at the head of b sent again plainly, and the rest of b
// planned anew after it. It reports false if err is not about a run.
//
// On a connected socket EMSGSIZE may have been pending instead, because a
// router asked for shorter datagrams (ICMP, RFC 1191). Then it is of no message
// here, and the run does not meet it if it is tried again. A full socket says
// so too: what is too long is found so only once there was room for it.
func (s *sender) fallBack(fb *fallback, b *outBatch, err error, to netip.AddrPort) bool {
	if b.empty() || b.runs[b.head].n == 1 || !isRefusal(err) {
		return false
	}
	tooLong := errors.Is(err, syscall.EMSGSIZE)
	if !fb.retried && s.to.connected && tooLong {
		fb.retried = true
		return true
	}
	if fb.retried && !tooLong { // another refusal: that was pending, and this is not
		s.addTooLong()
	}
	s.counters.fallbacks.Add(1)
	r := b.runs[b.head]
	*fb = fallback{plain: r.n, refused: refusal{to.Addr(), r.size, err}}
	b.discard()
	return true
}

// maxPassed is how many errors of the error queue one message may meet.
const maxPassed = 8

// pass has the message at the head tried again if err is of the error queue: it
// says what became of an earlier message, to any destination, and the owner of
// the socket finds it in the queue. It may be of this message after all, and
// then is met each time. That it is met twice says little: the next in the
// queue is pending as soon as the owner has read one (sock_dequeue_err_skb,
// net/core/skbuff.c).
func (s *sender) pass(fb *fallback, err error) bool {
	if fb.passed == maxPassed || !s.isQueued(err) {
		return false
	}
	fb.passed++
	return true
}

// isQueued reports whether err may be one that the kernel put into the error
// queue of a socket that is not connected, and told besides.
func (s *sender) isQueued(err error) bool {
	return !s.to.connected && s.gso.found().errorQueue && mayBePending(err)
}

// A secondTry is of the sends that go on past a message that fails. On a
// connected socket an error may have been pending, for what ICMP says of an
// earlier message: then it is of no message here, and the one that met it
// leaves if it is tried again. ECONNREFUSED is of no message at all: others
// that send to the same peer may have caused another meanwhile, and so it gets
// more tries.
type secondTry struct {
	met   outcome
	times int // how often in a row
}

// judge takes what a try did: it has sent some messages, and o is what the next
// one met. It reports whether to try that one again, and what turned out to
// have been pending.
func (t *secondTry) judge(s *sender, sent int, o outcome) (again bool, pending outcome) {
	if !s.to.connected {
		return false, outcome{}
	}
	return t.judgeConnected(sent, o)
}

func (t *secondTry) judgeConnected(sent int, o outcome) (again bool, pending outcome) {
	met := t.met
	t.met = outcome{}
	switch {
	case met.err == nil:
	case sent == 0 && o.ofMessage && isSameErrno(met.err, o.err):
		if t.times < maxPassed && errors.Is(o.err, sys.ErrnoUnreachablePort) {
			t.met = o
			t.times++
			return true, outcome{}
		}
		t.times = 0
		return false, outcome{} // it is of the message
	case sent > 0 || o.ofMessage || o.err == ErrWouldBlock || isToldOnce(met.err):
		pending = ended(met.err)
	}
	if o.ofMessage && mayBePending(o.err) {
		t.met, t.times, again = o, 1, true
	}
	return again, pending
}

// addPending makes o pending for the next send if the kernel has forgotten it
// by telling it, or if it was pending before.
func (s *sender) addPending(o outcome) {
	if o.pending || s.to.connected && o.ofMessage && isToldOnce(o.err) {
		s.pending.add(o)
	}
}

// addTooLong makes an EMSGSIZE pending that was pending in the kernel.
func (s *sender) addTooLong() { s.pending.add(ended(errMessageTooLong)) }

// result is what the user gets for a send that has sent n messages.
func (s *sender) result(n int, o outcome) (int, error) {
	if n > 0 {
		s.addPending(o)
		return n, nil
	}
	return 0, s.report(o)
}

// report is the error that the user gets for o; it counts it.
func (s *sender) report(o outcome) error {
	if o.err == nil {
		return nil
	}
	s.count(o)
	return s.opError(o.err, o.to)
}

// count counts an outcome that the user is told of.
func (s *sender) count(o outcome) {
	if o.ofMessage {
		s.counters.failed.Add(1)
	} else if o.err == ErrWouldBlock {
		s.counters.wouldBlock.Add(1)
	}
}

// opError makes the one OpError that users see of a send.
func (s *sender) opError(err error, to netip.AddrPort) error {
	return new(opError).set(s, err, to)
}

// An opError is an OpError and what it points to, in one allocation: where many
// messages fail, allocations are most of what we add to their cost.
type opError struct {
	op net.OpError
	to net.UDPAddr
	ip [16]byte
}

// set fills in what socketName.opError makes, field by field: to copy it to the
// heap costs as much again.
func (e *opError) set(s *sender, err error, to netip.AddrPort) error {
	e.op.Op, e.op.Net, e.op.Err = "write", "udp", err
	if s.name.conn != nil {
		e.op.Net, e.op.Source = s.name.network, s.name.conn.LocalAddr()
	}
	if a := to.Addr(); a.IsValid() {
		e.ip = a.As16()
		e.to.IP, e.to.Port, e.to.Zone = e.ip[:], int(to.Port()), a.Zone()
		if a.Is4() {
			e.to.IP = e.ip[12:]
		}
		e.op.Addr = &e.to
	} else if s.name.conn != nil {
		e.op.Addr = s.name.conn.RemoteAddr()
	}
	return &e.op
}
