// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// What pion/ice looks for.
var _ interface {
	ReadFromAddrPort(b []byte) (int, netip.AddrPort, error)
	WriteToAddrPort(b []byte, to netip.AddrPort) (int, error)
} = (*Conn)(nil)

// Read is UDPConn's. Like the whole Read family it first takes what another
// read has read ahead, see [Conn.ReceiveMessages].
func (c *Conn) Read(b []byte) (n int, err error) {
	if len(b) == 0 {
		return c.udpConn.Read(b) // returns 0 and takes no datagram
	}
	for c.recv.enterNet() {
		n, err = c.udpConn.Read(b)
		if !c.recv.leaveNet(n, err) {
			return n, err
		}
	}
	n, _, err = c.recv.readFrom(b, byRead)
	return n, err
}

// ReadFrom is UDPConn's.
func (c *Conn) ReadFrom(b []byte) (int, net.Addr, error) {
	n, addr, err := c.ReadFromUDP(b)
	if addr == nil {
		return n, nil, err
	}
	return n, addr, err
}

// ReadFromUDP is UDPConn's.
func (c *Conn) ReadFromUDP(b []byte) (n int, addr *net.UDPAddr, err error) {
	for c.recv.enterNet() {
		n, addr, err = c.udpConn.ReadFromUDP(b)
		if !c.recv.leaveNet(n, err) {
			return n, addr, err
		}
	}
	return c.recv.readFromUDP(b)
}

// ReadFromUDPAddrPort is UDPConn's.
func (c *Conn) ReadFromUDPAddrPort(b []byte) (n int, addr netip.AddrPort, err error) {
	for c.recv.enterNet() {
		n, addr, err = c.udpConn.ReadFromUDPAddrPort(b)
		if !c.recv.leaveNet(n, err) {
			return n, addr, err
		}
	}
	return c.recv.readFrom(b, byRecvfrom)
}

// ReadMsgUDP is UDPConn's.
func (c *Conn) ReadMsgUDP(b, oob []byte) (n, oobn, flags int, addr *net.UDPAddr, err error) {
	n, oobn, flags, from, err := c.ReadMsgUDPAddrPort(b, oob)
	if from.IsValid() {
		addr = net.UDPAddrFromAddrPort(from)
	}
	return n, oobn, flags, addr, err
}

// ReadMsgUDPAddrPort is UDPConn's.
func (c *Conn) ReadMsgUDPAddrPort(b, oob []byte) (n, oobn, flags int, addr netip.AddrPort, err error) {
	for c.recv.enterNet() {
		n, oobn, flags, addr, err = c.udpConn.ReadMsgUDPAddrPort(b, oob)
		if !c.recv.leaveNet(n, err) {
			return max(n, 0), max(oobn, 0), flags, addr, err // net says -1 with some errors
		}
	}
	return c.recv.readMsg(b, oob)
}

// ReadFromAddrPort is [Conn.ReadFromUDPAddrPort] under the name that pion/ice
// looks for.
func (c *Conn) ReadFromAddrPort(b []byte) (int, netip.AddrPort, error) {
	return c.ReadFromUDPAddrPort(b)
}

// WriteToAddrPort is [Conn.WriteToUDPAddrPort] under the name that pion/ice
// looks for.
func (c *Conn) WriteToAddrPort(b []byte, to netip.AddrPort) (int, error) {
	return c.WriteToUDPAddrPort(b, to)
}

// ReadBatch has the shape of golang.org/x/net's PacketConn.ReadBatch, and takes
// its place. It is [Conn.ReceiveMessages] without a context: it waits for at
// least one datagram, with [MsgWaitAll] for all, and with [MsgDontWait] for
// none. It returns how many it read, and an error only if that is 0. It sets
// Addr (a *[net.UDPAddr], the same for neighbours that came from one address),
// N, NN and Flags of the messages that it filled. It waits under
// Config.NonBlocking too.
func (c *Conn) ReadBatch(ms []ipv4.Message, flags int) (int, error) {
	wait, all := flags&MsgDontWait == 0, flags&MsgWaitAll != 0
	a := getInAdopted(len(ms))
	n, used := 0, 0
	for {
		msgs := a.adopt(ms[n:])
		used = max(used, len(msgs))
		k, err := c.recv.many(nil, msgs, flags, wait && (n == 0 || all))
		a.giveBack(ms[n:], k, c.recv.isIPv6)
		if n += k; err == nil && k == len(msgs) && k > 0 && n < len(ms) {
			continue
		}
		a.free(used)
		if n > 0 {
			c.recv.addPending(err)
			return n, nil
		}
		return 0, c.recv.wrap(err)
	}
}

