// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Package harness is what measurements share: bench_test.go, cmd/batchbench and
// bench/. It has medians, the order of turns, loops that send, receivers that
// cost the sender nothing, processor time and the width of a terminal.
//
// It does not import batchconn, whose own tests use it. Its files are named as
// those of internal/sys: _linux, _unix, _windows, and _none for the systems
// that lack the capability.
package harness
