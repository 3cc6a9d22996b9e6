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
	"weak"

	"github.com/batchconn/batchconn/internal/sys"
)

// privateReceiveFlags are those that the kernel must not see.
const privateReceiveFlags = MsgWaitAll | sys.PrivateFlags

// Receiving.
//
// A read takes what is held, else makes one call to the kernel, else waits.
// What is held was read ahead: the rest of a run, and while the queue is deep
// the messages after it.
//
// All of it happens under one mutex, which nobody holds while waiting: the look
// at what is held, the call to the kernel, and the taking of what it brought.
// So no datagram is in nobody's hands, and the order is the kernel's. The
// interleavings that matter are those of looking and leaving:
//
//   - A read that has the place marks itself parked, looks at what is held and
//     at the kernel's queue under the mutex, and parks. A read that passes by
//     the queue (one that may not wait) and leaves something held unlocks the
//     mutex and then kicks. If it left before the look, the look finds it; if
//     after, the mark was there, and the kick ends the parking, which looks
//     again.
//   - A read that has the place and leaves something held gives the place to
//     the next in line, which looks before it parks.
//   - An arrival wakes through the poller. Nothing is owed to a parked read if
//     another read has taken what arrived and left nothing held.
//   - A read that is kicked because its context is done may find something held
//     as well. It leaves it, and the place, to the next in line.
//   - A quick read (quickRead) passes by the queue, like a read that may not
//     wait, and kicks as that does. A read that begins while one is parked is
//     not quick.

const (
	// The queue is taken to be deep once reads got deepAfter datagrams in a row
	// without waiting, and there is still one, or the last call brought deepCall.
	deepAfter = 8
	deepCall  = 4

	// pausedFor is how many datagrams, while coalescing pauses, are read before
	// the clock is asked again whether it still does.
	pausedFor = 256

	// quietAfter is how many kernel messages without a run show that coalescing
	// brings nothing. Then it goes off again, since reading for it costs
	// something.
	quietAfter = 512

	// One in lookEvery reads of net's own looks whether there is more, and
	// looksDeep looks in a row must find something. lookEvery is a prime, so that
	// bursts of whatever size are not looked at only where they end.
	lookEvery = 31
	looksDeep = 2

	// cacheSize is how much reading ahead may bring at once if the messages are
	// long: what is copied out soon is best still in the processor's cache.
	cacheSize = 1 << 17
)

// A receiver is the receiving half of a Conn.
type receiver struct {
	queue  readQueue
	sender *sender // for what both directions share: pending errors, the batch call, names in errors
	cookie uint64  // of the socket, see shareSocket
	next   weak.Pointer[receiver]

	isIPv6      bool
	nonBlocking bool
	alwaysNet   bool // the Read family is always package net's: nothing is ever held
	full        bool // under mu: the last aware call brought as many as it asked for
	runs        bool // under mu: the last aware call brought a run

	quick *quickRead // under mu; nil if it never was used

	unreturned pendingErrors // errors of reads that returned datagrams instead

	net   netReads     // the reads that are package net's own; while any is under way, coalescing may not go on
	retry atomic.Int64 // since epoch: when coalescing may go on again

	// These change with mu, and are read without. While ours is false the Read
	// family is package net's own, which it is until the queue is found deep.
	ours    atomic.Bool
	hasHeld atomic.Bool // held is not nil
	isAware atomic.Bool // runs can come: reads go into blocks, and are cut
	isQuick atomic.Bool // the Read family may read quickly, if it is not aware

	asked atomic.Int32 // twice what the last plain batch call brought; a guess, which nothing guards

	mu         sync.Mutex // held while working, never while waiting
	depth      int32      // datagrams in a row that were there already
	ahead      int32      // kernel messages to ask for while aware
	quiet      int32      // kernel messages since the last run
	empties    int32      // how often since then the queue was found empty
	deepLooks  int32      // how often in a row a look found something
	held, last *inBatch   // read ahead, oldest first
	gro        gro
	stats      receiveCounters
}

func (r *receiver) init(c *net.UDPConn, raw syscall.RawConn, isIPv6 bool, cfg *Config, s *sender) {
	r.sender, r.isIPv6, r.nonBlocking = s, isIPv6, cfg.NonBlocking
	r.queue.init(c, raw)
	r.initGRO(cfg.GRO)
}

