// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"syscall"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// MsgDontWait as a flag makes one send or receive non-blocking. It is the
// system's MSG_DONTWAIT (send(2)), or a private bit where the system has none.
// A send returns ErrWouldBlock also while the next room is reserved for a
// sender that has waited for too long.
const MsgDontWait = sys.MsgDontWait

// MsgWaitAll as a flag makes ReceiveMessages and ReadBatch wait until all
// messages are filled, as GLib does. It is a private bit.
const MsgWaitAll = 1 << 28

// What Flags of an InputMessage may hold.
const (
	MsgTruncated        = sys.MsgTrunc  // the datagram was longer than the vectors (MSG_TRUNC)
	MsgControlTruncated = sys.MsgCtrunc // there were more control messages than room (MSG_CTRUNC)
)

// A GSOMode says whether a Conn may use UDP segmentation offload.
type GSOMode int

const (
	GSOAuto GSOMode = iota // where it works and the kernel is not known to damage it
	GSOOff                 // never
	GSOOn                  // also on the kernels that GSOAuto avoids
)

// A GROMode says whether a Conn may let the kernel coalesce what it receives.
type GROMode int

const (
	GROAuto GROMode = iota // where it changes nothing, and only while the queue is deep
	GROOff                 // never: the Read family is package net's own, one datagram each
	GROOn                  // from New, and also where kernels merge datagrams of different ECN or TTL
)

// A Config sets what a Conn does for its whole life. The zero Config is the
// default.
type Config struct {
	// NonBlocking makes every send return at once with what fitted, or with
	// ErrWouldBlock when nothing did: Write, WriteTo and similar methods included.
	// ReceiveMessages, ReceiveMessage and ReceiveFrom do not wait either.
	// ReadBatch and net's Read family do.
	NonBlocking bool

	// GSO chooses when neighbouring messages of one size to one destination
	// may go to the kernel as one segmented message (Linux, udp(7)
	// UDP_SEGMENT). Receivers see the same payloads in the same order either way.
	// BATCHCONN_GSO=off in the environment is GSOOff.
	GSO GSOMode

	// MaxSegments is the maximum number of datagrams in one segmented kernel
	// message. It bounds the burst that leaves without pacing. 0, and all above
	// 64, mean 64; 1 means no segmentation.
	MaxSegments int

	// DontFragment keeps every datagram whole, here and on the way: all have
	// the DF bit, segmented ones too. A send of what is longer than the
	// interface's MTU fails with syscall.EMSGSIZE. Routers drop what is longer
	// than theirs.
	//
	// It sets options of the socket, which stay set: on Linux IP_MTU_DISCOVER
	// and IPV6_MTU_DISCOVER to PROBE, elsewhere IP_DONTFRAG, IPV6_DONTFRAG and
	// the like. New fails if the system has no such option for a family of the
	// socket.
	DontFragment bool

	// GRO chooses when the kernel may hand over many datagrams as one message
	// (Linux, udp(7) UDP_GRO), which reads take apart again. It changes what
	// reading costs, and nothing else. BATCHCONN_GRO=off in the environment is
	// GROOff.
	GRO GROMode
}

// A Conn is a [net.UDPConn] that sends and receives many datagrams in one call.
// It has all exported methods of *net.UDPConn. Make a Conn with [New]; the
// methods of the zero Conn return an error. All methods may be called from any
// number of goroutines at once.
//
// [net.Buffers] writes each of its buffers to a Conn with Write, as to any
// net.Conn that is not net's own: each buffer becomes a datagram. The Vectors
// of an [OutputMessage] become one datagram together.
type Conn struct {
	// By value: a zero Conn's methods then answer EINVAL as a zero UDPConn's do.
	// Not embedded: net finds methods that it does not export through an embedded
	// field, and net.Buffers.WriteTo would write past us.
	udpConn net.UDPConn

	send sender
	recv receiver
}

