// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"errors"
	"net"
	"net/netip"
	"os"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// TestErrorQueue: on a socket that is not connected and has an error queue,
// what ICMP says of one destination neither fails nor delays a datagram to
// another, however that is sent, and stays in the queue.
func TestErrorQueue(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for code, mtu := range map[byte]uint16{3: 0, 1: 0, 4: 1400} { // ECONNREFUSED, EHOSTUNREACH, EMSGSIZE
			for _, k := range []kind{plainKind, kinds[2]} {
				for name, send := range queueSends {
					w := k.world(t, 1, nil)
					control(t, w.conn, option(unix.SOL_IP, unix.IP_RECVERR, 1))
					from := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: w.bare.LocalAddr().(*net.UDPAddr).Port}
					gone := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 9}
					sendUnreachable(t, from, gone, code, mtu)
					awaitError(t, w.bare)
					m := w.write(t, 3, inTurn, runSize)
					n, err := send(t, w.conn, m.msgs)
					if n == 0 || err != nil {
						t.Fatalf("%s, ICMP code %d, %s: %d, %v", k.name, code, name, n, err)
					}
					var want [][]byte
					for _, l := range m.letters[:n] {
						want = append(want, l.p)
					}
					w.inboxes[0].expect(t, want)
					if s := w.conn.Stats(); s.Failed != 0 || s.Messages != uint64(n) {
						t.Errorf("%s, ICMP code %d, %s: %+v", k.name, code, name, s)
					}
					if err := readErrorQueue(t, w.bare); err != nil {
						t.Errorf("%s: the error queue: %v", name, err)
					}
				}
			}
		}
	})
}

// queueSends send all of msgs, or the first.
var queueSends = map[string]func(t *testing.T, c *Conn, msgs []OutputMessage) (int, error){
	"SendMessages": func(_ *testing.T, c *Conn, msgs []OutputMessage) (int, error) { return c.SendMessages(nil, msgs, 0) },
	"SendEach":     func(_ *testing.T, c *Conn, msgs []OutputMessage) (int, error) { return c.SendEach(nil, msgs, 0) },
	"SendEach of one": func(_ *testing.T, c *Conn, msgs []OutputMessage) (int, error) {
		return c.SendEach(nil, msgs[:1], 0)
	},
	"WriteBatch": func(_ *testing.T, c *Conn, msgs []OutputMessage) (int, error) {
		return c.WriteBatch(xnetMessages(msgs), 0)
	},
	"SendTo": func(_ *testing.T, c *Conn, msgs []OutputMessage) (int, error) {
		_, err := c.SendTo(nil, bytes.Join(msgs[0].Vectors, nil), msgs[0].Addr, 0)
		return 1, err
	},
	"SendMessage": func(_ *testing.T, c *Conn, msgs []OutputMessage) (int, error) {
		_, err := c.SendMessage(nil, &msgs[0], 0)
		return 1, err
	},
	"Writer": func(t *testing.T, c *Conn, msgs []OutputMessage) (int, error) { return 3, writeThrough(t, c, -1, msgs) },
	"Writer, alone": func(t *testing.T, c *Conn, msgs []OutputMessage) (int, error) {
		return 1, writeThrough(t, c, 0, msgs[:1])
	},
}

// writeThrough writes msgs through a Writer, to which nothing is reported.
func writeThrough(t *testing.T, c *Conn, delay time.Duration, msgs []OutputMessage) error {
	w := NewWriter(c, &WriterConfig{MaxDelay: delay, OnError: func(to netip.AddrPort, err error) { t.Errorf("to %v: %v", to, err) }})
	time.Sleep(2 * idleAfter)
	for i := range msgs {
		mustWrite(t, w, bytes.Join(msgs[i].Vectors, nil), msgs[i].Addr)
	}
	return w.Flush(nil)
}

