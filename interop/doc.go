// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Package interop runs unmodified libraries on batchconn's connections, end to
// end over loopback and over a wire, beside the same run on a bare
// *net.UDPConn. It holds tests only. To be copied are
// [github.com/batchconn/batchconn/interop/wgbind] and
// [github.com/batchconn/batchconn/interop/replyconn].
package interop