// close drops what is held, as the kernel drops its queue.
func (r *receiver) close() {
	r.queue.close()
	r.mu.Lock()
	r.dropLocked()
	r.mu.Unlock()
	r.unshareSocket()
}

// addStats adds the receiving half.
func (r *receiver) addStats(st *Stats) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.gro.probed && r.gro.off == "" && !r.gro.on {
		r.probeLocked()
	}
	r.control(func(fd uintptr) {
		_, drops := sys.SocketMemory(fd)
		st.Dropped = uint64(drops)
	})
	n, bytes := r.net.done() // and left there: they count the reads to the next look
	st.Received, st.ReceivedBytes = r.stats.received+n, r.stats.bytes+bytes
	st.ReceiveCalls, st.Coalesced = r.stats.calls+n, r.stats.coalesced
	st.GROReason = r.gro.disabledReason()
	st.GRO = st.GROReason == ""
}

// receiveCounters are written under the receiver's mu.
type receiveCounters struct {
	received, bytes, calls, coalesced uint64
}

// A reading is one read of the user's on its way to the kernel; pooled, so that
// none makes a closure.
type reading struct {
	r     *receiver
	flags int32
	tries int32

	past    bool // go to the kernel past what is held
	look    bool // only look whether there is something
	several bool // there is room for more than one datagram
	plain   bool // what came is in the user's buffers, and not held
	again   bool // it was made ready for aware reads, which ended meanwhile: begin again
	inLine  bool // it has the place

	by      netCall   // the system call of a read of one datagram
	p       [1][]byte // room for that; an array, so that direct makes no slice
	control []byte
	got     received

	batch *readBatch // of a read of messages, else nil

	errno syscall.Errno
	try   func(fd uintptr) bool // attempt
}

// A readBatch is where a read of messages receives.
type readBatch struct {
	in     sys.InMessages
	n      int           // how many of in are filled
	direct [][]byte      // buffers of the user's for the first messages, while aware
	long   *InputMessage // has more vectors than the kernel takes, and is read alone
}

var (
	readings      = sync.Pool{New: func() any { return makeReading(nil) }}
	batchReadings = sync.Pool{New: func() any { return makeReading(new(readBatch)) }}
)

func makeReading(b *readBatch) *reading {
	o := &reading{batch: b}
	o.try = o.attempt
	return o
}

// wait waits, with the place, until there is something for o.
func (o *reading) wait() error {
	if !sys.Receives && !o.look {
		return o.readNet()
	}
	return o.r.queue.ends.raw.Read(o.try)
}

// newReading is for a read of one datagram, or for a look.
func (r *receiver) newReading(flags int) *reading { return r.prepare(&readings, flags) }

// newBatchReading is for a read of messages.
func (r *receiver) newBatchReading(flags int) *reading { return r.prepare(&batchReadings, flags) }

func (r *receiver) prepare(pool *sync.Pool, flags int) *reading {
	o := pool.Get().(*reading)
	o.r, o.flags = r, int32(flags)
	o.past = isErrQueue(flags)
	return o
}

// free puts o back without anything of the user's in it.
func (o *reading) free() {
	o.r, o.tries, o.errno, o.got = nil, 0, 0, received{}
	o.look, o.several, o.plain, o.again, o.inLine = false, false, false, false, false
	b := o.batch
	if b == nil {
		o.p[0], o.control = nil, nil
		readings.Put(o)
		return
	}
	b.in.Forget()
	clear(b.direct)
	b.n, b.direct, b.long = 0, b.direct[:0], nil
	batchReadings.Put(o)
}

// direct are buffers of the user's for the first messages.
func (o *reading) direct() [][]byte {
	switch {
	case o.flags&sys.MsgPeek != 0:
		return nil
	case o.batch == nil:
		return o.p[:]
	}
	return o.batch.direct
}

// obtain returns with r.mu locked once there is something for o: held, or in
// the user's buffers, or an error of the kernel's in o.errno. If it returns an
// error, r.mu is not locked.
func (r *receiver) obtain(ctx context.Context, o *reading, wait bool) error {
	if !wait {
		if err := r.queue.ends.check(ctx); err != nil {
			return err
		}
		return r.obtainNow(o)
	}
	if err := r.queue.ends.open(ctx); err != nil { // RawConn.Read looks at the deadline
		return err
	}
	if _, err := r.queue.line.enter(ctx, &r.queue.ends); err != nil {
		return err
	}
	if err := r.queue.park(ctx, o); err != nil {
		r.queue.line.leave(false)
		return err
	}
	o.inLine = true
	return nil
}

