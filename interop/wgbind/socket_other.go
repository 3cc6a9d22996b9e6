// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux

package wgbind

// SetMark does nothing.
func (b *Bind) SetMark(mark uint32) error { return nil }
