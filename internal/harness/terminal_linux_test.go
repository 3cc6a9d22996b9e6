// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package harness

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

func TestTerminalWidth(t *testing.T) {
	pty, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip(err)
	}
	defer pty.Close()
	for _, columns := range []uint16{132, 20, 0} {
		if err := unix.IoctlSetWinsize(int(pty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: 5}); err != nil {
			t.Fatal(err)
		}
		if got, is := TerminalWidth(pty); got != int(columns) || !is {
			t.Errorf("%d columns, a terminal: %v; want %d", got, is, columns)
		}
	}
	null, err := os.Open(os.DevNull) // a character device, but no terminal
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if got, is := TerminalWidth(null); is {
		t.Errorf("%s is a terminal of %d columns", os.DevNull, got)
	}
}