// obtainNow is obtain that does not wait.
func (r *receiver) obtainNow(o *reading) error {
	if !sys.Receives {
		in := false
		if err := r.queue.ends.raw.Control(func(fd uintptr) { in, _ = sys.Readable(fd) }); err != nil {
			return cause(err)
		}
		if !in {
			return ErrWouldBlock
		}
		return o.readNet() // which would wait if another took the datagram meanwhile
	}
	done, err := callOnce(r.queue.ends.raw, o.try)
	switch {
	case err != nil:
		return cause(err)
	case !done:
		return ErrWouldBlock
	}
	return nil
}

// readNet reads a datagram by package net, for systems where we cannot.
func (o *reading) readNet() error {
	if o.flags != 0 {
		return os.NewSyscallError("recvmsg", errors.ErrUnsupported)
	}
	var in *sys.InMessages
	if o.batch != nil {
		in, o.batch.n = &o.batch.in, 1
	} else {
		in = new(sys.InMessages)
		in.AddOne(o.p[0], o.control)
	}
	if err := in.ReadNet(o.r.queue.conn); err != nil {
		return err
	}
	o.got.setFirst(in)
	n := o.got.n
	o.r.mu.Lock()
	o.plain = true
	o.r.stats.calls++
	o.r.stats.received++
	o.r.stats.bytes += uint64(n)
	return nil
}

// release ends what obtain began.
func (r *receiver) release(o *reading) {
	leaves := r.leavesLocked()
	if !leaves {
		r.leaveToNetLocked()
	}
	r.mu.Unlock()
	if o.inLine {
		r.queue.line.leave(false)
	} else if leaves {
		r.queue.kick()
	}
	o.free()
}

// leavesLocked ends a read, and reports whether it leaves something held. After
// Close it drops that.
func (r *receiver) leavesLocked() bool {
	if r.held != nil && r.queue.ends.closed.Load() {
		r.dropLocked() // Close came in between
	}
	return r.held != nil
}

// leaveToNetLocked gives the Read family back to package net, unless reads are
// aware or quick, or coalescing is about to go on. Nothing may be held.
func (r *receiver) leaveToNetLocked() {
	if !r.isAware.Load() && !r.gro.wanted && !r.isQuick.Load() {
		r.ours.Store(false)
	}
}

// attempt looks for something for o, and returns with r.mu locked if there is.
func (o *reading) attempt(fd uintptr) bool {
	r := o.r
	o.tries++
	o.errno, o.again = 0, false
	r.mu.Lock()
	switch {
	case o.look:
		if r.held != nil || r.readyLocked(fd) {
			return true
		}
		r.deepLooks = 0
	case r.held != nil && !o.past:
		o.plain = false
		return true
	default:
		if o.errno = r.callLocked(fd, o); o.errno != sys.EWOULDBLOCK {
			return true
		}
		if !o.past {
			r.emptyLocked()
		}
	}
	r.mu.Unlock()
	return false
}

// emptyLocked is called when the kernel's queue was found empty.
func (r *receiver) emptyLocked() {
	r.quietLocked(0, true)
	r.judgeQuickLocked()
	r.depth, r.ahead, r.gro.wanted = min(r.depth, 0), 1, false
	if r.gro.settled {
		r.gro.settled = false
		r.isAware.Store(false)
	}
}

// callLocked makes one call to the kernel.
func (r *receiver) callLocked(fd uintptr, o *reading) syscall.Errno {
	if r.isAware.Load() && !o.past {
		o.plain = false
		return r.readAheadLocked(fd, o)
	}
	o.plain = true
	var errno syscall.Errno
	datagrams, bytes := 1, 0
	switch m := o.batch; {
	case m == nil:
		r.stats.calls++
		errno = o.by.receive(fd, o.p[0], o.control, int(o.flags), &o.got)
		bytes = min(o.got.n, len(o.p[0]))
	case m.long != nil:
		m.n = 1
		r.stats.calls++
		bytes, errno = m.readLong(fd, int(o.flags))
	case m.in.Len() == 0:
		o.again = true
		return 0
	default:
		m.n, errno = r.recvLocked(&m.in, fd, m.in.Len(), int(o.flags))
		datagrams = m.n
		for i := range m.n {
			n, _, _ := m.in.Got(i)
			bytes += n
		}
	}
	if errno != 0 {
		return errno
	}
	if !o.past && o.flags&sys.MsgPeek == 0 {
		r.stats.received += uint64(datagrams)
		r.stats.bytes += uint64(bytes)
		r.noteLocked(fd, datagrams, o.tries > 1)
	}
	return 0
}

