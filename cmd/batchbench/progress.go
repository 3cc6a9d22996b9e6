// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/batchconn/batchconn/internal/harness"
)

// A progress shows one line that is written over and over; with no w, nothing.
type progress struct {
	w     io.Writer
	width func() int // of the terminal, which may change; 0 if it does not say
	last  int        // columns that are written on
}

// progressOn shows progress on stderr if a person looks at both: it would be
// between the lines of a table that goes elsewhere.
func progressOn(stdout, stderr *os.File) *progress {
	_, out := harness.TerminalWidth(stdout)
	if _, err := harness.TerminalWidth(stderr); !out || !err {
		return &progress{}
	}
	return &progress{w: stderr, width: func() int {
		columns, _ := harness.TerminalWidth(stderr)
		return columns
	}}
}

// usualWidth is that of a terminal which does not say.
const usualWidth = 80

// show writes no more than one line: one that wraps cannot be written over. The
// last column stays free, because some terminals wrap when it is written.
func (p *progress) show(format string, args ...any) {
	if p.w == nil {
		return
	}
	columns := p.width()
	if columns <= 0 {
		columns = usualWidth
	}
	line := fmt.Sprintf(format, args...)
	line = line[:min(len(line), columns-1)]
	blank := min(p.last, columns-1) - len(line)
	fmt.Fprint(p.w, "\r", line, strings.Repeat(" ", max(blank, 0)))
	p.last = len(line)
}

func (p *progress) clear() {
	if p.w != nil && p.last > 0 {
		p.show("")
		fmt.Fprint(p.w, "\r")
	}
}
