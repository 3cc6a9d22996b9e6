// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import "golang.org/x/sys/unix"

const (
	recvIF  = unix.IP_RECVIF
	recvTOS = noMessage
)

var moreControlOptions = []controlOption{timestampOption}

// pktInfo is IP_PKTINFO of netinet/in.h (NetBSD 8), which x/sys does not have.
const pktInfo = 25

// append4 writes what ip_setpktopts reads. Any other message is ENOPROTOOPT.
func (c *Control) append4(b []byte) []byte { return c.appendShortPacketInfo(b, pktInfo) }
