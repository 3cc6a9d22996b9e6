// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

// raceEnabled is set by race_test.go.
var raceEnabled bool
