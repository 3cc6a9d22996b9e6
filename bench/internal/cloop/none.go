// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !cgo

package cloop

import (
	"errors"
	"time"
)

// Missing says why there are no loops.
const Missing = "built without cgo (no C compiler, or CGO_ENABLED=0)"

// GLib is not here.
func GLib() (version, missing string) { return "", Missing }

// Send fails.
func Send(Sending, *Job) (int, error) { return 0, errors.New(Missing) }

// A Receiver is not here.
type Receiver struct{ Buffers [][]byte }

// NewReceiver fails.
func NewReceiver(how Receiving, fd, count, size int) (*Receiver, error) {
	return nil, errors.New(Missing)
}

// Read fails.
func (*Receiver) Read(int, []int, time.Duration) (int, error) { return 0, errors.New(Missing) }

// Close does nothing.
func (*Receiver) Close() error { return nil }
