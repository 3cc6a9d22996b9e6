// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"syscall"
	"time"
)

// A WriterConfig sets what a Writer does for its whole life. The zero
// WriterConfig is the default.
type WriterConfig struct {
	// MaxMessages is how many datagrams are held at most; 0 is 1024.
	MaxMessages int

	// MaxBytes is how much payload and control data is held at most; 0 is
	// 256 KiB. A larger datagram is still taken, alone. It is held in two
	// buffers, which are kept and grow up to that size as they are needed; what a
	// buffer has outgrown is kept until it is empty, which may be as much again.
	MaxBytes int

	// MaxDelay is how long datagrams are gathered. 0: they leave as soon as a
	// goroutine of the Writer runs. Above 0: they wait that long at most. Below
	// 0: they leave only when the Writer is full, or on Flush and Close.
	MaxDelay time.Duration

	// Linger is how long Close waits for room to send what is held; 0 is one
	// second, below 0 is not at all.
	Linger time.Duration

	// OnError is told of each datagram that could not be sent, one after the
	// other, with no lock of ours held: by a goroutine of the Writer, or by a
	// write, Flush or Close that sends. addr is the zero AddrPort for the
	// connected peer. It must return, and must not call Flush or Close. It may
	// write; but a write of its own that finds the Writer full waits for ever,
	// because the sending waits for OnError: only NonBlocking, the write
	// deadline or a Close by another goroutine end it.
	OnError func(addr netip.AddrPort, err error)
}

const (
	defaultMaxMessages = 1024
	defaultMaxBytes    = 256 << 10
	defaultLinger      = time.Second

	// A write that comes so long after the last one is not part of a burst:
	// it sends its datagram itself, which is faster than waking a goroutine.
	idleAfter = 5 * time.Microsecond

	// A write that finds datagrams held for so long sends them itself: the
	// flusher was started and has not run, because all processors are busy.
	flusherLate = 50 * time.Microsecond

	// turnLength is the most datagrams that go to one destination before it
	// is the others' turn.
	turnLength = maxSegments

	// sendChunk is after how many datagrams room is given back to writers.
	sendChunk = 256
)

// writerConn is embedded under this name so that the field is not exported.
type writerConn = Conn

// A Writer makes batches for code that sends one datagram at a time. It has
// all methods of its [Conn], those of *net.UDPConn included, and of these Write,
// WriteTo, WriteToUDP, WriteToUDPAddrPort, WriteMsgUDP and WriteMsgUDPAddrPort
// copy the datagram and return; what was gathered leaves in large batches soon after. The other
// sends (SendMessages, WriteBatch and their kin) go out directly and do not
// wait for what is held: call [Writer.Flush] first where the order matters.
//
// Datagrams to one destination leave in the order in which they were written.
// Where the Conn segments, those to different destinations may overtake each
// other, by at most 64 of one destination at a time.
//
// A write returns an error at once if the Writer is closed, or if the datagram
// has no destination or one of the wrong family, or is longer than the protocol
// allows. Errors met later go to WriterConfig.OnError, and the first of them is
// what the next Flush or Close returns; other datagrams still go. An error that an
// earlier send kept is of no datagram here, and is only returned by Flush or Close.
//
// When MaxMessages or MaxBytes are reached, a write waits until something has
// left, the Writer's write deadline passes (os.ErrDeadlineExceeded) or the
// Writer is closed (net.ErrClosed); if the Conn is NonBlocking it returns
// ErrWouldBlock. The deadline bounds only the waiting of writes and of Flush,
// and never what was accepted; the other sends end by their contexts alone.
//
// Unless MaxDelay says otherwise, what was written leaves when a goroutine of
// the Writer gets a processor, or with the first write that comes 50 microseconds
// later. Where all processors are taken (GOMAXPROCS=1), a goroutine that writes a
// burst and then computes, without blocking or writing again, holds up the end of
// its burst until the scheduler takes the processor from it, after 10 to 20
// milliseconds: call [Writer.Flush] at the end of such a burst. GOMAXPROCS=2 on
// a machine with one processor shortens it.
//
// A Writer that holds nothing has no goroutine and can be dropped. All methods
// may be called from any number of goroutines at once.
type Writer struct {
	*writerConn
	cfg  WriterConfig
	peer netip.Addr // of a connected Conn

	run    func()             // the flusher, made once so that starting it allocates nothing
	ctx    context.Context    // done when Close waits no longer
	cancel context.CancelFunc //

	mu       sync.Mutex
	filling  *heldMessages // what writes add to
	leaving  *heldMessages // what the sender sends
	messages int           // in both
	bytes    int           // in both
	accepted uint64        // datagrams ever taken
	finished uint64        // datagrams ever sent or reported
	due      uint64        // what was accepted up to here is to leave now
	oldest   int64         // since epoch: when the first of filling was written
	newest   int64         // since epoch: when the last write ended

	sending   bool // somebody is sending: the flusher, a write, Flush or Close
	handed    bool // and that is the flusher, once it runs
	scheduled bool // the flusher was started and has not run yet
	yielded   bool // a write has let who sends run since something was sent
	timer     *time.Timer
	closed    bool
	deadline  int64 // since epoch, 0 for none
	firstErr  error // since the last Flush
	waiters   []*waiter
	waits     uint64 // writes that ever waited for room, which numbers them
	reserved  uint64 // the one that the next room is for; 0 for none
}

