// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !unix

package harness

import "time"

// HaveProcessCPU reports whether ProcessCPU is known.
const HaveProcessCPU = false

// ProcessCPU is not known here.
func ProcessCPU() time.Duration { return 0 }