// New makes a Conn of c and owns c from then on: close it and set its
// deadlines through the Conn. It clears c's deadlines. A nil cfg is the
// zero Config.
//
// The error says what is wrong: c is nil or closed, or is not an IPv4 or IPv6
// datagram socket, or cfg is not valid, or the system lacks what it asks for.
// After an error c is still the caller's.
//
// On Linux the first New of a process sends itself a few bytes on loopback, to
// see whether the kernel segments and coalesces. Every New that comes meanwhile
// waits for the same two tests, and no send does. Where loopback answers
// nothing, each of them takes 50 milliseconds. Then the first New after a
// second tests again; until then Conns are made that segment and do not
// coalesce.
func New(c *net.UDPConn, cfg *Config) (*Conn, error) {
	if c == nil {
		return nil, errors.New("batchconn: New: nil *net.UDPConn")
	}
	if cfg == nil {
		cfg = &Config{}
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("batchconn: New: %w", err)
	}
	isIPv6, err := sys.IsIPv6(raw)
	if err != nil {
		return nil, fmt.Errorf("batchconn: New: %w", err)
	}
	if cfg.DontFragment {
		if err := setDontFragment(raw, isIPv6); err != nil {
			return nil, fmt.Errorf("batchconn: New: Config.DontFragment: %w", err)
		}
	}
	if err := c.SetDeadline(time.Time{}); err != nil {
		return nil, fmt.Errorf("batchconn: New: %w", err)
	}
	conn := &Conn{udpConn: *c}
	conn.send.init(&conn.udpConn, raw, isIPv6, cfg)
	conn.recv.init(&conn.udpConn, raw, isIPv6, cfg, &conn.send)
	return conn, nil
}

// isFromNew is false for a zero Conn, whose methods return EINVAL.
func (c *Conn) isFromNew() bool { return c.recv.queue.ends.raw != nil }

func setDontFragment(raw syscall.RawConn, isIPv6 bool) (err error) {
	controlErr := raw.Control(func(fd uintptr) { err = sys.SetDontFragment(fd, isIPv6) })
	return errors.Join(controlErr, err)
}

func (cfg *Config) validate() error {
	if cfg.GSO < GSOAuto || cfg.GSO > GSOOn {
		return fmt.Errorf("batchconn: Config.GSO is %d, not GSOAuto, GSOOff or GSOOn", cfg.GSO)
	}
	if cfg.GRO < GROAuto || cfg.GRO > GROOn {
		return fmt.Errorf("batchconn: Config.GRO is %d, not GROAuto, GROOff or GROOn", cfg.GRO)
	}
	if cfg.MaxSegments < 0 {
		return fmt.Errorf("batchconn: Config.MaxSegments is %d, below 0", cfg.MaxSegments)
	}
	return nil
}

// SendMessages sends msgs in order and returns how many were sent, always the
// first n of them. The error is nil unless n is 0: with 0 < n < len(msgs) call
// again with msgs[n:]; if what ended the first call still stands, the second
// call says what it is.
//
// It blocks until all messages are sent, however many they are, unless flags
// hold [MsgDontWait] or the Conn was made with Config.NonBlocking: then it
// sends what fits at once, or returns 0 and [ErrWouldBlock]. It ends early
// when ctx is done (an error that Is ctx.Err()), at the write deadline
// ([os.ErrDeadlineExceeded]), when the Conn is closed ([net.ErrClosed]), and
// at a message that cannot be sent. A nil ctx is never done. flags go to the
// kernel as they are (sendmsg(2)).
//
// Errors are one *[net.OpError]; test them with [errors.Is]. The package
// documentation lists, under Errors, what can be wrong with a message, and says
// what becomes of an error that the kernel tells once.
func (c *Conn) SendMessages(ctx context.Context, msgs []OutputMessage, flags int) (n int, err error) {
	return c.send.result(c.send.send(ctx, msgs, flags))
}

// SendMessage sends one message as [Conn.SendMessages] does. It returns its
// payload bytes, or 0 and an error. A nil msg is syscall.EINVAL.
func (c *Conn) SendMessage(ctx context.Context, msg *OutputMessage, flags int) (bytes int, err error) {
	if msg == nil {
		return 0, c.send.opError(syscall.EINVAL, netip.AddrPort{})
	}
	if len(msg.Vectors) == 1 {
		bytes, err = c.send.sendPacket(ctx, msg.Vectors[0], msg.Control, msg.Addr, flags)
	} else {
		bytes, err = c.send.sendOne(ctx, *msg, flags)
	}
	if err == nil {
		msg.BytesSent = bytes
	}
	return bytes, err
}