// NewWriter makes a Writer of c. Close the Writer instead of c, and set the
// write deadline through it: it clears that of c, with which datagrams that were
// accepted would fail. A nil cfg is the zero WriterConfig.
func NewWriter(c *Conn, cfg *WriterConfig) *Writer {
	if c == nil {
		c = new(Conn) // whose methods return an error
	}
	c.SetWriteDeadline(time.Time{}) // of a Conn that is closed there is none
	w := &Writer{writerConn: c, filling: new(heldMessages), leaving: new(heldMessages)}
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
	if peer, ok := c.RemoteAddr().(*net.UDPAddr); ok {
		w.peer = peer.AddrPort().Addr()
	}
	w.run = w.flusher
	w.ctx, w.cancel = context.WithCancel(context.Background())
	return w
}

// Write gathers a datagram to the connected peer.
func (w *Writer) Write(b []byte) (int, error) {
	return w.gather(b, nil, netip.AddrPort{})
}

// WriteTo gathers a datagram to addr, a *net.UDPAddr.
func (w *Writer) WriteTo(b []byte, addr net.Addr) (int, error) {
	udp, ok := addr.(*net.UDPAddr)
	if !ok {
		return 0, w.wrongAddr(addr, syscall.EINVAL)
	}
	return w.WriteToUDP(b, udp)
}

// WriteToUDP gathers a datagram to addr.
func (w *Writer) WriteToUDP(b []byte, addr *net.UDPAddr) (int, error) {
	to, err := w.addrPort(addr)
	if err != nil {
		return 0, w.wrongAddr(addr, err)
	}
	return w.gatherTo(b, to)
}

// WriteToUDPAddrPort gathers a datagram to addr.
func (w *Writer) WriteToUDPAddrPort(b []byte, addr netip.AddrPort) (int, error) {
	return w.gatherTo(b, addr)
}

// WriteMsgUDP gathers a datagram to addr with control messages.
func (w *Writer) WriteMsgUDP(b, oob []byte, addr *net.UDPAddr) (n, oobn int, err error) {
	to, err := w.addrPort(addr)
	if err != nil {
		return 0, 0, w.wrongAddr(addr, err)
	}
	return w.WriteMsgUDPAddrPort(b, oob, to)
}

// WriteMsgUDPAddrPort gathers a datagram to addr with control messages.
func (w *Writer) WriteMsgUDPAddrPort(b, oob []byte, addr netip.AddrPort) (n, oobn int, err error) {
	if n, err = w.gather(b, oob, addr); err != nil {
		return 0, 0, err
	}
	return n, len(oob), nil
}

// gatherTo is for the methods that package net does not let write to a
// connected peer.
func (w *Writer) gatherTo(b []byte, to netip.AddrPort) (int, error) {
	if w.writerConn.send.to.connected {
		return 0, w.writerConn.send.opError(net.ErrWriteToConnected, to)
	}
	return w.gather(b, nil, to)
}

// gather takes a datagram, and sends what is held if this is the moment.
func (w *Writer) gather(p, control []byte, to netip.AddrPort) (int, error) {
	if err := w.check(len(p), to); err != nil {
		return 0, w.writerConn.send.opError(err, to)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if size := len(p) + len(control); w.closed || !w.hasRoom(size, 0) {
		if err := w.waitForRoom(size); err != nil {
			return 0, w.writerConn.send.opError(err, to)
		}
	}
	now := int64(time.Since(epoch))
	idle := now-w.newest > int64(idleAfter) && w.messages == 0 && !w.sending && w.cfg.MaxDelay == 0
	w.messages++
	w.bytes += len(p) + len(control)
	w.accepted++
	w.newest = now
	if idle {
		w.sendAlone(p, control, to)
		return len(p), nil
	}
	if w.filling.empty() {
		w.oldest = now
	}
	w.filling.add(p, control, to, w.cfg.MaxBytes)
	w.moveOn(now, len(p)+len(control))
	return len(p), nil
}

// check says what is wrong with a datagram before it is taken.
func (w *Writer) check(size int, to netip.AddrPort) error {
	if err := w.writerConn.send.queue.open(nil); err != nil {
		return err
	}
	if err := w.writerConn.send.to.check(to); err != nil {
		return err
	}
	host := to.Addr()
	if w.writerConn.send.to.connected {
		host = w.peer
	}
	if size > w.writerConn.send.kernel.maxPayload(host) {
		return errMessageTooLong
	}
	return nil
}

// moveOn decides, after a write, what is sent when and by whom. size is that of
// the last datagram, and taken as that of the next.
func (w *Writer) moveOn(now int64, size int) {
	full := w.messages >= w.cfg.MaxMessages || w.bytes+size > w.cfg.MaxBytes
	late := now - w.oldest
	switch {
	case full:
		w.due = w.accepted
	case w.cfg.MaxDelay < 0:
		return
	case w.cfg.MaxDelay > 0:
		if late < int64(w.cfg.MaxDelay) {
			w.armTimer(w.cfg.MaxDelay - time.Duration(late))
			return
		}
		w.due = w.accepted
	default:
		w.due = w.accepted
		if late < int64(flusherLate) {
			w.startFlusher()
			return
		}
	}
	if w.sending {
		w.yield(late)
		return
	}
	w.send(false)
	w.newest = int64(time.Since(epoch)) // the time it took is no idleness
}

// yield lets who sends go on, once a chunk. A goroutine that comes back from a
// call to the kernel may find its processor taken, and the taker writes on and
// on, for ten milliseconds at a time, without ever having to wait.
func (w *Writer) yield(late int64) {
	if w.yielded || late < int64(flusherLate) {
		return
	}
	w.yielded = true
	w.mu.Unlock()
	runtime.Gosched()
	w.mu.Lock()
}

// armTimer has the flusher started when what is held was held long enough.
func (w *Writer) armTimer(d time.Duration) {
	if w.filling.len() > 1 {
		return // armed by the first
	}
	if w.timer == nil {
		w.timer = time.AfterFunc(d, w.flushInTime)
	} else {
		w.timer.Reset(d)
	}
}

func (w *Writer) flushInTime() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if int64(time.Since(epoch))-w.oldest < int64(w.cfg.MaxDelay) {
		return // it was late, and for others: these have a timer of their own
	}
	w.due = w.accepted
	if !w.sending {
		w.send(true)
	}
}

