// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package harness

import (
	"context"
	"net"
	"net/netip"
	"time"

	"golang.org/x/net/ipv4"
)

// A BatchWriter sends as x/net does.
type BatchWriter interface {
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
}

// WriteAll sends all messages, in as many calls as it takes.
func WriteAll(w BatchWriter, ms []ipv4.Message) error {
	_, _, err := WriteCounting(w, ms)
	return err
}

// WriteCounting is WriteAll that says how many messages it sent, in how many
// calls that sent any.
func WriteCounting(w BatchWriter, ms []ipv4.Message) (n, calls int, err error) {
	for n < len(ms) {
		k, err := w.WriteBatch(ms[n:], 0)
		if err != nil {
			return n, calls, err
		}
		n += k
		calls++
	}
	return n, calls, nil
}

// A MessageSender sends as batchconn does; M is its OutputMessage.
type MessageSender[M any] interface {
	SendMessages(ctx context.Context, msgs []M, flags int) (int, error)
}

// SendAll sends all messages, in as many calls as it takes.
func SendAll[M any](s MessageSender[M], ctx context.Context, msgs []M) error {
	for len(msgs) > 0 {
		n, err := s.SendMessages(ctx, msgs, 0)
		if err != nil {
			return err
		}
		msgs = msgs[n:]
	}
	return nil
}

// Repeat calls f, which sends n datagrams, for about d, but at least once. It
// returns how many were sent.
func Repeat(n int, d time.Duration, f func() error) (sent int, err error) {
	for begin := time.Now(); ; {
		for range BatchesPerLook(n, d) {
			if err := f(); err != nil {
				return sent, err
			}
			sent += n
		}
		if time.Since(begin) >= d {
			return sent, nil
		}
	}
}

// BatchesPerLook is how many batches of n datagrams are sent between looks at
// the clock, which would weigh on small ones.
func BatchesPerLook(n int, d time.Duration) int {
	if d == 0 {
		return 1
	}
	return max(1, 64/n)
}

// Sinks opens n receivers on loopback that nobody reads: the kernel drops what
// does not fit, at the same cost for every sender.
func Sinks(n int) (addrs []netip.AddrPort, closeAll func(), err error) {
	var conns []*net.UDPConn
	closeAll = func() {
		for _, c := range conns {
			c.Close()
		}
	}
	for range n {
		c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			closeAll()
			return nil, nil, err
		}
		conns = append(conns, c)
		addrs = append(addrs, c.LocalAddr().(*net.UDPAddr).AddrPort())
	}
	return addrs, closeAll, nil
}