// The reads that are ours. They are functions of their own, not inlined, so
// that a goroutine that waits in one of net's reads needs no more stack than
// that read does.

//go:noinline
func (r *receiver) readFrom(b []byte, by netCall) (n int, from netip.AddrPort, err error) {
	got, err := r.readOurs(b, nil, by)
	return got.n, got.from, r.wrap(err)
}

//go:noinline
func (r *receiver) readFromUDP(b []byte) (int, *net.UDPAddr, error) {
	n, from, err := r.readFrom(b, byRecvfrom)
	if err != nil {
		return 0, nil, err
	}
	return n, newUDPAddr(from, r.isIPv6), nil
}

//go:noinline
func (r *receiver) readMsg(b, oob []byte) (n, oobn, flags int, from netip.AddrPort, err error) {
	got, err := r.readOurs(b, oob, byRecvmsg)
	if err != nil {
		got.from = r.zeroAddrPort() // as in net
	}
	return got.n, int(got.control), int(got.flags), got.from, r.wrap(err)
}

// readOurs reads one datagram: quickly if that can be, else as a Receive does.
func (r *receiver) readOurs(b, oob []byte, by netCall) (received, error) {
	if r.isQuick.Load() {
		if got, done, err := r.quickly(b, oob, by); done || err != nil {
			return got, err
		}
	}
	return r.one(nil, b, oob, 0, true, by)
}

