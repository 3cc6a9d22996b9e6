// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"encoding/binary"

	"golang.org/x/sys/unix"
)

const (
	recvIF  = unix.IP_RECVIF
	recvTOS = noMessage
)

var moreControlOptions = []controlOption{timestampOption}

// pktInfo is IP_PKTINFO of netinet/in.h (NetBSD 8), which x/sys does not have.
const pktInfo = 25

// append4 writes what ip_setpktopts reads, a struct in_pktinfo without Linux's
// ipi_spec_dst. Any other message is ENOPROTOOPT.
func (c *Control) append4(b []byte) []byte {
	source := c.source(true)
	if !source.IsValid() && c.device() == 0 {
		return b
	}
	b, data := AppendControl(b, unix.IPPROTO_IP, pktInfo, 8)
	if source.IsValid() {
		a := source.As4()
		copy(data, a[:])
	}
	binary.NativeEndian.PutUint32(data[4:], c.device())
	return b
}
