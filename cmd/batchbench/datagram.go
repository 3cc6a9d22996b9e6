// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"bytes"
	"encoding/binary"
)

// A datagram is a header, a part of the pattern that the header chooses, and
// the sequence number again, so that one made of two is seen:
//
//	0   run       which run of a way sent it
//	8   sequence  counts from 0 from each sender to each receiver in a run
//	16  length    of the whole datagram
//	20  sender
//	22  receiver
//	24  slot      of the sender's buffers that it was sent from
//	28  sum       of all above
//	32  part of the pattern
//	-8  sequence
const (
	headerSize = 32
	tailSize   = 8
	minSize    = headerSize + tailSize
	maxSize    = 65507 // the maximum that IPv4 carries: 65535 less the headers of IP and UDP
)

type header struct {
	run      uint64
	sequence uint64
	length   uint32
	sender   uint16
	receiver uint16
	slot     uint32
}

// pattern is what payloads are cut from, starting in its first patternStarts
// bytes. It is the same in every batchbench.
var pattern = makePattern()

const patternStarts = 4096

func makePattern() []byte {
	p := make([]byte, 0, patternStarts+maxSize+8)
	for i := uint64(1); len(p) < patternStarts+maxSize; i++ {
		p = binary.LittleEndian.AppendUint64(p, mix(i))
	}
	return p
}

// mix is the finalizer of splitmix64.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// fixed hashes what stays the same in a slot during a run.
func (h *header) fixed() uint64 {
	pair := uint64(h.sender)<<16 | uint64(h.receiver)
	return mix(mix(h.run+1) ^ uint64(h.slot)<<32 ^ uint64(h.length) ^ mix(pair+1))
}

func sum(fixed, sequence uint64) uint32 { return uint32(mix(fixed ^ mix(sequence+1))) }

// body is the part of the pattern for a header's fixed hash.
func body(fixed uint64, size int) []byte {
	return pattern[fixed%patternStarts:][:size-minSize]
}

// compose writes all of a datagram but its sequence, and returns the hash that
// stamp wants.
func (h *header) compose(p []byte) (fixed uint64) {
	h.length = uint32(len(p))
	binary.BigEndian.PutUint64(p[0:], h.run)
	binary.BigEndian.PutUint32(p[16:], h.length)
	binary.BigEndian.PutUint16(p[20:], h.sender)
	binary.BigEndian.PutUint16(p[22:], h.receiver)
	binary.BigEndian.PutUint32(p[24:], h.slot)
	fixed = h.fixed()
	copy(p[headerSize:], body(fixed, len(p)))
	return fixed
}

// stamp completes a composed datagram.
func stamp(p []byte, fixed, sequence uint64) {
	binary.BigEndian.PutUint64(p[8:], sequence)
	binary.BigEndian.PutUint32(p[28:], sum(fixed, sequence))
	binary.BigEndian.PutUint64(p[len(p)-tailSize:], sequence)
}

// parse checks every byte of a datagram.
func parse(p []byte) (h header, intact bool) {
	if len(p) < minSize || len(p) > maxSize {
		return h, false
	}
	h = header{
		run:      binary.BigEndian.Uint64(p[0:]),
		sequence: binary.BigEndian.Uint64(p[8:]),
		length:   binary.BigEndian.Uint32(p[16:]),
		sender:   binary.BigEndian.Uint16(p[20:]),
		receiver: binary.BigEndian.Uint16(p[22:]),
		slot:     binary.BigEndian.Uint32(p[24:]),
	}
	fixed := h.fixed()
	intact = int(h.length) == len(p) &&
		binary.BigEndian.Uint32(p[28:]) == sum(fixed, h.sequence) &&
		bytes.Equal(p[headerSize:len(p)-tailSize], body(fixed, len(p))) &&
		binary.BigEndian.Uint64(p[len(p)-tailSize:]) == h.sequence
	return h, intact
}