// readLong reads the message that has more vectors than the kernel takes, and
// says how much went into them. It goes through a block, which it takes from
// the pool for this one call.
func (m *readBatch) readLong(fd uintptr, flags int) (n int, errno syscall.Errno) {
	b := inBatches.Get().(*inBatch)
	defer b.free()
	room := b.block(0)
	var got received
	if errno = byRecvmsg.receive(fd, room, m.long.Control, flags, &got); errno != 0 {
		return 0, errno
	}
	c := coalesced{flags: int(got.flags)}
	c.init(room[:min(got.n, blockSize)], 0)
	n = c.fill(m.long, flags)
	m.long.ControlReceived, m.long.Addr = int(got.control), unmapped(got.from)
	return n, 0
}

// readAheadLocked receives into blocks, and holds what comes. As long as no
// runs come, it receives straight into the user's buffers instead of the first
// blocks: then this read takes those messages, and none is copied.
func (r *receiver) readAheadLocked(fd uintptr, o *reading) syscall.Errno {
	n := int(max(r.ahead, 1))
	if o.several && !r.sender.noBatchCall.Load() {
		n = max(n, 2) // a call that comes back with less has found the end, and spares the call that would
	}
	// Others may read the socket, and what is held is not for them; or more may
	// come beside a datagram than each has room for.
	alone := r.gro.off != "" || r.gro.controls > 0 || r.gro.longControl
	if alone {
		n = 1
	}
	var direct [][]byte
	if !r.runs {
		direct = o.direct()
	}
	b := inBatches.Get().(*inBatch)
	b.longRoom = alone
	b.ready(n, direct)
	k, errno := r.recvLocked(&b.in, fd, n, int(o.flags)&^(sys.MsgPeek|sys.MsgTrunc))
	if errno != 0 {
		b.free()
		return errno
	}
	b.take(0, k, direct)
	if r.runs = b.runs; r.runs {
		r.quiet, r.empties, r.gro.pause, r.gro.brought = 0, 0, 0, true
	} else {
		r.quietLocked(k, k < n)
	}
	datagrams := r.countLocked(b)
	r.holdLocked(b)
	r.noteLocked(fd, datagrams, o.tries > 1)
	r.aheadLocked(b, k == n)
	if r.gro.settled {
		if in, _ := sys.Readable(fd); !in {
			r.emptyLocked()
		}
	}
	return 0
}

// quietLocked is called when a call brought k messages and no run. empty says
// that the queue was empty after them.
func (r *receiver) quietLocked(k int, empty bool) {
	r.quiet += int32(k)
	if !empty {
		return
	}
	if r.empties++; r.quiet >= quietAfter {
		r.settleLocked()
	}
}

// countLocked counts what b brought.
func (r *receiver) countLocked(b *inBatch) (datagrams int) {
	for i := range b.messages[:b.n] {
		m := &b.messages[i]
		datagrams += m.left
		if m.run {
			r.stats.coalesced += uint64(m.left)
		}
	}
	r.stats.received += uint64(datagrams)
	r.stats.bytes += uint64(b.bytes())
	return datagrams
}

// holdLocked holds b after what is held.
func (r *receiver) holdLocked(b *inBatch) {
	if r.held == nil {
		r.held = b
		r.hasHeld.Store(true)
	} else {
		r.last.next = b
	}
	r.last = b
}

// aheadLocked decides how many messages the next call asks for: more while
// calls come back full, as long as they are short.
func (r *receiver) aheadLocked(b *inBatch, full bool) {
	r.full = full
	if !full {
		r.ahead = int32(b.n)
		return
	}
	r.ahead = int32(min(2*b.n, fitsCache(b.n, b.bytes())))
}

// fitsCache is how many messages, of the mean length of n that had so many
// bytes, fit into cacheSize: from 1 to maxAhead.
func fitsCache(n, bytes int) int { return max(1, min(maxAhead, cacheSize*n/max(1, bytes))) }

