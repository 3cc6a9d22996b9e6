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
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// How a send ends: what is told, in which order, and of which message.

// TestChecksInOrder: a pending error comes before the write deadline, that
// before the first message, and Close before all.
func TestChecksInOrder(t *testing.T) {
	badAddr := send{"WriteBatch, no UDPAddr", false, func(c *Conn, _ context.Context, _ []OutputMessage) (int, error) {
		return c.WriteBatch([]ipv4.Message{{Buffers: [][]byte{{1}}, Addr: &net.IPAddr{IP: net.IPv4(127, 0, 0, 1)}}}, 0)
	}}
	for _, call := range append(slices.Clone(sends), badAddr) {
		t.Run(call.name, func(t *testing.T) {
			w := connectedKind.world(t, 1, nil)
			bad := []OutputMessage{{Addr: w.inboxes[0].addr, Vectors: [][]byte{{1}}}}
			ofMessage := net.ErrWriteToConnected
			if call.name == badAddr.name {
				ofMessage = syscall.EINVAL
			}
			send := func(want error) {
				t.Helper()
				n, err := call.call(w.conn, nil, bad)
				var each *BatchError
				if errors.As(err, &each) && len(each.Failed) == 1 && want == ofMessage {
					n, err = 0, each.Failed[0].Err
				}
				if n != 0 {
					t.Errorf("n = %d with %v", n, err)
				}
				checkError(t, err, want)
			}
			w.conn.send.pending.add(ended(os.NewSyscallError("sendmsg", refused)))
			w.conn.SetWriteDeadline(time.Unix(1, 0))
			send(refused)
			send(os.ErrDeadlineExceeded)
			w.conn.SetWriteDeadline(time.Time{})
			send(ofMessage)
			w.conn.send.pending.add(ended(os.NewSyscallError("sendmsg", refused)))
			w.conn.SetWriteDeadline(time.Unix(1, 0))
			w.conn.Close()
			send(net.ErrClosed)
		})
	}
}

// TestErrorNamesNetwork: as net names it, which knows what the user asked for.
func TestErrorNamesNetwork(t *testing.T) {
	peer := newInbox(t, "udp4", "127.0.0.1")
	for _, network := range []string{"udp", "udp4", "udp6"} {
		for _, dialed := range []bool{false, true} {
			host := "127.0.0.1"
			if network == "udp6" {
				host = "::1"
			}
			c, err := net.ListenUDP(network, &net.UDPAddr{IP: net.ParseIP(host)})
			if err == nil && dialed {
				c.Close()
				c, err = net.DialUDP(network, nil, &net.UDPAddr{IP: net.ParseIP(host), Port: int(peer.addr.Port())})
			}
			if err != nil {
				t.Logf("no %s here: %v", network, err)
				continue
			}
			conn, err := New(c, nil)
			if err != nil {
				t.Fatal(err)
			}
			conn.Close()
			for _, call := range sends {
				_, err := call.call(conn, nil, []OutputMessage{{}})
				if op, ok := err.(*net.OpError); !ok || op.Net != network || op.Source == nil || dialed != (op.Addr != nil) {
					t.Errorf("%s, dialed %v, %s: %#v", network, dialed, call.name, err)
				}
			}
			_, want := c.WriteToUDPAddrPort(nil, netip.AddrPort{})
			if op, ok := want.(*net.OpError); !ok || op.Net != network {
				t.Errorf("net's own error on %s: %#v", network, want)
			}
		}
	}
}

// TestErrorNamesDestination: an error of a message names where it was to go,
// and one of the socket the peer, if there is one.
func TestErrorNamesDestination(t *testing.T) {
	for _, k := range []kind{plainKind, connectedKind} {
		for _, call := range sends {
			for _, control := range [][]byte{nil, {}} { // with one, no lone datagram is sent by itself
				w, _ := scripted(t, k, func(int, []ipv4.Message) (int, error) { return 0, os.NewSyscallError("sendmmsg", syscall.EPERM) })
				msgs := []OutputMessage{{Addr: w.dest[0], Vectors: [][]byte{{1}}, Control: control}}
				if control != nil {
					msgs = append(msgs, msgs[0])
				}
				_, err := call.call(w.conn, nil, msgs)
				var each *BatchError
				if errors.As(err, &each) {
					if each.Failed[0].Addr != w.dest[0] {
						t.Errorf("%s, %s: MessageError of %v, want %v", k.name, call.name, each.Failed[0].Addr, w.dest[0])
					}
					err = each.Failed[0].Err
				}
				checkError(t, err, syscall.EPERM)
				if to := err.(*net.OpError).Addr; to == nil || to.(*net.UDPAddr).AddrPort() != w.inboxes[0].addr {
					t.Errorf("%s, %s: the error is of %v, want %v", k.name, call.name, to, w.inboxes[0].addr)
				}
			}
		}
	}
}

// TestLoneError: the error of a lone datagram is of that datagram, whatever
// call sends it.
func TestLoneError(t *testing.T) {
	forbidden := func(int, []ipv4.Message) (int, error) { return 0, os.NewSyscallError("sendto", syscall.EPERM) }
	w, _ := scripted(t, plainKind, forbidden)
	msgs := []OutputMessage{{Addr: w.dest[0], Vectors: [][]byte{{1}}}}
	n, err := w.conn.SendEach(nil, msgs, 0)
	var each *BatchError
	if n != 1 || !errors.As(err, &each) || len(each.Failed) != 1 || each.Err != nil {
		t.Errorf("SendEach: %d, %#v", n, err)
	}
	if s := w.conn.Stats(); s.Failed != 1 || s.WouldBlock != 0 {
		t.Errorf("SendEach: %+v", s)
	}
	wr := NewWriter(w.conn, &WriterConfig{MaxDelay: -1, OnError: func(to netip.AddrPort, err error) {
		if to != w.dest[0] {
			t.Errorf("Writer: %v is reported of %v", err, to)
		}
	}})
	mustWrite(t, wr, []byte{1}, w.dest[0])
	checkError(t, wr.Flush(nil), syscall.EPERM)
	if s := w.conn.Stats(); s.Failed != 2 {
		t.Errorf("Writer: %+v", s)
	}
}

