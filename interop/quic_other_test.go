// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux

package interop

// wantGSO is what quic-go says of its connections where it cannot segment.
const wantGSO = false
