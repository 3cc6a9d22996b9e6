// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"math"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"
)

// A WriterConfig sets what a Writer does for its whole life. The zero
// WriterConfig is the default.
type WriterConfig struct {
	// MaxMessages is the maximum number of datagrams held; 0 is 1024.
	MaxMessages int

	// MaxBytes is the maximum size of the payloads and control data held; 0 is 256
	// KiB. A larger datagram is still accepted, alone. It is held in at most two
	// buffers, which grow up to that size as they are needed. A Writer that holds
	// nothing gives them back to a pool for all Writers, unless its limits are
	// above the default.
	MaxBytes int

	// MaxDelay is how long datagrams are held. 0: they leave as soon as a
	// goroutine of the Writer runs. Above 0: they wait that long at most. Below
	// 0: they leave only when the Writer is full, or on Flush and Close.
	MaxDelay time.Duration

	// Linger is how long Close waits for room to send what is held; 0 is one
	// second, below 0 is not at all.
	Linger time.Duration

	// OnError is told of each datagram that was accepted and could not be sent,
	// one after the other, with no lock of ours held: by a goroutine of the
	// Writer, or by a write, Flush or Close that sends. addr is the zero AddrPort
	// for the connected peer. It must return, and must not call Flush or Close. It
	// may write; but a write of its own that finds the Writer full waits for ever,
	// because the sending waits for OnError: only NonBlocking, the write
	// deadline or a Close by another goroutine end it.
	OnError func(addr netip.AddrPort, err error)
}

const (
	defaultMaxMessages = 1024
	defaultMaxBytes    = 256 << 10
	defaultLinger      = time.Second

	// maxAnyPayload is what every adapter's maxPayload allows.
	maxAnyPayload = 65507
)

// writerConn is embedded under this name so that the field is not exported.
type writerConn = Conn

// A Writer makes batches for code that sends one datagram at a time. It has all
// methods of its [Conn]. Of these Write, WriteTo, WriteToUDP,
// WriteToUDPAddrPort, WriteToAddrPort, WriteMsgUDP and WriteMsgUDPAddrPort
// accept a datagram: they copy it and return. What was accepted leaves in large
// batches soon after. The other sends (SendMessages, WriteBatch and similar
// methods) go out directly and do not wait for what is held: call
// [Writer.Flush] first where the order matters.
//
// Datagrams to one destination leave in the order in which they were written.
// Where the Conn segments, those to different destinations may overtake each
// other, by at most 64 of one destination at a time. A destination is an
// address as it is given: 127.0.0.1 and 0.0.0.0, or ::1 and ::1%lo, are two,
// though the kernel sends both to one socket. Only ::ffff:a.b.c.d is a.b.c.d.
//
// A write returns an error at once if the Writer is closed, or if the datagram
// has no destination or one of the wrong family, or is longer than the protocol
// allows. A write to an idle Writer sends its datagram itself, and returns what
// the kernel says of it, or on a connected Conn what was pending from an
// earlier send, as net's Write does (ECONNREFUSED: the peer is gone); that
// datagram was not accepted then. Errors met later go to WriterConfig.OnError,
// and the first of them is what the next Flush or Close returns; other
// datagrams still go. A pending error that is met later is of no datagram here,
// and is only returned by Flush or Close.
//
// A write may have the kernel cut it into segments, by a UDP_SEGMENT control
// message (udp(7)). If the kernel refuses that with EIO, EINVAL or EMSGSIZE
// when the write has returned already, its datagrams leave plainly, and the
// next such write to the same destination fails with that error, so that a
// library which then segments no more, as quic-go does, learns of it. Such a
// write is not copied while the Writer holds nothing.
//
// When MaxMessages or MaxBytes are reached, writes wait, in the order in which
// they came, until as much has left, the Writer's write deadline passes
// (os.ErrDeadlineExceeded) or the Writer is closed (net.ErrClosed); if the Conn
// is NonBlocking they return ErrWouldBlock. The deadline bounds only the
// waiting of writes and of Flush, and never what was accepted; the other sends
// end by their contexts alone.
//
// Unless MaxDelay says otherwise, what was written leaves when a goroutine of
// the Writer gets a processor, or with the first write that comes 50
// microseconds later. Where all processors are taken (GOMAXPROCS=1), a
// goroutine that writes a burst and then computes, without blocking or writing
// again, holds up the end of its burst until the scheduler takes the processor
// from it, after 10 to 20 milliseconds: call [Writer.Flush] at the end of such
// a burst. GOMAXPROCS=2 on a machine with one processor shortens it.
//
// A Writer that holds nothing has no goroutine and can be dropped. All methods
// may be called from any number of goroutines at once.
type Writer struct {
	*writerConn // for its methods
	conn        *Conn
	engine      *sender // the Conn's
	cfg         WriterConfig
	peer        netip.Addr // of a connected Conn

	run    func()          // the flusher, made once so that starting it allocates nothing
	ctx    context.Context // done when Close waits no longer
	cancel context.CancelFunc

	mu       sync.Mutex
	held     holding
	due      uint64 // what was accepted up to here is to leave now
	newest   int64  // since epoch: when the last write ended
	timer    *time.Timer
	closed   bool
	deadline int64                    // since epoch, 0 for none
	firstErr error                    // since the last Flush
	refused  map[netip.AddrPort]error // see takeRefusalLocked

	turn    turn
	moves   uint64 // how often something has left
	yielded uint64 // moves when a write last yielded to the goroutine that sends

	pace   pace     // the sending goroutine's
	errors opErrors // likewise

	writes  callQueue      // that wait for room
	flushes callQueue      // that wait until something is finished
	heads   []*waitingCall // writes that need not wait any more; the sending goroutine's
}

