// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !linux

package harness

import "errors"

// HaveDrops reports whether Drops is known.
const HaveDrops = false

// Drops is not known here.
func (in *Inlet) Drops() (uint32, error) { return 0, errors.ErrUnsupported }