// SendTo sends p as one datagram to an address, or to the connected peer if to
// is the zero AddrPort, as [Conn.SendMessages] does. It returns len(p), or 0
// and an error.
func (c *Conn) SendTo(ctx context.Context, p []byte, to netip.AddrPort, flags int) (bytes int, err error) {
	return c.send.sendPacket(ctx, p, nil, to, flags)
}

// SendEach is [Conn.SendMessages] for messages that do not depend on each
// other: it goes on past a message that cannot be sent. It returns how many
// were dealt with, each either sent or failed for a reason of its own;
// msgs[n:] were not tried.
//
// If any message failed, err is a *[BatchError] with a [MessageError] for each.
// The context, the write deadline, Close, a full non-blocking socket and a
// pending error end the call: that error is then BatchError.Err, or err itself
// if no message failed. So, unlike SendMessages, it may return an error with
// n > 0: take msgs[n:] before you look at err.
//
// BytesSent of a message that failed is untouched. No message fails for what
// ICMP says of an earlier one: on a connected socket the message that met the
// error is sent again. If it leaves, the error was the socket's, and the call
// ends with it.
func (c *Conn) SendEach(ctx context.Context, msgs []OutputMessage, flags int) (n int, err error) {
	n, failed, err := c.send.sendEach(ctx, msgs, flags)
	if failed != nil {
		err = &BatchError{Failed: failed, Err: err}
	}
	return n, err
}

// WriteBatch is [Conn.SendMessages] without a context in the shape of
// golang.org/x/net's PacketConn.WriteBatch, and takes its place: it returns
// how many messages were sent, and an error only when none was. It sets N and
// NN of the messages that were sent. Addr is nil for the connected peer, or a
// *[net.UDPAddr] with an IP; anything else is syscall.EINVAL at that message.
func (c *Conn) WriteBatch(ms []ipv4.Message, flags int) (int, error) {
	return c.send.result(c.send.sendXNet(ms, flags))
}

// ReceiveMessages reads datagrams into msgs, one a message, and returns how
// many it filled, always the first n of msgs; the others are untouched. The
// error is nil unless n is 0. An error of the kernel's that is met after n > 0
// is returned by the next call. Errors are one *[net.OpError]; test them with
// [errors.Is].
//
// It waits until there is at least one datagram and then takes what is there,
// up to len(msgs). With [MsgWaitAll] it waits until all messages are filled.
// With [MsgDontWait], or Config.NonBlocking, it never waits: if nothing is
// there, the error is [ErrWouldBlock]. The wait ends when ctx is done (an error
// that Is ctx.Err()), at the read deadline ([os.ErrDeadlineExceeded]) and when
// the Conn is closed ([net.ErrClosed]). A nil ctx is never done.
//
// Of a datagram that is longer than the vectors of its message, the rest is
// lost, and Flags holds [MsgTruncated].
//
// A read may take more from the kernel than it returns. What was read ahead is
// returned by the next reads, whatever their names, in the kernel's order.
//
// Other flags go to the kernel as they are (recvmsg(2)). MSG_PEEK fills one
// message and leaves its datagram to be read. MSG_TRUNC has BytesReceived count
// the lost rest too. MSG_ERRQUEUE is never waited for.
func (c *Conn) ReceiveMessages(ctx context.Context, msgs []InputMessage, flags int) (n int, err error) {
	n, err = c.recv.many(ctx, msgs, flags, c.recv.mayWait(flags))
	return n, c.recv.wrap(err)
}

