// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import "golang.org/x/sys/unix"

const (
	recvIF  = unix.IP_RECVINTERFACE
	recvTOS = noMessage
)

// No time: there is SO_TIMESTAMPNS, but x/sys does not say what it brings.
var moreControlOptions []controlOption

func (c *Control) takeTimestamp(int, []byte) bool { return true }

// append4 writes nothing: AIX documents no message to send with IPv4.
func (c *Control) append4(b []byte) []byte { return b }