// A replies is a script of errors: one for each call, nil from there on.
func replies(errs ...error) func(call int, ms []ipv4.Message) (int, error) {
	return func(call int, ms []ipv4.Message) (int, error) {
		if call <= len(errs) && errs[call-1] != nil {
			return 0, os.NewSyscallError("sendmmsg", errs[call-1])
		}
		return len(ms), nil
	}
}

// TestSecondTry: on a connected socket SendEach sends a message again that met
// what may have been pending. If it leaves, no message failed.
func TestSecondTry(t *testing.T) {
	for _, n := range []int{1, 5} {
		for _, test := range []struct {
			name string
			errs []error
			told error // by SendEach, as one of the socket
			sent int
			of   error // of the first message
		}{
			{"pending", []error{refused}, refused, n, nil},
			{"too long, pending", []error{syscall.EMSGSIZE}, syscall.EMSGSIZE, n, nil},
			{"pending, caused anew by others", slices.Repeat([]error{refused}, maxPassed), refused, n, nil},
			{"refused for ever", slices.Repeat([]error{refused}, maxPassed+1), nil, n, refused},
			{"of the message", []error{noRoute, noRoute}, nil, n, noRoute},
			{"too long", []error{syscall.EMSGSIZE, syscall.EMSGSIZE}, nil, n, syscall.EMSGSIZE},
			{"pending, then of the message", []error{refused, syscall.EPERM}, refused, 0, nil},
			{"not pending", []error{syscall.EPERM}, nil, n, syscall.EPERM},
		} {
			w, s := scripted(t, connectedKind, replies(test.errs...))
			m := w.write(t, n, inTurn, runSize)
			sent, err := w.conn.SendEach(nil, m.msgs, 0)
			if sent != test.sent {
				t.Errorf("%s: %d of %d, %v", test.name, sent, n, err)
			}
			var each *BatchError
			switch {
			case errors.As(err, &each):
				if test.of == nil || len(each.Failed) != 1 || each.Failed[0].Index != 0 || !errors.Is(each.Failed[0].Err, test.of) || each.Err != nil {
					t.Errorf("%s: %v", test.name, err)
				}
				if len(s.taken) != n-1 || w.conn.Stats().Failed != 1 {
					t.Errorf("%s: %d went out; %+v", test.name, len(s.taken), w.conn.Stats())
				}
			case test.told != nil && test.of == nil:
				checkError(t, err, test.told)
				s.checkTaken(t, m, sent)
				if w.conn.Stats().Failed != 0 {
					t.Errorf("%s: %+v", test.name, w.conn.Stats())
				}
			default:
				t.Errorf("%s: %v", test.name, err)
			}
			if _, err := w.conn.SendMessages(nil, m.msgs[:1], 0); err != nil {
				t.Errorf("%s: told again: %v", test.name, err)
			}
		}
	}
}

// TestSecondTryEnds: what ends the call before the second try loses no pending
// error.
func TestSecondTryEnds(t *testing.T) {
	for _, pending := range []error{refused, syscall.EMSGSIZE} {
		w, _ := scripted(t, connectedKind, replies(pending, sys.EWOULDBLOCK, sys.EWOULDBLOCK))
		m := w.write(t, 3, inTurn, runSize)
		n, err := w.conn.SendEach(nil, m.msgs, MsgDontWait)
		if n != 0 {
			t.Errorf("n = %d", n)
		}
		checkError(t, err, pending)
		_, err = w.conn.SendEach(nil, m.msgs, MsgDontWait)
		checkError(t, err, ErrWouldBlock)
		if n, err := w.conn.SendEach(nil, m.msgs, MsgDontWait); n != 3 || err != nil {
			t.Errorf("then %d, %v", n, err)
		}
	}
}

// TestSecondTryWriter: the same of a Writer, for which Flush tells it.
func TestSecondTryWriter(t *testing.T) {
	for _, n := range []int{1, 5} {
		for _, errs := range [][]error{
			{refused}, {refused, sys.EWOULDBLOCK}, {noRoute, noRoute},
		} {
			w, s := scripted(t, connectedKind, replies(errs...))
			var failed failures
			wr := NewWriter(w.conn, &WriterConfig{MaxDelay: -1, OnError: failed.add})
			for i := range n {
				mustWrite(t, wr, contents(i, 50), netip.AddrPort{})
			}
			checkError(t, wr.Flush(nil), errs[0])
			lost := 0
			if errs[len(errs)-1] == errs[0] && len(errs) > 1 {
				lost = 1 // it was of the datagram
			}
			if len(failed.errs) != lost {
				t.Errorf("%d: %v reported, want %d", n, failed.errs, lost)
			}
			var arrived []byte
			for _, p := range s.taken {
				arrived = append(arrived, p...)
			}
			if len(arrived) != 50*(n-lost) {
				t.Errorf("%d: %d bytes went out", n, len(arrived))
			}
			if err := wr.Flush(nil); err != nil {
				t.Errorf("told again: %v", err)
			}
		}
	}
}
