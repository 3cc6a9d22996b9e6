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

// append4 writes what udp_output reads.
func (c *Control) append4(b []byte) []byte { return c.appendSource4(b) }