// NewWriter makes a Writer of c. Close the Writer instead of c, and set the
// write deadline through it: it clears that of c, at which accepted datagrams
// would fail. A nil cfg is the zero WriterConfig.
func NewWriter(c *Conn, cfg *WriterConfig) *Writer {
	if c == nil {
		c = new(Conn) // whose methods return an error
	}
	c.SetWriteDeadline(time.Time{}) // of a Conn that is closed there is none
	w := &Writer{writerConn: c, conn: c, engine: &c.send, moves: 1}
	if cfg != nil {
		w.cfg = *cfg
	}
	if w.cfg.MaxMessages <= 0 {
		w.cfg.MaxMessages = defaultMaxMessages
	}
	if w.cfg.MaxBytes <= 0 {
		w.cfg.MaxBytes = defaultMaxBytes
	}
	if w.cfg.Linger == 0 {
		w.cfg.Linger = defaultLinger
	}
	w.held.maxMessages, w.held.maxBytes = w.cfg.MaxMessages, w.cfg.MaxBytes
	if peer, ok := c.RemoteAddr().(*net.UDPAddr); ok {
		w.peer = peer.AddrPort().Addr()
	}
	w.run = w.flusher
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// Write accepts a datagram to the connected peer.
func (w *Writer) Write(b []byte) (int, error) {
	return w.accept(&packet{payload: b})
}

// WriteTo accepts a datagram to addr, a *net.UDPAddr.
func (w *Writer) WriteTo(b []byte, addr net.Addr) (int, error) {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, w.conn.wrongAddr(addr, syscall.EINVAL)
	}
	return w.WriteToUDP(b, udp)
}

// WriteToUDP accepts a datagram to addr.
func (w *Writer) WriteToUDP(b []byte, addr *net.UDPAddr) (int, error) {
	to, err := w.conn.addrPort(addr)
	if err != nil {
		return 0, w.conn.wrongAddr(addr, err)
	}
	return w.acceptTo(b, to)
}

// WriteToUDPAddrPort accepts a datagram to addr.
func (w *Writer) WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error) {
	return w.acceptTo(b, addr)
}

// WriteToAddrPort is WriteToUDPAddrPort.
func (w *Writer) WriteToAddrPort(b []byte, addr netip.AddrPort) (int, error) {
	return w.acceptTo(b, addr)
}

// WriteMsgUDP accepts a datagram to addr with control messages.
func (w *Writer) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	to, err := w.conn.addrPort(addr)
	if err != nil {
		return 0, 0, w.conn.wrongAddr(addr, err)
	}
	return w.WriteMsgUDPAddrPort(b, oob, to)
}