// recvLocked makes the system call. A kernel or a seccomp filter that refuses
// the batch call and takes the single one is not asked for batches again.
func (r *receiver) recvLocked(in *sys.InMessages, fd uintptr, n, flags int) (int, syscall.Errno) {
	refused := false
	if n > 1 && !r.sender.noBatchCall.Load() {
		var k int
		var errno syscall.Errno
		if k, errno, refused = r.recvManyLocked(in, fd, n, flags); !refused {
			return k, errno
		}
	}
	r.stats.calls++
	k, errno := in.RecvOne(fd, flags)
	if refused {
		r.noteRefusedLocked(errno)
	}
	return k, errno
}

// recvManyLocked makes the batch call. If that is refused, nothing was
// received. Then the caller makes a single call, and tells noteRefusedLocked
// how it ended.
func (r *receiver) recvManyLocked(in *sys.InMessages, fd uintptr, n, flags int) (k int, errno syscall.Errno, refused bool) {
	r.stats.calls++
	k, errno = in.Recv(fd, n, flags)
	return k, errno, errno != 0 && errno != sys.EWOULDBLOCK && in.Refused(fd, errno)
}

// noteRefusedLocked notes how the single call ended after the batch call was
// refused.
func (r *receiver) noteRefusedLocked(errno syscall.Errno) {
	if errno == 0 || errno == sys.EWOULDBLOCK {
		r.sender.noBatchCall.Store(true)
	}
}

// noteLocked notes that a call brought datagrams, and whether it waited for the
// first. A caller that asks and answers may find each answer there already, but
// nothing after it.
func (r *receiver) noteLocked(fd uintptr, datagrams int, waited bool) {
	if r.gro.on || !r.gro.mayCome() {
		return
	}
	if waited {
		r.depth = min(r.depth, 0)
		datagrams--
	}
	if r.depth += int32(datagrams); r.depth < deepAfter {
		return
	}
	r.depth = 0
	if r.isPaused() {
		r.depth = -pausedFor
		return
	}
	if datagrams < deepCall {
		if in, _ := sys.Readable(fd); !in {
			return
		}
	}
	r.turnOnLocked()
}

// dropFirstLocked drops the first message that is held, once its datagrams are
// taken. It may refer to a buffer of the user's.
func (r *receiver) dropFirstLocked() {
	b := r.held
	b.messages[b.at] = coalesced{}
	if b.at++; b.at < b.n {
		return
	}
	if r.held = b.next; r.held == nil {
		r.last = nil
		r.hasHeld.Store(false)
	}
	b.free()
}

// dropLocked drops all that is held.
func (r *receiver) dropLocked() {
	for b := r.held; b != nil; {
		next := b.next
		b.free()
		b = next
	}
	r.held, r.last = nil, nil
	r.hasHeld.Store(false)
}

// A received is what a read of one datagram returns.
type received struct {
	n              int
	control, flags int32          // so that a reading, which a reader that waits keeps, is one size class smaller
	from           netip.AddrPort // in the form of the socket's family
}

// setFirst sets got to the first message of in.
func (got *received) setFirst(in *sys.InMessages) {
	n, control, flags := in.Got(0)
	*got = received{n, int32(control), int32(flags), in.From(0)}
}

// one reads one datagram, as the system call by does. Only recvmsg tells
// control data and flags.
func (r *receiver) one(ctx context.Context, p, control []byte, flags int, wait bool, by netCall) (received, error) {
	if r.hasHeld.Load() && flags&^(sys.MsgPeek|sys.MsgTrunc|MsgDontWait) == 0 && !r.anyPending() {
		if err := r.queue.ends.check(ctx); err != nil {
			return received{}, err
		}
		r.mu.Lock()
		if r.held != nil {
			got := r.takeOneLocked(p, control, flags)
			r.mu.Unlock()
			return got, nil
		}
		r.mu.Unlock()
	}
	return r.oneSlowly(ctx, p, control, flags, wait, by)
}

