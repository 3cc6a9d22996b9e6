// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"github.com/batchconn/batchconn/internal/sys"
)

// A ControlMessage is what travels beside a datagram, in the control messages
// (cmsg(3)) that [OutputMessage] and [InputMessage] carry. Flags say which
// fields are set: those that a parsed message had, or those that Append is to
// write.
//
// To have the system add them to what a socket receives, call
// [Conn.ReceiveControl]. To answer from the address that was asked, take what
// was parsed, with only the two fields that name that address:
//
//	reply := received
//	reply.Flags &= batchconn.ControlLocal | batchconn.ControlInterface
//	control = reply.Append(control[:0], from.Addr())
//
// ControlInterface pins the reply to the interface that the question came by.
// Link-local addresses need that; without it, routes decide.
//
// An IPv4 datagram on an IPv6 socket has IPv4 addresses, and the TTL and TOS of
// its own header.
//
// What each system can do is in the package documentation, under Control
// messages. What it cannot receive is [errors.ErrUnsupported] from
// ReceiveControl, and what it cannot send Append leaves out.
type ControlMessage struct {
	// Flags say which of the fields below are set.
	Flags ControlFlags

	// Local is, of a received datagram, our address that a reply should come
	// from. It is not set for an IPv6 multicast group: an answer leaves from
	// whatever address the system picks. (Systems other than Linux do not tell
	// a broadcast address from one of ours, except 255.255.255.255.)
	// Sending, it is the source address; one of the other family than the
	// destination is left out. It has no zone: the interface is in IfIndex.
	Local netip.Addr

	// Dst is the destination in the header of a received datagram. It differs
	// from Local for multicast and broadcast. It is not for sending.
	Dst netip.Addr

	// IfIndex is the interface that a datagram came by, or is to leave by.
	IfIndex int

	// TOS is IPv4's TOS byte or IPv6's traffic class, 0 to 255. Its low two bits
	// are ECN, see the method ECN.
	TOS int

	// TTL is IPv4's TTL or IPv6's hop limit. Sending, it is 1 to 255.
	TTL int

	// Time is when the system received the datagram. Sending, it is when the
	// datagram is to leave (Linux). For that the socket must have SO_TXTIME
	// with CLOCK_MONOTONIC, else the send fails with syscall.EINVAL, and the
	// device a queue that looks at it, tc-fq(8), else it leaves at once.
	Time time.Time

	// Dropped is how many datagrams the socket had dropped, for want of room in
	// its receive buffer, when this one came. It counts from the socket's
	// beginning and wraps around. Until the first drop it is not set. A run that
	// is dropped as a whole, since it came coalesced, counts as one: the kernel
	// does not say how many it held (SO_RXQ_OVFL, socket(7)).
	Dropped uint32
}

// ControlFlags name fields of a [ControlMessage].
type ControlFlags uint

const (
	ControlLocal     = ControlFlags(sys.ControlLocal)
	ControlDst       = ControlFlags(sys.ControlDst)
	ControlInterface = ControlFlags(sys.ControlInterface)
	ControlTOS       = ControlFlags(sys.ControlTOS)
	ControlTTL       = ControlFlags(sys.ControlTTL)
	ControlTime      = ControlFlags(sys.ControlTime)
	ControlDropped   = ControlFlags(sys.ControlDropped)
)

// Append appends the fields that m.Flags name, as control messages for a
// datagram to an address, and returns the extended buffer. It allocates nothing
// if b has room for them; 128 bytes are always enough. b is empty, or ends
// where a control message ends with its padding, as those of this package and
// x/net do.
//
// The family of the messages is that of to, on IPv6 sockets too: ::ffff:a.b.c.d
// is IPv4. On a connected socket, to is the peer. ControlDst and ControlDropped
// are not for sending and left out.
//
// Neighbouring datagrams with equal control messages can leave as one segmented
// message, so one control buffer may serve them all. With ControlTime they
// cannot.
func (m *ControlMessage) Append(b []byte, to netip.Addr) []byte {
	c := sys.Control{
		Fields:  sys.ControlFields(m.Flags),
		Local:   m.Local,
		IfIndex: m.IfIndex,
		TOS:     m.TOS,
		TTL:     m.TTL,
		Time:    m.Time,
	}
	return c.Append(b, to.Is4() || to.Is4In6())
}

// Parse sets m to what the control messages in b say, of a received datagram:
// Control[:ControlReceived] of an InputMessage, OOB[:NN] of x/net's, or
// oob[:oobn] of ReadMsgUDPAddrPort. Messages that it does not know are passed
// over; of several of one kind the last counts. It allocates nothing.
//
// If b is cut short, or holds a value that cannot be, it returns an error, and
// m is what was said before that.
func (m *ControlMessage) Parse(b []byte) error {
	var c sys.Control
	err := c.Parse(b)
	*m = ControlMessage{
		Flags:   ControlFlags(c.Fields),
		Local:   c.Local,
		Dst:     c.Dst,
		IfIndex: c.IfIndex,
		TOS:     c.TOS,
		TTL:     c.TTL,
		Time:    c.Time,
		Dropped: c.Dropped,
	}
	if err != nil {
		return errControl
	}
	return nil
}

var errControl = errors.New("batchconn: " + sys.ErrControl.Error())

// ECN returns the low two bits of m.TOS (RFC 3168): 0 for Not-ECT, 1 for
// ECT(1), 2 for ECT(0), 3 for CE. Without ControlTOS in m.Flags they say
// nothing.
func (m *ControlMessage) ECN() int { return m.TOS & 3 }

// ReceiveControl chooses the control messages that the system adds to received
// datagrams: those for the fields named in which, and none for other fields. On
// a socket that receives both families it holds for both.
//
// What the system cannot do is [errors.ErrUnsupported], and then nothing is
// changed. The error is a *[net.OpError] with Op "set".
//
// It may be called while others read. What has arrived before it may or may not
// have the messages, so call it before the first read. A control buffer of 256
// bytes holds all that can be asked for.
func (c *Conn) ReceiveControl(which ControlFlags) error {
	if err := c.receiveControl(sys.ControlFields(which)); err != nil {
		return &net.OpError{Op: "set", Net: "udp", Addr: c.LocalAddr(), Err: err}
	}
	return nil
}

// settingControl is held by a ReceiveControl: it sets several options, and of
// two calls at once one is to win as a whole. Nothing else waits for it.
var settingControl sync.Mutex

func (c *Conn) receiveControl(which sys.ControlFields) error {
	if !c.isFromNew() {
		return syscall.EINVAL
	}
	settingControl.Lock()
	defer settingControl.Unlock()
	var err error
	closed := c.recv.setOptions(func(fd uintptr) {
		err = sys.SetReceiveControl(fd, c.recv.isIPv6, which)
	})
	if closed != nil {
		return cause(closed)
	}
	return err
}
