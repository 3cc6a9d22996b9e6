// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package harness

import (
	"os"

	"golang.org/x/sys/unix"
)

// TerminalWidth is how many columns f has, and whether it is a terminal. A
// terminal that does not say has 0.
func TerminalWidth(f *os.File) (columns int, is bool) {
	ws, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil {
		return 0, false
	}
	return int(ws.Col), true
}