// zeroAddrPort is the zero address of the socket's family.
func (r *receiver) zeroAddrPort() netip.AddrPort {
	if r.isIPv6 {
		return netip.AddrPortFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.AddrPortFrom(netip.IPv4Unspecified(), 0)
}

// enterNet reports whether a read may be package net's own. If so, leaveNet
// must follow it.
func (r *receiver) enterNet() bool {
	if r.ours.Load() || r.anyPending() {
		return false
	}
	r.net.begin()
	if r.ours.Load() { // since then
		r.net.fail()
		return false
	}
	return true
}

// leaveNet ends a read of net's own, and reports whether it must be done again.
func (r *receiver) leaveNet(n int, err error) (again bool) {
	if err != nil {
		r.net.fail()
		if again = r.queue.isNotUsers(err); again {
			runtime.Gosched() // to let the kicked caller go first
			r.queue.restore()
		}
		return again
	}
	done := r.net.end(n)
	if done >= netAddUp {
		r.mu.Lock()
		r.addNetLocked()
		r.mu.Unlock()
	}
	if done%lookEvery == 0 {
		r.lookForMore()
	}
	return false
}

// addNetLocked adds net's own reads to the others.
func (r *receiver) addNetLocked() {
	n, bytes := r.net.take()
	r.stats.received += n
	r.stats.bytes += bytes
	r.stats.calls += n
}

// netReads counts the reads that are package net's own. One word holds three
// counts, since each atomic operation weighs on so short a call: from the
// lowest bit, the reads under way, the reads done, and their bytes. The latter
// two are taken away long before they outgrow their bits.
type netReads struct{ word atomic.Uint64 }

const (
	netDoneShift  = 18 // fewer reads than 1<<18 are under way
	netBytesShift = 33 // fewer than 1<<15 are done and not taken
	netRead       = 1 << netDoneShift
	netByte       = 1 << netBytesShift

	// netAddUp is how many reads done are taken at a time.
	netAddUp = 32 * lookEvery
)

func (c *netReads) begin()        { c.word.Add(1) }
func (c *netReads) fail()         { c.word.Add(^uint64(0)) }
func (c *netReads) underWay() int { return int(c.word.Load() % netRead) }

// end counts a read of n bytes, and returns how many reads are done and not
// taken.
func (c *netReads) end(n int) (done uint64) {
	done, _ = netDone(c.word.Add(uint64(n)*netByte + netRead - 1))
	return done
}

// done is how many reads are done and not taken, and their bytes.
func (c *netReads) done() (done, bytes uint64) { return netDone(c.word.Load()) }

// take takes them away.
func (c *netReads) take() (done, bytes uint64) {
	word := c.word.Load()
	for !c.word.CompareAndSwap(word, word%netRead) {
		word = c.word.Load()
	}
	return netDone(word)
}

func netDone(word uint64) (done, bytes uint64) { return word % netByte / netRead, word / netByte }

// lookForMore looks whether the queue is deep, and if so ends net's own reads.
func (r *receiver) lookForMore() {
	if r.alwaysNet {
		return
	}
	o := r.newReading(0)
	o.look = true
	if r.obtainNow(o) != nil {
		o.free()
		return
	}
	if r.deepLooks++; r.deepLooks >= looksDeep {
		r.deepLooks = 0
		if r.turnOnLocked(); !r.ours.Load() { // it may not, or not yet
			r.startQuickLocked()
		}
	}
	r.release(o)
}

// A quickRead is how the Read family reads while the queue is deep and nothing
// coalesces. It makes one call to the kernel at once. It takes no place in
// line, and Go's scheduler is not told of the call. Where calls are dear the
// call brings a few datagrams more than the caller's, and they are held. A Conn
// has one quickRead for all of its reads, under the receiver's mu.
type quickRead struct {
	r          *receiver
	p, control []byte
	by         netCall

	errno syscall.Errno
	got   received // the caller's datagram

	isDear bool // calls are dear: read ahead
	ahead  int  // datagrams that the next call asks for, if it may read ahead

	receivedBefore uint64 // what the Conn had received when the queue was last found empty

	try func(fd uintptr) // attempt, bound once so that no read makes a closure
}

// A netCall is the system call of a method of the Read family.
type netCall uint8

const (
	byRead     netCall = iota // recvfrom(2) without an address
	byRecvfrom                // recvfrom(2)
	byRecvmsg                 // recvmsg(2)
)

// receive makes the call, which does not wait.
func (by netCall) receive(fd uintptr, p, control []byte, flags int, got *received) (errno syscall.Errno) {
	*got = received{}
	switch by {
	case byRead:
		got.n, errno = sys.Recvfrom(fd, p, flags, nil)
	case byRecvfrom:
		got.n, errno = sys.Recvfrom(fd, p, flags, &got.from)
	default:
		var controlLen, gotFlags int
		got.n, controlLen, gotFlags, got.from, errno = sys.Recvmsg(fd, p, control, flags)
		got.control, got.flags = int32(controlLen), int32(gotFlags)
	}
	return errno
}

// String is the call's name in errors, which is net's.
func (by netCall) String() string { return [...]string{"read", "recvfrom", "recvmsg"}[by] }

// startQuickLocked has the Read family read quickly until the queue is no
// longer deep.
func (r *receiver) startQuickLocked() {
	q := r.quick
	if q == nil {
		q = &quickRead{r: r}
		q.try = q.attempt
		r.quick = q
	}
	r.addNetLocked()
	q.ahead, q.receivedBefore = maxAhead, r.stats.received
	if q.isDear = r.areCallsDear(); q.isDear {
		r.gro.longControl, _ = callOnce(r.queue.ends.raw, sys.HasLongControl)
	}
	r.isQuick.Store(true)
	r.ours.Store(true)
}

// dearCall is how long a system call takes where reading ahead gains. The call
// that is measured is poll(2) of one descriptor, with a look at the clock.
// Reading ahead saves up to seven calls of eight. It costs the holding, a
// second copy, and what recvmmsg(2) does more for each message than
// recvfrom(2). Where nothing is in the way of calls a poll takes some 350 ns
// (an Intel Xeon of 2026), and there is little or nothing to gain. A
// processor's mitigations or a seccomp filter can make it microseconds.
const dearCall = 500 * time.Nanosecond

// fastestPoll is what measurePoll found, in ns; 0 until it has.
var fastestPoll atomic.Int64

// areCallsDear reports whether a system call takes dearCall or longer. The
// first in the process measures, on r's socket.
func (r *receiver) areCallsDear() bool {
	if fastestPoll.Load() == 0 {
		r.control(measurePoll)
	}
	return fastestPoll.Load() >= int64(dearCall)
}

// measurePoll takes the fastest of a few, since any can be interrupted. A poll
// takes nothing from the socket.
func measurePoll(fd uintptr) {
	fastest := time.Hour
	for range 8 {
		start := time.Now()
		sys.Readable(fd)
		fastest = min(fastest, time.Since(start))
	}
	fastestPoll.Store(max(1, int64(fastest)))
}

// judgeQuickLocked is called when the queue was found empty. Quick reads end if
// too few datagrams came since it last was.
func (r *receiver) judgeQuickLocked() {
	if !r.isQuick.Load() {
		return
	}
	came := r.stats.received - r.quick.receivedBefore
	if came == 0 {
		return // a read that found it empty looks again before it waits, and other reads do
	}
	r.quick.receivedBefore = r.stats.received
	if came < deepAfter {
		r.isQuick.Store(false)
	}
}

// mayBeQuick reports whether nothing goes before what the kernel has.
func (r *receiver) mayBeQuick(p []byte) bool {
	return !r.hasHeld.Load() && r.queue.state.Load() == unparked && len(p) > 0 && !r.anyPending()
}

// quickly reads a datagram that is there. If there is none and no error, the
// read has to wait, or to go another way.
func (r *receiver) quickly(p, control []byte, by netCall) (got received, done bool, err error) {
	if !r.mayBeQuick(p) {
		return got, false, nil
	}
	if err = r.queue.ends.check(nil); err != nil {
		return got, false, err
	}
	r.mu.Lock()
	q := r.quick
	if !r.isQuick.Load() || r.held != nil || r.isAware.Load() {
		r.mu.Unlock()
		return got, false, nil
	}
	q.p, q.control, q.by = p, control, by
	err = r.queue.ends.raw.Control(q.try)
	q.p, q.control = nil, nil
	switch {
	case err != nil:
		err = cause(err)
	case q.errno == sys.EWOULDBLOCK:
		r.emptyLocked()
		r.leaveToNetLocked()
	case q.errno != 0:
		err = os.NewSyscallError(by.String(), q.errno)
	default:
		got, done = q.got, true
	}
	leaves := r.leavesLocked()
	r.mu.Unlock()
	if leaves {
		r.queue.kick()
	}
	return got, done, err
}

// attempt makes the one call to the kernel, and counts what it brought.
func (q *quickRead) attempt(fd uintptr) {
	var n, bytes int
	if q.mayReadAhead() {
		n, bytes = q.readAhead(fd)
	} else {
		n, bytes = q.readOne(fd)
	}
	if q.errno != 0 {
		return
	}
	r := q.r
	r.stats.received += uint64(n)
	r.stats.bytes += uint64(bytes)
	q.ahead = fitsCache(n, bytes)
	r.noteLocked(fd, n, false)
}

// mayReadAhead reports whether the next call may take more than the caller's
// datagram. A read of package net's own that is under way would not see what is
// held. A run must not be cut once the user has set UDP_GRO, which a Control
// may be doing. What comes beside a datagram has to fit. Without a batch call
// there is nothing to gain.
func (q *quickRead) mayReadAhead() bool {
	r := q.r
	return q.isDear && r.net.underWay() == 0 &&
		!r.gro.userSet && r.gro.controls == 0 && !r.gro.longControl && !r.sender.noBatchCall.Load()
}

// readOne reads the caller's datagram and no other.
func (q *quickRead) readOne(fd uintptr) (n, bytes int) {
	q.r.stats.calls++
	q.errno = q.by.receive(fd, q.p, q.control, 0, &q.got)
	return 1, q.got.n
}

// readAhead reads the caller's datagram, and more, which it holds.
func (q *quickRead) readAhead(fd uintptr) (n, bytes int) {
	b := inBatches.Get().(*inBatch)
	b.readyAfter(q.p, q.control, q.ahead)
	var refused bool
	n, q.errno, refused = q.r.recvManyLocked(&b.in, fd, q.ahead, 0)
	switch {
	case refused: // recvfrom(2) may not be
		b.free()
		n, bytes = q.readOne(fd)
		q.r.noteRefusedLocked(q.errno)
		return n, bytes
	case q.errno != 0:
		b.free()
		return 0, 0
	}
	q.got.setFirst(&b.in)
	b.take(1, n, nil)
	bytes = q.got.n + b.bytes()
	if n == 1 {
		b.free()
	} else {
		q.r.holdLocked(b)
	}
	return n, bytes
}

// Read calls f as a RawConn does. f reads the socket itself, so coalescing and
// reading ahead end before the first f.
func (r userRawConn) Read(f func(fd uintptr) bool) error {
	r.recv.turnOff(reasonRaw)
	for q := &r.recv.queue; ; {
		before := q.kicks.Load()
		if err := r.RawConn.Read(f); !q.isKick(err, before) {
			return err
		}
	}
}

// Control calls f as a RawConn does.
func (r userRawConn) Control(f func(fd uintptr)) error {
	err := r.recv.userControl(r.RawConn, f)
	r.send.gso.stale.Store(true)
	return err
}

const (
	reasonRaw  = "the socket is read through SyscallConn"
	reasonFile = "the socket is also a File"
)

var _ syscall.RawConn = userRawConn{}
