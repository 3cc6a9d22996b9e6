// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

// Control messages, made without the code that is tested, on every build for
// Linux.

// cmsg is a control message as x/net's Marshal makes it (cmsg(3)).
func cmsg(level, typ int, data ...byte) []byte {
	var b []byte
	length := uint64(unix.CmsgLen(len(data)))
	if unix.SizeofCmsghdr == 12 { // size_t has 32 bits
		b = binary.NativeEndian.AppendUint32(b, uint32(length))
	} else {
		b = binary.NativeEndian.AppendUint64(b, length)
	}
	b = binary.NativeEndian.AppendUint32(b, uint32(level))
	b = append(binary.NativeEndian.AppendUint32(b, uint32(typ)), data...)
	return append(b, make([]byte, unix.CmsgSpace(len(data))-len(b))...)
}

func cmsgInt(level, typ, value int) []byte {
	return cmsg(level, typ, binary.NativeEndian.AppendUint32(nil, uint32(value))...)
}

func uint16s(vs ...uint16) (b []byte) {
	for _, v := range vs {
		b = binary.NativeEndian.AppendUint16(b, v)
	}
	return b
}

// ownSize is the segment size of fuzzed messages that the user segments: none
// of ours, and none of fuzzSizes. The planner's model leaves them whole.
const ownSize = 100

var fuzzControls = [][]byte{
	nil,
	cmsgInt(unix.SOL_IP, unix.IP_TOS, 8),
	cmsgInt(unix.SOL_IP, unix.IP_TOS, 16),
	append(cmsgInt(unix.SOL_IP, unix.IP_TTL, 8), cmsg(unix.SOL_IP, unix.IP_TOS, 4)...),
	cmsg(unix.SOL_IP, unix.IP_TOS, 4)[:unix.CmsgLen(1)], // without the padding
	cmsg(unix.SOL_UDP, unix.UDP_SEGMENT, uint16s(ownSize)...),
	cmsgInt(unix.SOL_SOCKET, unix.SO_TIMESTAMPING, 2),
	{1, 2, 3},
}