// WriteMsgUDPAddrPort accepts a datagram to addr with control messages.
func (w *Writer) WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error) {
	if n, err = w.accept(&packet{b, oob, addr}); err != nil {
		return 0, 0, err
	}
	return n, len(oob), nil
}

// acceptTo is for the methods that package net does not let write to a
// connected peer.
func (w *Writer) acceptTo(b []byte, to netip.AddrPort) (int, error) {
	if w.engine.to.connected {
		return 0, w.engine.opError(net.ErrWriteToConnected, to)
	}
	return w.accept(&packet{payload: b, to: to})
}

// accept holds a datagram, and sends what is held if this is the moment; or it
// sends the datagram.
func (w *Writer) accept(d *packet) (int, error) {
	if err := w.check(d); err != nil {
		return 0, w.engine.opError(err, d.to)
	}
	w.mu.Lock()
	err := w.takeRefusalLocked(d)
	if err == nil && (w.closed || !w.hasRoomLocked(d.size())) {
		if err := w.acceptWaiting(d); err != nil {
			return 0, w.engine.opError(err, d.to)
		}
		return len(d.payload), nil
	}
	now := w.nowLocked()
	switch {
	case err != nil:
	case w.isLoneLocked(d, now):
		err = w.sendLoneLocked(d)
		w.newest = sinceStart() // the time it took is no idleness
	default:
		w.holdLocked(d, now)
	}
	w.mu.Unlock()
	if err != nil {
		return 0, err
	}
	return len(d.payload), nil
}

// check says what is wrong with a datagram before it is accepted.
func (w *Writer) check(d *packet) error {
	if err := w.engine.queue.ends.open(nil); err != nil {
		return err
	}
	if err := w.engine.to.check(d.to); err != nil {
		return err
	}
	if len(d.payload) <= maxAnyPayload {
		return nil
	}
	host := d.to.Addr()
	if w.engine.to.connected {
		host = w.peer
	}
	if len(d.payload) > w.engine.kernel.maxPayload(host) {
		return errMessageTooLong
	}
	return nil
}

// nowLocked is the time of a write, since epoch. Where a write has only to know
// whether the goroutine that sends needs its processor (see yieldLocked), every
// eighth asks, and the others take the last one's time: the clock takes as long
// as the copy of a datagram. mu is held.
func (w *Writer) nowLocked() int64 {
	if n := w.held.newer(); n > 8 && n%8 != 0 && (w.turn.busy() && w.cfg.MaxDelay == 0 || w.cfg.MaxDelay < 0) {
		return w.newest
	}
	return sinceStart()
}

// isLoneLocked reports whether a datagram is to be sent by itself, at once:
// there is nothing that it would have to follow, and it is not part of a burst
// or is large already, being many in one. mu is held.
func (w *Writer) isLoneLocked(d *packet, now int64) bool {
	return w.cfg.MaxDelay == 0 && w.held.messages == 0 && !w.turn.busy() &&
		(now-w.newest > int64(idleAfter) || d.isMany())
}

// holdLocked adds a datagram to what is held, and decides what is sent, when,
// and by which goroutine. mu is held before and after.
func (w *Writer) holdLocked(d *packet, now int64) {
	w.addLocked(d, now)
	if !w.isDueLocked(now, d.size()) {
		return
	}
	w.due = w.held.accepted
	late := now - w.held.oldest
	switch {
	case w.cfg.MaxDelay == 0 && late < int64(flusherLate) && !w.isFullLocked(d.size()):
		w.callFlusherLocked()
	case w.turn.busy():
		w.yieldLocked(late)
	default:
		w.sendLocked(false)
		w.newest = sinceStart() // the time it took is no idleness
	}
}

func (w *Writer) addLocked(d *packet, now int64) {
	w.held.count(d.size())
	w.held.add(d, now)
	w.newest = now
}

// isFullLocked takes the size of the last datagram as that of the next. mu is
// held.
func (w *Writer) isFullLocked(size int) bool {
	return w.held.messages >= w.held.maxMessages || w.held.bytes+size > w.held.maxBytes
}

