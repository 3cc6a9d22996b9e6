// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"errors"
	"fmt"
	"net"
	"runtime"
	"strings"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/net/ipv6"

	"github.com/batchconn/batchconn"
	"github.com/batchconn/batchconn/internal/harness"
)

// A reading is one way of receiving. To compare another one, add a line to
// readings.
type reading struct {
	key   string // what -read calls it
	name  string
	waits bool // its reads wait, and it is woken

	// open reads from u, which is its own from then on, into the mailbag.
	open func(u *net.UDPConn, m *harness.Mailbag) (*reader, error)
}

// readings are compared with the first.
var readings = []reading{
	{"net", "net ReadFromUDPAddrPort", true, readNet},
	{"xnet", "x/net ReadBatch", true, readXNet},
	{"conn", "Conn ReadFromUDPAddrPort", true, readConn},
	{"from", "Conn ReadFrom", true, readFrom},
	{"batch", "Conn ReadBatch", true, readBatch},
	{"messages", "ReceiveMessages", true, readMessages},
}

// prompt is how receivers read when sending is compared: it costs the sender
// nothing (see [harness.Inlet]).
var prompt = reading{"prompt", harness.InletReads, false, readPrompt}

// A reader is a socket with one way of receiving.
type reader struct {
	conn deadlineCloser

	// read puts what has arrived into the mailbag from buffer i on, as much of
	// it as one call takes. It returns how many datagrams that were.
	read func(i int) (int, error)

	// drops counts what found the receive buffer full, modulo 1<<32; nil if that
	// cannot be told.
	drops func() (uint32, error)
}

type deadlineCloser interface {
	SetReadDeadline(time.Time) error
	Close() error
}

// readingOf finds a way by its key.
func readingOf(key string) (*reading, error) {
	if key == prompt.key {
		return &prompt, nil
	}
	for i := range readings {
		if readings[i].key == key {
			return &readings[i], nil
		}
	}
	return nil, fmt.Errorf("-read %s is none of %s, %s", key, prompt.key, readingKeys())
}

func readingKeys() string {
	var keys []string
	for i := range readings {
		keys = append(keys, readings[i].key)
	}
	return strings.Join(keys, ", ")
}

const (
	// batchSize is how many datagrams are taken in one call at most, or fewer if
	// they are large.
	batchSize  = 64
	batchBytes = 1 << 20
)

// readCount is how many datagrams of a size are read in one call.
func readCount(size int) int { return min(batchSize, 1+batchBytes/(size+1)) }

func readPrompt(u *net.UDPConn, m *harness.Mailbag) (*reader, error) {
	in, err := harness.NewInlet(u)
	if err != nil {
		return nil, err
	}
	r := &reader{conn: inletConn{in}, read: func(int) (int, error) { return in.Read(m) }}
	if harness.HaveDrops {
		r.drops = in.Drops
	}
	return r, nil
}

// An inletConn needs no deadline.
type inletConn struct{ *harness.Inlet }

func (inletConn) SetReadDeadline(time.Time) error { return nil }

// readEach reads one datagram a call.
func readEach[A any](conn deadlineCloser, m *harness.Mailbag, read func(p []byte) (int, A, error)) *reader {
	return &reader{conn: conn, read: func(i int) (int, error) {
		n, _, err := read(m.Buffers[i])
		if err != nil {
			return 0, err
		}
		m.Lengths[i] = n
		return 1, nil
	}}
}

func readNet(u *net.UDPConn, m *harness.Mailbag) (*reader, error) {
	return readEach(u, m, u.ReadFromUDPAddrPort), nil
}

func readConn(u *net.UDPConn, m *harness.Mailbag) (*reader, error) {
	c, err := batchconn.New(u, nil)
	if err != nil {
		return nil, err
	}
	return readEach(c, m, c.ReadFromUDPAddrPort), nil
}

func readFrom(u *net.UDPConn, m *harness.Mailbag) (*reader, error) {
	c, err := batchconn.New(u, nil)
	if err != nil {
		return nil, err
	}
	return readEach(c, m, c.ReadFrom), nil
}

// readBatches reads with a ReadBatch.
func readBatches(conn deadlineCloser, m *harness.Mailbag, read func(ms []ipv4.Message, flags int) (int, error)) *reader {
	ms := make([]ipv4.Message, len(m.Buffers))
	for i := range ms {
		ms[i].Buffers = m.Buffers[i : i+1]
	}
	return &reader{conn: conn, read: func(i int) (int, error) {
		n, err := read(ms[i:min(i+batchSize, len(ms))], 0)
		for k := range max(n, 0) {
			m.Lengths[i+k] = ms[i+k].N
		}
		return max(n, 0), err // x/net's is -1 with an error
	}}
}

func readXNet(u *net.UDPConn, m *harness.Mailbag) (*reader, error) {
	if runtime.GOOS == "windows" { // x/net reads nothing there
		return nil, errors.ErrUnsupported
	}
	return readBatches(u, m, xnetConn(u).ReadBatch), nil
}

func readBatch(u *net.UDPConn, m *harness.Mailbag) (*reader, error) {
	c, err := batchconn.New(u, nil)
	if err != nil {
		return nil, err
	}
	return readBatches(c, m, c.ReadBatch), nil
}

func readMessages(u *net.UDPConn, m *harness.Mailbag) (*reader, error) {
	c, err := batchconn.New(u, nil)
	if err != nil {
		return nil, err
	}
	msgs := make([]batchconn.InputMessage, len(m.Buffers))
	for i := range msgs {
		msgs[i].Vectors = m.Buffers[i : i+1]
	}
	return &reader{conn: c, read: func(i int) (int, error) {
		n, err := c.ReceiveMessages(nil, msgs[i:min(i+batchSize, len(msgs))], 0)
		for k := range n {
			m.Lengths[i+k] = msgs[i+k].BytesReceived
		}
		return n, err
	}}, nil
}

// xnetConn is the PacketConn of golang.org/x/net for u's family.
func xnetConn(u *net.UDPConn) interface {
	ReadBatch(ms []ipv4.Message, flags int) (int, error)
	WriteBatch(ms []ipv4.Message, flags int) (int, error)
} {
	if u.LocalAddr().(*net.UDPAddr).IP.To4() != nil {
		return ipv4.NewPacketConn(u)
	}
	return ipv6.NewPacketConn(u)
}
