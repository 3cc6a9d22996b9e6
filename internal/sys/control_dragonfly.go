// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import "golang.org/x/sys/unix"

const (
	recvIF  = unix.IP_RECVIF
	recvTOS = 68 // IP_RECVTOS of netinet/in.h, which x/sys does not have
)

var moreControlOptions = []controlOption{
	{ControlTOS, levelIPv4, unix.IPPROTO_IP, recvTOS, 0},
	timestampOption,
}

// append4 writes what udp_send reads. Any other message is ENOPROTOOPT.
func (c *Control) append4(b []byte) []byte { return c.appendSource4(b) }