// isDueLocked reports whether what is held is to leave now, and otherwise sees
// to it that it will. mu is held.
func (w *Writer) isDueLocked(now int64, size int) bool {
	held := time.Duration(now - w.held.oldest)
	switch {
	case w.cfg.MaxDelay == 0, w.isFullLocked(size):
		return true
	case w.cfg.MaxDelay < 0:
		return false
	case held < w.cfg.MaxDelay:
		w.armTimerLocked(w.cfg.MaxDelay - held)
		return false
	}
	return true
}

// Flush sends what was written before it began and returns when all of that is
// sent or reported. It returns the first error since the last Flush, or an
// error that Is ctx.Err() when ctx is done, os.ErrDeadlineExceeded at the write
// deadline, net.ErrClosed when the Writer is closed: then what is held stays
// held, and is sent all the same or reported by Close. A nil ctx is never done.
func (w *Writer) Flush(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	for target, asked := w.held.accepted, ctx; ; {
		if w.closed {
			return w.engine.opError(net.ErrClosed, netip.AddrPort{})
		}
		if err := w.engine.queue.ends.open(asked); err != nil {
			return w.engine.opError(err, netip.AddrPort{})
		}
		if w.held.finished >= target {
			err := w.firstErr
			w.firstErr = nil
			return err
		}
		w.due = max(w.due, target)
		if !w.turn.busy() {
			w.sendLocked(false)
			continue
		}
		if err := w.endLocked(); err != nil {
			return w.engine.opError(err, netip.AddrPort{})
		}
		w.awaitFinishedLocked(ctx, target, w.untilDeadlineLocked())
		if ctx != nil {
			asked = reasoned{ctx} // as in checkWaited
		}
	}
}

// Close sends what is held, waiting for room no longer than
// WriterConfig.Linger, reports the rest to OnError with net.ErrClosed and
// closes the Conn. Writes that wait end with net.ErrClosed. It returns the
// first error since the last Flush, else that of closing. A second Close
// returns net.ErrClosed.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.conn.isFromNew() {
		return w.conn.Close() // which says why not
	}
	if w.closed {
		return w.alreadyClosed("close", w.LocalAddr(), w.RemoteAddr())
	}
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
	w.wakeAllLocked()
	w.due = w.held.accepted
	w.lingerLocked()
	w.cancel()
	for w.turn != idle {
		w.awaitFinishedLocked(nil, math.MaxUint64, 0)
	}
	for held := 0; w.held.messages != held; { // what fits now
		held = w.held.messages
		w.sendLocked(false)
	}
	w.abandonLocked()
	err := w.conn.Close()
	if w.firstErr != nil {
		err = w.firstErr
	}
	return err
}

// lingerLocked waits until all that is held is finished, or long enough. mu is
// held before and after.
func (w *Writer) lingerLocked() {
	end := sinceStart() + int64(w.cfg.Linger)
	for w.held.finished < w.held.accepted {
		left := end - sinceStart()
		if left <= 0 {
			return
		}
		w.callFlusherLocked()
		w.awaitFinishedLocked(nil, w.held.accepted, time.Duration(left))
	}
}

// SetWriteDeadline sets the time after which writes and Flush wait no longer.
// What was accepted is sent all the same.
func (w *Writer) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.conn.isFromNew() {
		return w.conn.SetWriteDeadline(t) // which says why not
	}
	if w.closed {
		return w.alreadyClosed("set", nil, w.LocalAddr())
	}
	w.deadline = deadlineSinceEpoch(t)
	w.wakeAllLocked()
	return nil
}

// SetDeadline sets the Conn's read deadline and the Writer's write deadline.
func (w *Writer) SetDeadline(t time.Time) error {
	if err := w.SetReadDeadline(t); err != nil {
		return err
	}
	return w.SetWriteDeadline(t)
}

// alreadyClosed is what net says after Close, which may still be on its way.
func (w *Writer) alreadyClosed(op string, source, addr net.Addr) error {
	err := w.engine.opError(net.ErrClosed, netip.AddrPort{}).(*net.OpError)
	err.Op, err.Source, err.Addr = op, source, addr
	return err
}