// oneSlowly is one where nothing is held.
func (r *receiver) oneSlowly(ctx context.Context, p, control []byte, flags int, wait bool, by netCall) (received, error) {
	if err := r.takePending(ctx, flags); err != nil {
		return received{}, err
	}
	o := r.newReading(flags &^ privateReceiveFlags)
	o.by, o.p[0], o.control = by, p, control
	if err := r.obtain(ctx, o, wait && !o.past); err != nil {
		o.free()
		return received{}, err
	}
	var got received
	var err error
	switch {
	case o.errno != 0:
		err = os.NewSyscallError(by.String(), o.errno)
	case !o.plain:
		got = r.takeOneLocked(p, control, flags)
	default:
		got = o.got
	}
	r.release(o)
	return got, err
}

// takeOneLocked takes the first datagram that is held.
func (r *receiver) takeOneLocked(p, control []byte, flags int) (got received) {
	m := r.held.first()
	d := m.first()
	gotFlags, controlLen := m.flags, 0
	got.n, got.from = len(d), m.from
	if !isAt(d, p) {
		got.n = copy(p, d)
	}
	if got.n < len(d) {
		gotFlags |= MsgTruncated
		if flags&sys.MsgTrunc != 0 {
			got.n = len(d)
		}
	}
	if len(m.control) > 0 {
		controlLen = m.fillControl(control, &gotFlags)
	}
	got.control, got.flags = int32(controlLen), int32(gotFlags)
	if flags&sys.MsgPeek == 0 {
		if m.drop(); m.left == 0 {
			r.dropFirstLocked()
		}
	}
	return got
}

// many reads into messages. It returns an error, of the system call or what
// ended the waiting, only if it filled none; one that would be lost becomes
// pending.
func (r *receiver) many(ctx context.Context, msgs []InputMessage, flags int, wait bool) (n int, err error) {
	if err := r.queue.ends.open(ctx); err != nil {
		return 0, err
	}
	if len(msgs) == 0 {
		return 0, nil
	}
	if err := r.takePending(ctx, flags); err != nil {
		return 0, err
	}
	all := flags&MsgWaitAll != 0 && wait
	if flags&sys.MsgPeek != 0 {
		msgs = msgs[:1] // the kernel would show the same in each
	}
	if isErrQueue(flags) {
		wait, all = false, false // that queue is never waited for
	}
	for {
		k, more, err := r.some(ctx, msgs[n:], flags, wait && (n == 0 || all))
		n += k
		switch {
		case err != nil && n > 0:
			r.addPending(err)
			return n, nil
		case err != nil:
			return 0, err
		case n == len(msgs) || !more && !all:
			return n, nil
		}
	}
}

// addPending has the next call return err if the kernel may have forgotten it
// by telling it.
func (r *receiver) addPending(err error) {
	if err == nil {
		return
	}
	var errno syscall.Errno
	switch {
	case isToldOnce(err):
		r.sender.pending.add(ended(err))
	case errors.As(err, &errno) && errno != sys.EWOULDBLOCK:
		r.unreturned.add(ended(err))
	}
}

func (r *receiver) anyPending() bool {
	return r.queue.ends.raw != nil && (r.sender.pending.any() || r.unreturned.any())
}

// takePending removes an error that an earlier call had no way to return,
// unless the call cannot go on, as in net, or is one for the socket's queue of
// errors.
func (r *receiver) takePending(ctx context.Context, flags int) error {
	if !r.anyPending() || isErrQueue(flags) {
		return nil
	}
	if err := r.queue.ends.check(ctx); err != nil {
		return err
	}
	if o := r.sender.pending.take(); o.err != nil {
		return o.err
	}
	return r.unreturned.take().err
}

// isErrQueue reports whether flags ask for the socket's queue of errors.
func isErrQueue(flags int) bool { return sys.MsgErrQueue != 0 && flags&sys.MsgErrQueue != 0 }

// some reads what there is with one call to the kernel at most. more says that
// there may be more.
func (r *receiver) some(ctx context.Context, msgs []InputMessage, flags int, wait bool) (n int, more bool, err error) {
	if r.hasHeld.Load() && !isErrQueue(flags) {
		if err := r.queue.ends.check(ctx); err != nil {
			return 0, false, err
		}
		r.mu.Lock()
		n = r.takeLocked(msgs, flags)
		r.mu.Unlock()
		if n > 0 {
			return n, true, nil
		}
	}
	o := r.newBatchReading(flags &^ privateReceiveFlags)
	o.several = len(msgs) > 1
	m := o.batch
	if o.past || !r.isAware.Load() {
		m.add(msgs[:r.asks(len(msgs))])
	} else {
		m.addDirect(msgs)
	}
	if err := r.obtain(ctx, o, wait); err != nil {
		o.free()
		return 0, false, err
	}
	switch {
	case o.errno != 0:
		err = os.NewSyscallError("recvmsg", o.errno)
	case o.again:
		more = true
	case o.plain:
		n, more = m.n, m.long != nil || sys.Receives && m.n == m.in.Len() // else a look for more may wait
		if m.long == nil {
			r.asked.Store(int32(2 * n))
			m.give(msgs[:n])
		}
	default:
		n = r.takeLocked(msgs, flags)
		more = r.full
	}
	r.release(o)
	return n, more, err
}

