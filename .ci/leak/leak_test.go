// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"testing"

	"go.uber.org/goleak"
)

// TestMain fails if a goroutine is left when all tests have ended.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
