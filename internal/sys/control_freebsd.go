// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import "golang.org/x/sys/unix"

const (
	recvIF  = unix.IP_RECVIF
	recvTOS = unix.IP_RECVTOS
)

var moreControlOptions = []controlOption{
	{ControlTOS, levelIPv4, unix.IPPROTO_IP, unix.IP_RECVTOS, 0},
	timestampOption,
}

// append4 writes what udp_send reads. Any other message is ENOPROTOOPT.
func (c *Control) append4(b []byte) []byte {
	b = c.appendSource4(b)
	if c.Fields&ControlTOS != 0 { // one byte, and no other length
		var data []byte
		b, data = AppendControl(b, unix.IPPROTO_IP, unix.IP_TOS, 1)
		data[0] = byte(c.TOS)
	}
	return b
}