// startFlusher starts the flusher unless somebody sends already, who will see
// to what is due.
func (w *Writer) startFlusher() {
	if !w.sending && !w.scheduled {
		w.scheduled = true
		go w.run()
	}
}

func (w *Writer) flusher() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.scheduled = false
	if w.sending && !w.handed {
		w.wakeAll() // Close may wait for us
		return
	}
	w.handed = false
	w.send(true)
}

// Flush sends what was written before it began and returns when all of that is
// sent or reported. It returns the first error since the last Flush, or an
// error that Is ctx.Err() when ctx is done, os.ErrDeadlineExceeded at the write
// deadline, net.ErrClosed when the Writer is closed: then what is held stays
// held, and is sent all the same or reported by Close. A nil ctx is never done.
func (w *Writer) Flush(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	target := w.accepted
	for {
		if w.closed {
			return w.writerConn.send.opError(net.ErrClosed, netip.AddrPort{})
		}
		if err := w.writerConn.send.queue.open(ctx); err != nil {
			return w.writerConn.send.opError(err, netip.AddrPort{})
		}
		if w.finished >= target {
			err := w.firstErr
			w.firstErr = nil
			return err
		}
		w.due = max(w.due, target)
		if !w.sending {
			w.send(false)
			continue
		}
		if err := w.wait(ctx); err != nil {
			return w.writerConn.send.opError(err, netip.AddrPort{})
		}
	}
}

// Close sends what is held, waiting for room no longer than WriterConfig.Linger,
// reports the rest to OnError with net.ErrClosed and closes the Conn. Writes
// that wait end with net.ErrClosed. It returns the first error since the last
// Flush, else that of closing. A second Close returns net.ErrClosed.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.raw == nil {
		return w.writerConn.Close() // which says why not
	}
	if w.closed {
		return w.alreadyClosed("close")
	}
	w.closed = true
	if w.timer != nil {
		w.timer.Stop()
	}
	w.wakeAll()
	w.due = w.accepted
	w.linger()
	w.cancel()
	for w.sending || w.scheduled {
		w.park(nil, nil)
	}
	for held := 0; w.messages != held; { // what fits now
		held = w.messages
		w.send(false)
	}
	w.abandon()
	err := w.writerConn.Close()
	if w.firstErr != nil {
		err = w.firstErr
	}
	return err
}

// linger waits until all that is held is finished, or long enough.
func (w *Writer) linger() {
	if w.cfg.Linger < 0 {
		return
	}
	timer := time.NewTimer(w.cfg.Linger)
	defer timer.Stop()
	for w.finished < w.accepted {
		w.startFlusher()
		if w.park(nil, timer.C) {
			return
		}
	}
}

// SetWriteDeadline sets the time after which writes and Flush wait no longer.
// What was accepted is sent all the same.
func (w *Writer) SetWriteDeadline(t time.Time) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.raw == nil {
		return w.writerConn.SetWriteDeadline(t) // which says why not
	}
	if w.closed {
		return w.alreadyClosed("set")
	}
	w.deadline = deadlineSinceEpoch(t)
	w.wakeAll()
	return nil
}

// SetDeadline sets the Conn's read deadline and the Writer's write deadline.
func (w *Writer) SetDeadline(t time.Time) error {
	if err := w.SetReadDeadline(t); err != nil {
		return err
	}
	return w.SetWriteDeadline(t)
}

func (w *Writer) alreadyClosed(op string) error {
	return &net.OpError{Op: op, Net: "udp", Source: w.LocalAddr(), Err: net.ErrClosed}
}
