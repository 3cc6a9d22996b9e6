// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"fmt"
	"io"
	"strings"
)

// A report is written as Markdown.
type report struct {
	*Results
	w io.Writer
}

func writeReport(w io.Writer, res *Results) {
	r := report{res, w}
	r.printf("%v.\n%s.\n\n", &res.Machine, res.Machine.peers())
	r.printf("Medians of %d rounds of %s, in each of which all sent in turn, in random order; behind ± is half of what lies between the quartiles.\n", res.Rounds, res.Slot)
	for _, m := range res.Missing {
		r.printf("\nLeft out: %s.\n", m)
	}
	r.base()
	r.matrix("Processor time for a datagram, ns", func(row Row) string { return fmt.Sprintf("%.0f", row.CPU.Median) })
	r.matrix("Thousands of datagrams a second", func(row Row) string { return fmt.Sprintf("%.0f", row.Rate.Median/1e3) })
	r.ahead()
	r.failures()
}

func (r *report) printf(format string, args ...any) { fmt.Fprintf(r.w, format, args...) }

// base is the table of the first contest in full.
func (r *report) base() {
	c := r.Contests[0]
	r.printf("\n%d receiver, %d bytes, batches of %d, %d sender. \"x\": how many times as fast as the first, by the clock and in processor time of the sending process.\n\n",
		c.Receivers, c.Size, c.Batch, c.Senders)
	r.printf("| | datagrams/s | ns | CPU ns | x | CPU x | arrived |\n|---|--:|--:|--:|--:|--:|--:|\n")
	for _, row := range c.Rows {
		if row.Error != "" {
			continue
		}
		r.printf("| %s | %s | %.0f ± %.0f | %.0f ± %.0f | %.2f ± %.2f | %.2f ± %.2f | %s |\n", row.Way, millions(row.Rate.Median),
			row.Wall.Median, row.Wall.half(), row.CPU.Median, row.CPU.half(),
			row.WallGain.Median, row.WallGain.half(), row.CPUGain.Median, row.CPUGain.half(), share(row.Arrived))
	}
}

func (s Spread) half() float64 { return (s.High - s.Low) / 2 }

func millions(v float64) string { return fmt.Sprintf("%.2f M", v/1e6) }

// share never says 100% of less than all.
func share(v float64) string {
	if v < 1 {
		return fmt.Sprintf("%.1f%%", min(v*100, 99.9))
	}
	return "100%"
}

// matrix is one figure of all ways at all works.
func (r *report) matrix(title string, cell func(Row) string) {
	r.printf("\n%s:\n\n| |", title)
	for _, c := range r.Contests {
		r.printf(" %s |", c.Name)
	}
	r.printf("\n|---|%s\n", strings.Repeat("--:|", len(r.Contests)))
	for i, row := range r.Contests[0].Rows {
		r.printf("| %s |", row.Way)
		for _, c := range r.Contests {
			if c.Rows[i].Error != "" {
				r.printf(" failed |")
				continue
			}
			r.printf(" %s |", cell(c.Rows[i]))
		}
		r.printf("\n")
	}
}

// ahead says where somebody was faster than batchconn.
func (r *report) ahead() {
	if _, ok := atLeast(make([]float64, r.Rounds)); !ok {
		r.printf("\nToo few rounds to say who is ahead.\n")
		return
	}
	r.printf("\nAhead of batchconn, by %.0f%% or more and not by chance (less than %g for each comparison). In brackets: at least so many times.\n", (worthSaying-1)*100, chance)
	found := false
	all, _ := contenders()
	for _, ct := range all {
		lines := r.aheadOf(ct.Name)
		if len(lines) == 0 {
			continue
		}
		found = true
		r.printf("\n%s (%s):\n\n%s", ct.Name, ct.does, strings.Join(lines, ""))
	}
	if !found {
		r.printf("\nNobody.\n")
	}
}

// aheadOf has a line for each way that the peer is ahead of.
func (r *report) aheadOf(peer string) (lines []string) {
	var keys []string
	where := map[string][]string{}
	for _, c := range r.Contests {
		for _, a := range c.Ahead {
			if a.Peer != peer {
				continue
			}
			key := fmt.Sprintf("of %s by the clock", a.Of)
			if a.In == inCPU {
				key = fmt.Sprintf("of %s in processor time", a.Of)
			}
			if where[key] == nil {
				keys = append(keys, key)
			}
			where[key] = append(where[key], fmt.Sprintf("%s %.2f (%.2f)", c.Name, a.Times, a.AtLeast))
		}
	}
	for _, key := range keys {
		lines = append(lines, fmt.Sprintf("- %s: %s\n", key, strings.Join(where[key], "; ")))
	}
	return lines
}

// failures lists what did not work.
func (r *report) failures() {
	for _, c := range r.Contests {
		for _, row := range c.Rows {
			if row.Error != "" {
				r.printf("\nFAILED: %s, %s: %s\n", c.Name, row.Way, row.Error)
			}
		}
	}
}

func (r *Results) failed() (n int) {
	for _, c := range r.Contests {
		for _, row := range c.Rows {
			if row.Error != "" {
				n++
			}
		}
	}
	return n
}
