// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build !unix && !windows

package harness

import "os"

// TerminalWidth is how many columns f has, and whether it is a terminal, which
// cannot be told here.
func TerminalWidth(f *os.File) (columns int, is bool) { return 0, false }