// asks is how many messages a plain call asks for where there is room for so
// many: one where a call brings no more, which then says nothing about the
// rest.
func (r *receiver) asks(room int) int {
	if r.sender.noBatchCall.Load() {
		return 1
	}
	return min(room, max(minPlain, int(r.asked.Load())))
}

// takeLocked puts what is held into messages, as far as either goes.
func (r *receiver) takeLocked(msgs []InputMessage, flags int) (n int) {
	for n < len(msgs) && r.held != nil {
		b := r.held
		m := b.first()
		if flags&sys.MsgPeek != 0 {
			m.fill(&msgs[0], flags)
			msgs[0].Addr = unmapped(m.from)
			return 1
		}
		n += m.take(msgs[n:], flags)
		if m.left == 0 {
			r.dropFirstLocked()
		}
	}
	return n
}

// add adds as many of msgs as one call takes.
func (m *readBatch) add(msgs []InputMessage) {
	if isLong(&msgs[0]) {
		m.long = &msgs[0]
		return
	}
	msgs = msgs[:min(len(msgs), maxPlain)]
	n, vectors := 0, 0
	for n < len(msgs) && vectors < sys.MaxVectors && !isLong(&msgs[n]) {
		vectors += max(1, len(msgs[n].Vectors))
		n++
	}
	m.in.Reset(n, vectors)
	for i := range msgs[:n] {
		m.in.Add(msgs[i].Vectors, msgs[i].Control)
	}
}

// isLong reports whether m has more vectors than the kernel takes.
func isLong(m *InputMessage) bool { return sys.Receives && len(m.Vectors) > sys.MaxVectors }

// addDirect adds those of msgs, from the first, that can be received into while
// aware: of one vector each, since what they get may have to be moved, and not
// overlapping, since until then all of it must be there.
func (m *readBatch) addDirect(msgs []InputMessage) {
	for i := range msgs[:min(len(msgs), maxAhead)] {
		if len(msgs[i].Vectors) != 1 {
			return
		}
		v := msgs[i].Vectors[0]
		for _, w := range m.direct {
			if overlap(v, w) {
				return
			}
		}
		m.direct = append(m.direct, v)
	}
}

// give says in msgs what the kernel put into them.
func (m *readBatch) give(msgs []InputMessage) {
	for i := range msgs {
		to := &msgs[i]
		to.BytesReceived, to.ControlReceived, to.Flags = m.in.Got(i)
		to.Addr = unmapped(m.in.From(i))
	}
}

// wrap makes the one OpError that users see.
func (r *receiver) wrap(err error) error {
	if err == nil {
		return nil
	}
	var name socketName
	if r.sender != nil {
		name = r.sender.name
	}
	e := name.opError("read", err)
	return &e
}

// mayWait reports whether a Receive of the user's may wait.
func (r *receiver) mayWait(flags int) bool { return !r.nonBlocking && flags&MsgDontWait == 0 }

// readyLocked reports whether the kernel has a datagram or an error for us.
func (r *receiver) readyLocked(fd uintptr) bool {
	in, failed := sys.Readable(fd)
	if in || !failed {
		return in
	}
	// That can also be an error queue, of which a read says nothing.
	if errno := sys.SocketError(fd); errno != 0 {
		r.addPending(os.NewSyscallError("recvmsg", errno))
		return true
	}
	return false
}

// awaitReadable waits until a receive would not wait.
func (r *receiver) awaitReadable(ctx context.Context) error {
	if err := r.queue.ends.check(ctx); err != nil {
		return err
	}
	if r.anyPending() {
		return nil
	}
	o := r.newReading(0)
	o.look = true
	if err := r.obtain(ctx, o, true); err != nil {
		o.free()
		return err
	}
	r.release(o)
	return nil
}
