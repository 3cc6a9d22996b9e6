// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/batchconn/batchconn/internal/sys"
)

// ErrWouldBlock is what a call that may not wait returns when it would have to:
// a send when the socket has no room for its first message, a receive when
// there is no datagram. It Is syscall.EAGAIN. Both are Temporary; EAGAIN is
// also a Timeout, and this is not, since no deadline has passed.
//
// Error values that hold this one must be tested with
// errors.Is(err, ErrWouldBlock).
var ErrWouldBlock error = wouldBlockError{}

type wouldBlockError struct{}

func (wouldBlockError) Error() string        { return "batchconn: the call would block" }
func (wouldBlockError) Is(target error) bool { return target == error(sys.EWOULDBLOCK) }
func (wouldBlockError) Temporary() bool      { return true }
func (wouldBlockError) Timeout() bool        { return false }

// A MessageError is why one message of a SendEach was not sent.
type MessageError struct {
	Index int            // of the message in the slice given to SendEach
	Addr  netip.AddrPort // its destination
	Err   error          // a *net.OpError, as SendMessages returns; neighbours to one Addr may share it
}

func (e *MessageError) Error() string { return fmt.Sprintf("message %d: %v", e.Index, e.Err) }

// Unwrap returns e.Err.
func (e *MessageError) Unwrap() error { return e.Err }

// A BatchError is returned by a SendEach in which any message failed.
type BatchError struct {
	Failed []MessageError // in order of Index
	Err    error          // what ended the call before its last message, or nil
}

// errorsShown is how many messages an error text names; 5000 lines help nobody.
const errorsShown = 3

func (e *BatchError) Error() string {
	var s strings.Builder
	if len(e.Failed) == 1 {
		s.WriteString("batchconn: 1 message failed")
	} else {
		fmt.Fprintf(&s, "batchconn: %d messages failed", len(e.Failed))
	}
	for i := range e.Failed {
		if i == errorsShown {
			s.WriteString("; ...")
			break
		}
		fmt.Fprintf(&s, "; %v", &e.Failed[i])
	}
	if e.Err != nil {
		fmt.Fprintf(&s, "; ended by: %v", e.Err)
	}
	return s.String()
}

// Unwrap returns the error of each failed message and what ended the call.
func (e *BatchError) Unwrap() []error {
	errs := make([]error, 0, len(e.Failed)+1)
	for i := range e.Failed {
		errs = append(errs, &e.Failed[i])
	}
	if e.Err != nil {
		errs = append(errs, e.Err)
	}
	return errs
}

// A socketName is what errors say of a socket. The zero value is that of a Conn
// that is not from New.
type socketName struct {
	conn    *net.UDPConn
	network string
}

// opError makes the one OpError that users see.
func (s *socketName) opError(op string, err error) net.OpError {
	if s.conn == nil {
		return net.OpError{Op: op, Net: "udp", Err: err}
	}
	return net.OpError{Op: op, Net: s.network, Source: s.conn.LocalAddr(), Addr: s.conn.RemoteAddr(), Err: err}
}

// networkOf is the network that c was made for, as net's own errors name it:
// udp, udp4 or udp6. To a write without an address net answers with such an
// error, and asks the kernel nothing.
func networkOf(c *net.UDPConn) string {
	var op *net.OpError
	if _, err := c.WriteToUDPAddrPort(nil, netip.AddrPort{}); errors.As(err, &op) {
		return op.Net
	}
	return "udp"
}
