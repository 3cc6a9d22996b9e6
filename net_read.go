// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"net"
	"net/netip"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"

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

// ReadBatch is [Conn.ReceiveMessages] without a context in the shape of
// golang.org/x/net's PacketConn.ReadBatch, and takes its place: it waits for at
// least one datagram, or for all with [MsgWaitAll], unless flags hold
// [MsgDontWait], and returns how many it read, and an error only if none. It
// sets Addr (a *[net.UDPAddr], the same for neighbours that came from one
// address), N, NN and Flags of the messages that it filled. It waits under
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
	if r.isQuick.Load() {
		q, err := r.quickly(b, nil, by)
		if err != nil {
			return 0, from, r.wrap(err)
		}
		if q != nil {
			if n = q.n; by == byRecvfrom {
				from = q.name.AddrPort()
			}
			r.mu.Unlock()
			return n, from, nil
		}
	}
	got, err := r.one(nil, b, nil, 0, true, by.String())
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
	got, done, err := r.readMsgQuickly(b, oob)
	if !done {
		got, err = r.one(nil, b, oob, 0, true, byRecvmsg.String())
	}
	if err != nil {
		got.from = r.zeroAddrPort() // as in net
	}
	return got.n, got.control, got.flags, got.from, r.wrap(err)
}

func (r *receiver) readMsgQuickly(b, oob []byte) (got received, done bool, err error) {
	if !r.isQuick.Load() {
		return got, false, nil
	}
	q, err := r.quickly(b, oob, byRecvmsg)
	if q != nil {
		got = q.msg
		r.mu.Unlock()
	}
	return got, q != nil || err != nil, err
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
	if r.net.end(n)%lookEvery == 0 {
		r.lookForMore()
	}
	return false
}

// netReads counts the reads that are package net's own. One word holds three
// counts, since each atomic operation weighs on so short a call: from the
// lowest bit, the reads under way, the reads done, and their bytes. The latter
// two are added up elsewhere long before they are too large for their bits.
type netReads struct {
	word atomic.Uint64

	mu          sync.Mutex
	done, bytes uint64
}

const (
	netDoneShift  = 18 // fewer reads than 1<<18 are under way
	netBytesShift = 33 // fewer than 1<<15 are done and not added up
	netRead       = 1 << netDoneShift
	netByte       = 1 << netBytesShift

	// netAddUp is how many reads are added up at a time.
	netAddUp = 32 * lookEvery
)

func (c *netReads) begin()        { c.word.Add(1) }
func (c *netReads) fail()         { c.word.Add(^uint64(0)) }
func (c *netReads) underWay() int { return int(c.word.Load() % netRead) }

// end counts a read of n bytes, and returns how many reads were done since they
// were added up.
func (c *netReads) end(n int) (done uint64) {
	word := c.word.Add(uint64(n)*netByte + netRead - 1)
	if done = word % netByte / netRead; done >= netAddUp {
		c.total()
	}
	return done
}

// total adds up the reads done and their bytes, and returns both sums.
func (c *netReads) total() (done, bytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	word := c.word.Load()
	for !c.word.CompareAndSwap(word, word%netRead) {
		word = c.word.Load()
	}
	c.done += word % netByte / netRead
	c.bytes += word / netByte
	return c.done, c.bytes
}

// lookForMore looks whether the queue is deep, and if so ends net's own reads.
func (r *receiver) lookForMore() {
	if r.direct {
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
// coalesces: by one call to the kernel, made at once, without a place in line,
// and without what it costs to tell Go's scheduler of a system call. A Conn has
// one for all of its reads, under the receiver's mu. What it reads is the
// caller's at once, so nothing is held, and no other read has to be kicked.
type quickRead struct {
	r          *receiver
	p, control []byte
	by         netCall

	errno syscall.Errno
	n     int
	name  sys.Name
	in    sys.InMessages // of one message, for recvmsg(2)
	msg   received       // what came in it

	found  int32 // datagrams since the queue was found empty
	judged bool  // the next that finds it empty is this read again, which now waits

	try func(fd uintptr) // attempt
}

// A netCall is the system call of a method of the Read family.
type netCall uint8

const (
	byRead     netCall = iota // recvfrom(2), but not for the address
	byRecvfrom                // recvfrom(2)
	byRecvmsg                 // recvmsg(2)
)

// String is the call's name in errors, which is net's.
func (by netCall) String() string { return [...]string{"read", "recvfrom", "recvmsg"}[by] }

func (r *receiver) startQuickLocked() {
	if r.quick == nil {
		r.quick = &quickRead{r: r}
		r.quick.try = r.quick.attempt
	}
	r.quick.found = 0
	r.isQuick.Store(true)
	r.ours.Store(true)
}

// quickLocked is called when the queue was found empty: if it was not deep,
// quick reads end.
func (r *receiver) quickLocked() {
	if !r.isQuick.Load() {
		return
	}
	q := r.quick
	if q.judged {
		q.judged = false
		return
	}
	if q.found < deepAfter {
		r.isQuick.Store(false)
	}
	q.found = 0
}

// quickly reads a datagram that is there. It returns with r.mu locked, for the
// caller to look at what came. If it returns nil and no error, the read has to
// wait, or to go another way.
func (r *receiver) quickly(p, control []byte, by netCall) (*quickRead, error) {
	if r.hasHeld.Load() || r.queue.state.Load() != unparked || len(p) == 0 || r.anyPending() {
		return nil, nil // there is something held, or a read that waits was here before
	}
	if err := r.queue.ends.check(nil); err != nil {
		return nil, err
	}
	r.mu.Lock()
	q := r.quick
	if !r.isQuick.Load() || r.held != nil || r.isAware.Load() {
		r.mu.Unlock()
		return nil, nil
	}
	q.p, q.control, q.by = p, control, by
	err := r.queue.ends.raw.Control(q.try)
	q.p, q.control = nil, nil
	switch {
	case err != nil:
		err = cause(err)
	case q.errno == sys.EWOULDBLOCK:
		r.emptyQuicklyLocked()
	case q.errno != 0:
		err = os.NewSyscallError(by.String(), q.errno)
	default:
		return q, nil
	}
	r.mu.Unlock()
	return nil, err
}

// emptyQuicklyLocked is called when a quick read found the queue empty.
func (r *receiver) emptyQuicklyLocked() {
	r.quick.judged = false
	r.emptyLocked()
	r.quick.judged = true
	r.leaveToNetLocked()
}

// attempt makes the call.
func (q *quickRead) attempt(fd uintptr) {
	q.r.stats.calls++
	switch q.by {
	case byRead:
		q.n, q.errno = sys.Recvfrom(fd, q.p, 0, nil)
	case byRecvfrom:
		q.n, q.errno = sys.Recvfrom(fd, q.p, 0, &q.name)
	default:
		q.in.Reset(1, 1)
		q.in.AddOne(q.p, q.control)
		_, q.errno = q.in.RecvOne(fd, 0)
		q.msg.n, q.msg.control, q.msg.flags = q.in.Got(0)
		q.msg.from = q.in.From(0)
		q.in.Forget()
		q.n = q.msg.n
	}
	if q.errno != 0 {
		return
	}
	q.r.stats.received++
	q.r.stats.bytes += uint64(q.n)
	q.found++
	q.r.noteLocked(fd, 1, false)
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
