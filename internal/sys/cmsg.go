// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import "encoding/binary"

// The layout of control messages, cmsg(3): a header with the length, level and
// type of the message, its data, and padding up to the next one. How long the
// length is and what is aligned to what differs by system: cmsgWord, cmsgLen
// and cmsgSpace.

// NextControl takes the first control message off b. It returns the message's
// level, type and data, and what comes after it. ok is false if b is cut short.
func NextControl(b []byte) (level, typ int, data, rest []byte, ok bool) {
	head := cmsgLen(0)
	if len(b) < head {
		return 0, 0, nil, nil, false
	}
	length := cmsgLength(b)
	if length < uint64(head) || length > uint64(len(b)) {
		return 0, 0, nil, nil, false
	}
	end := int(length)
	level = int(int32(binary.NativeEndian.Uint32(b[cmsgWord:])))
	typ = int(int32(binary.NativeEndian.Uint32(b[cmsgWord+4:])))
	next := min(cmsgSpace(end-head), len(b)) // the last one may lack its padding
	return level, typ, b[head:end:end], b[next:], true
}

// cmsgLength is the length that the message at the start of b says it has.
func cmsgLength(b []byte) uint64 {
	if cmsgWord == 8 {
		return binary.NativeEndian.Uint64(b)
	}
	return uint64(binary.NativeEndian.Uint32(b))
}

// maxControlSpace is more than any message takes that AppendControl makes: the
// 20 bytes of struct in6_pktinfo with a header and padding of 16 bytes each.
const maxControlSpace = 64

var noData [maxControlSpace]byte

// AppendControl appends a control message with n bytes of data, all zero, and
// returns it with that data. b ends where a message ends, padding included.
func AppendControl(b []byte, level, typ, n int) (grown, data []byte) {
	start := len(b)
	b = append(b, noData[:cmsgSpace(n)]...)
	m := b[start:]
	length := cmsgLen(n)
	if cmsgWord == 8 {
		binary.NativeEndian.PutUint64(m, uint64(length))
	} else {
		binary.NativeEndian.PutUint32(m, uint32(length))
	}
	binary.NativeEndian.PutUint32(m[cmsgWord:], uint32(level))
	binary.NativeEndian.PutUint32(m[cmsgWord+4:], uint32(typ))
	return b, m[cmsgLen(0):length:length]
}