// TestErrorQueueOfMessage: what is of a message fails it on such a socket too.
func TestErrorQueueOfMessage(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		w := plainKind.world(t, 1, nil)
		control(t, w.conn, option(unix.SOL_IP, unix.IP_RECVERR, 1))
		m := w.write(t, 3, inTurn, runSize)
		m.msgs[1].Addr = netip.MustParseAddrPort("192.0.2.1:9") // to which there is no route
		n, err := w.conn.SendEach(nil, m.msgs, 0)
		var each *BatchError
		if n != 3 || !errors.As(err, &each) || len(each.Failed) != 1 || each.Failed[0].Index != 1 || !errors.Is(err, syscall.ENETUNREACH) && !errors.Is(err, syscall.EINVAL) {
			t.Fatalf("%d, %v", n, err)
		}
		w.inboxes[0].expect(t, [][]byte{m.letters[0].p, m.letters[2].p})
	})
}

// TestErrorQueueTwice: what ICMP says of two other destinations, one after the
// other as a message is tried, is not of that message.
func TestErrorQueueTwice(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		for code, mtu := range map[byte]uint16{1: 0, 4: 1400} { // EHOSTUNREACH, EMSGSIZE
			for name, send := range queueSends {
				w := plainKind.world(t, 1, nil)
				control(t, w.conn, option(unix.SOL_IP, unix.IP_RECVERR, 1))
				from := &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: w.bare.LocalAddr().(*net.UDPAddr).Port}
				var real *fake
				real = follow(w.conn, func(call int, ms []ipv4.Message) (int, error) {
					if call <= 3 {
						sendUnreachable(t, from, &net.UDPAddr{IP: net.IPv4(127, 0, 0, byte(1+call)), Port: 9}, code, mtu)
						awaitError(t, w.bare)
					}
					return real.ask(call, ms)
				})
				m := w.write(t, 3, inTurn, runSize)
				n, err := send(t, w.conn, m.msgs)
				if n == 0 || err != nil {
					t.Fatalf("ICMP code %d, %s: %d, %v", code, name, n, err)
				}
				var want [][]byte
				for _, l := range m.letters[:n] {
					want = append(want, l.p)
				}
				w.inboxes[0].expect(t, want)
			}
		}
	})
}

// TestErrorQueueAgain: each message of a call may meet an error of the queue,
// and not only one.
func TestErrorQueueAgain(t *testing.T) {
	w := plainKind.world(t, 1, nil)
	control(t, w.conn, option(unix.SOL_IP, unix.IP_RECVERR, 1))
	s := follow(w.conn, func(call int, ms []ipv4.Message) (int, error) {
		if call%2 == 1 {
			return 0, os.NewSyscallError("sendmmsg", syscall.EHOSTUNREACH)
		}
		return 1, nil
	})
	m := w.write(t, 5, inTurn, runSize)
	if n, err := w.conn.SendMessages(nil, m.msgs, 0); n != 5 || err != nil {
		t.Fatalf("%d, %v", n, err)
	}
	s.checkTaken(t, m, 5)
}

// TestErrorQueueStorm: a fan-out in which every other receiver is gone reaches
// all others, though each of them meets an error.
func TestErrorQueueStorm(t *testing.T) {
	inNamespace(t, func(t *testing.T, lo *loopback) {
		w := plainKind.world(t, 1, nil)
		control(t, w.conn, option(unix.SOL_IP, unix.IP_RECVERR, 1))
		m := w.write(t, 200, inTurn, runSize)
		var want [][]byte
		for i := range m.msgs {
			if i%2 == 0 {
				m.msgs[i].Addr = netip.MustParseAddrPort("127.0.0.1:9") // where nobody listens
			} else {
				want = append(want, m.letters[i].p)
			}
		}
		if n, err := w.conn.SendEach(nil, m.msgs, 0); n != len(m.msgs) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		w.inboxes[0].expect(t, want)
	})
}

func readErrorQueue(t *testing.T, c syscall.Conn) (err error) {
	t.Helper()
	raw, rawErr := c.SyscallConn()
	if rawErr != nil {
		t.Fatal(rawErr)
	}
	raw.Control(func(fd uintptr) {
		_, _, _, _, err = unix.Recvmsg(int(fd), make([]byte, 100), make([]byte, 500), unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT)
	})
	return err
}
