// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux || android || batchconn_portable

package sys

import (
	"net/netip"
	"syscall"
)

// InMessages are messages to be filled, one a call. The zero value is empty.
type InMessages struct {
	messages []inMessage
	got      struct {
		n, control, flags int
		from              netip.AddrPort
	}
}

type inMessage struct {
	vectors [][]byte
	control []byte
}

// Reset makes it empty, with room for so many messages of so many vectors
// together. It keeps nothing that was added before.
func (m *InMessages) Reset(messages, vectors int) { m.Forget() }

// Forget makes it empty.
func (m *InMessages) Forget() {
	clear(m.messages)
	m.messages = m.messages[:0]
}

// Add adds a message. There must be room for it.
func (m *InMessages) Add(vectors [][]byte, control []byte) {
	m.messages = append(m.messages, inMessage{vectors, control})
}

// AddOne adds a message of one vector.
func (m *InMessages) AddOne(p, control []byte) { m.Add([][]byte{p}, control) }

// AddTwo adds a message of two vectors.
func (m *InMessages) AddTwo(p, q, control []byte) { m.Add([][]byte{p, q}, control) }

// Len is how many messages were added.
func (m *InMessages) Len() int { return len(m.messages) }

// Got says what is in a message that Recv filled: bytes of payload and of
// control data, and flags.
func (m *InMessages) Got(i int) (n, control, flags int) {
	return m.got.n, m.got.control, m.got.flags
}

// From is where a message came from.
func (m *InMessages) From(i int) netip.AddrPort { return m.got.from }

// Refused reports whether errno is the refusal of a call for many messages,
// which is not made here.
func (m *InMessages) Refused(fd uintptr, errno syscall.Errno) bool { return false }