// ReceiveMessage reads one datagram as [Conn.ReceiveMessages] does. It returns
// the bytes that it put into the message, or 0 and an error. A nil msg is
// syscall.EINVAL.
func (c *Conn) ReceiveMessage(ctx context.Context, msg *InputMessage, flags int) (bytes int, err error) {
	if msg == nil {
		return 0, c.recv.wrap(syscall.EINVAL)
	}
	if len(msg.Vectors) == 1 {
		got, err := c.recv.one(ctx, msg.Vectors[0], msg.Control, flags, c.recv.mayWait(flags), byRecvmsg)
		if err != nil {
			return 0, c.recv.wrap(err)
		}
		msg.Addr, msg.BytesReceived, msg.ControlReceived, msg.Flags = unmapped(got.from), got.n, int(got.control), int(got.flags)
		return got.n, nil
	}
	a := getInAdopted(1)
	a.msgs[0] = *msg // so that msg does not move to the heap
	n, err := c.recv.many(ctx, a.msgs[:1], flags, c.recv.mayWait(flags))
	if n == 1 {
		*msg = a.msgs[0]
		bytes = msg.BytesReceived
	}
	a.free(1)
	return bytes, c.recv.wrap(err)
}

// ReceiveFrom reads one datagram into b as [Conn.ReceiveMessages] does. It
// returns the bytes that it put into b and where they came from, or an error.
func (c *Conn) ReceiveFrom(ctx context.Context, b []byte, flags int) (bytes int, from netip.AddrPort, err error) {
	got, err := c.recv.one(ctx, b, nil, flags, c.recv.mayWait(flags), byRecvfrom)
	return got.n, unmapped(got.from), c.recv.wrap(err)
}

// WaitReadable waits until a receive would not wait: for a datagram, or a
// pending error (GLib's G_IO_IN condition). It waits under Config.NonBlocking
// too, and ends as [Conn.ReceiveMessages] does.
func (c *Conn) WaitReadable(ctx context.Context) error {
	return c.recv.wrap(c.recv.awaitReadable(ctx))
}

// WaitWritable waits until the socket has room, as poll(2)'s POLLOUT says it
// (GLib's G_IO_OUT condition): on Linux, until half of the send buffer is free.
// Neither an error in the socket's error queue nor room that is reserved for a
// sender that has waited long counts. While senders keep the buffer more than
// half full, it waits. It waits under Config.NonBlocking too, and ends with an
// error that Is ctx.Err() when ctx is done, os.ErrDeadlineExceeded at the write
// deadline, and net.ErrClosed when the Conn is closed. A nil ctx is never done.
func (c *Conn) WaitWritable(ctx context.Context) error {
	if err := c.send.queue.await(ctx); err != nil {
		return c.send.opError(err, netip.AddrPort{})
	}
	return nil
}

// SetWriteDeadline sets the deadline of all sends, those under way included,
// as in package net; the zero time is none.
func (c *Conn) SetWriteDeadline(t time.Time) error {
	return c.send.queue.setDeadline(t, c.udpConn.SetWriteDeadline)
}

// SetDeadline sets the read and the write deadline; the zero time is none.
func (c *Conn) SetDeadline(t time.Time) error {
	// By one call of net's, if no caller is kicked: then the runtime needs one
	// timer and not two.
	readSet := false
	err := c.send.queue.setDeadline(t, func(t time.Time) error {
		bothSet := false
		err := c.recv.queue.setDeadline(t, func(t time.Time) error {
			bothSet = true
			return c.udpConn.SetDeadline(t)
		})
		readSet = true
		if err != nil || bothSet {
			return err
		}
		return c.udpConn.SetWriteDeadline(t)
	})
	if err != nil || readSet {
		return err
	}
	return c.SetReadDeadline(t)
}

// SetReadDeadline sets the deadline of all reads, those under way included, as
// in package net; the zero time is none.
func (c *Conn) SetReadDeadline(t time.Time) error {
	return c.recv.queue.setDeadline(t, c.udpConn.SetReadDeadline)
}

// Close closes the socket, and drops what was read ahead. Calls that wait end
// with net.ErrClosed, and when Close returns the port can be bound again. A
// second Close returns an error that Is net.ErrClosed.
func (c *Conn) Close() error {
	if c.isFromNew() {
		c.send.queue.close()
		c.recv.close()
	}
	return c.udpConn.Close()
}
