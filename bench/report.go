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
	r.printf("# Measured\n\n%v.\n%s.\n", &res.Machine, res.Machine.peers())
	r.printf("\n`%s`, medians of %d rounds of %s, in each of which all took turns, in random order; behind ± is half of what lies between the quartiles.\n", res.Command, res.Rounds, res.Slot)
	r.printf("The machine's load was %s before it began (1, 5 and 15 minutes): what was above 0 is others' work. Ratios within a round bear that, times less so.\n", res.Machine.Load)
	for _, m := range res.Missing {
		r.printf("\nLeft out: %s.\n", m)
	}
	r.sending()
	r.reading()
	r.overrun()
	r.ends()
	r.ahead()
	r.failures()
}

func (r *report) printf(format string, args ...any) { fmt.Fprintf(r.w, format, args...) }

// sending is the part in which the sender's time is measured.
func (r *report) sending() {
	all := r.only(func(w Work) bool { return w.Part == partSending })
	if len(all) == 0 {
		return
	}
	c := all[0]
	r.printf("\n## Sending\n\n%d receiver, %d bytes, batches of %d, %d sender. \"x\": how many times as fast as the first, by the clock and in processor time of the sending process. Calls are of the kernel, a datagram.\n\n",
		c.Receivers, c.Size, c.Batch, c.Senders)
	r.table(c.Rows, []column{
		{"datagrams/s", rate},
		{"ns", func(row Row) string { return row.Wall.plusMinus("%.0f") }},
		{"CPU ns", func(row Row) string { return row.CPU.plusMinus("%.0f") }},
		{"x", func(row Row) string { return row.WallGain.plusMinus("%.2f") }},
		{"CPU x", func(row Row) string { return row.CPUGain.plusMinus("%.2f") }},
		{"calls", func(row Row) string { return callsOf(row.SendCalls) }},
		{"arrived", func(row Row) string { return share(row.Arrived) }},
	})
	r.matrix("Processor time for a datagram, ns", all, cpuOf)
	r.matrix("Thousands of datagrams a second", all, kilo)
}

// reading is the part in which the reader's time is.
func (r *report) reading() {
	for i, all := range r.byPlace(partReading) {
		if i == 0 {
			r.printf("\n## Receiving\n\nA burst is sent, then read, in one thread; only the reading is timed.\n")
		}
		r.printf("\n### On %s\n", all[0].where())
		r.matrix("Processor time for a datagram, ns", all, cpuOf)
		r.matrix("How many times as fast as the first", all, func(row Row) string { return fmt.Sprintf("%.2f", row.CPUGain.Median) })
		r.matrix("Calls of the kernel for a datagram", all, func(row Row) string { return callsOf(row.ReceiveCalls) })
	}
}

// overrun is the part in which a buffer is too small.
func (r *report) overrun() {
	for i, all := range r.byPlace(partOverrun) {
		if i == 0 {
			r.printf("\n## Drops\n\nThe share of a burst of %d bytes each that was dropped before the reader came to read, with a receive buffer of 208 KiB for all.\n", all[0].Size)
		}
		r.matrix("On "+all[0].where(), all, func(row Row) string { return share(1 - row.Arrived) })
	}
}

// ends is the part with both halves.
func (r *report) ends() {
	for i, all := range r.byPlace(partEnds) {
		c := all[0]
		if i == 0 {
			r.printf("\n## End to end\n\nOne goroutine sends bursts of %d as fast as it can, and one of another process receives. All times are for a datagram that arrived, calls of each side are for those that it sent or received.\n", c.Burst)
		}
		r.printf("\n### On %s\n\nDatagrams of %d bytes:\n\n", c.Medium, c.Size)
		r.table(c.Rows, []column{
			{"datagrams/s", rate},
			{"x", func(row Row) string { return row.WallGain.plusMinus("%.2f") }},
			{"CPU ns, both", cpuOf},
			{"sender's", sendCPUOf},
			{"receiver's", receiveCPUOf},
			{"calls to send", func(row Row) string { return callsOf(row.SendCalls) }},
			{"to receive", func(row Row) string { return callsOf(row.ReceiveCalls) }},
			{"arrived", func(row Row) string { return share(row.Arrived) }},
		})
		r.matrix("Thousands of datagrams a second", all, kilo)
		r.matrix("How many times as many as the first", all, func(row Row) string { return fmt.Sprintf("%.2f", row.WallGain.Median) })
		r.matrix("Processor time of the sender's side for a datagram that it sent, ns", all, sendCPUOf)
		r.matrix("Processor time of the receiver's side for a datagram that it received, ns", all, receiveCPUOf)
		r.matrix("Arrived", all, func(row Row) string { return share(row.Arrived) })
	}
}

// byPlace are the contests of a part, those of each medium and way to send
// apart.
func (r *report) byPlace(p part) (all [][]Result) {
	at := map[string]int{}
	for _, c := range r.only(func(w Work) bool { return w.Part == p }) {
		i, ok := at[c.where()]
		if !ok {
			i = len(all)
			at[c.where()] = i
			all = append(all, nil)
		}
		all[i] = append(all[i], c)
	}
	return all
}

// A column is of a table.
type column struct {
	title string
	cell  func(Row) string
}

func (r *report) table(rows []Row, columns []column) {
	r.printf("| |")
	for _, c := range columns {
		r.printf(" %s |", c.title)
	}
	r.printf("\n|---|%s\n", strings.Repeat("--:|", len(columns)))
	for _, row := range rows {
		if row.Error != "" || row.TooLong {
			continue
		}
		r.printf("| %s |", row.Way)
		for _, c := range columns {
			r.printf(" %s |", c.cell(row))
		}
		r.printf("\n")
	}
}

// matrix is one figure of all ways at works.
func (r *report) matrix(title string, all []Result, cell func(Row) string) {
	r.printf("\n%s:\n\n| |", title)
	for _, c := range all {
		r.printf(" %s |", c.Name)
	}
	r.printf("\n|---|%s\n", strings.Repeat("--:|", len(all)))
	for i, row := range all[0].Rows {
		r.printf("| %s |", row.Way)
		for _, c := range all {
			text := "failed"
			switch row := c.Rows[i]; {
			case row.TooLong:
				text = "-"
			case row.Error == "":
				text = cell(row)
			}
			r.printf(" %s |", text)
		}
		r.printf("\n")
	}
}

func (s Spread) plusMinus(format string) string {
	return fmt.Sprintf(format+" ± "+format, s.Median, (s.High-s.Low)/2)
}

func rate(row Row) string  { return fmt.Sprintf("%.2f M", row.Rate.Median/1e6) }
func kilo(row Row) string  { return fmt.Sprintf("%.0f", row.Rate.Median/1e3) }
func cpuOf(row Row) string { return fmt.Sprintf("%.0f", row.CPU.Median) }

func sendCPUOf(row Row) string    { return fmt.Sprintf("%.0f", row.SendCPU.Median) }
func receiveCPUOf(row Row) string { return fmt.Sprintf("%.0f", row.ReceiveCPU.Median) }

// callsOf is nothing where they were not counted.
func callsOf(v float64) string {
	if v == 0 {
		return ""
	}
	return fmt.Sprintf("%.3g", v)
}

// share never says 100% of less than all, nor 0% of more than nothing.
func share(v float64) string {
	switch {
	case v <= 0:
		return "0"
	case v < 1:
		return fmt.Sprintf("%.1f%%", max(0.1, min(v*100, 99.9)))
	}
	return "100%"
}

// ahead says where somebody was faster than batchconn.
func (r *report) ahead() {
	r.printf("\n## Ahead of batchconn\n\n")
	if _, ok := lowerBound(make([]float64, r.Rounds)); !ok {
		r.printf("Too few rounds to say that anybody is.\n")
		return
	}
	r.printf("By %.0f%% or more and not by chance (less than %g for each comparison). In brackets: what the median ratio exceeds, with that probability of error.\n", (worthSaying-1)*100, chance)
	found := false
	for _, p := range []part{partSending, partReading, partEnds} {
		for _, ct := range contenders(p) {
			lines := r.aheadOf(p, ct.Name)
			if len(lines) == 0 {
				continue
			}
			found = true
			r.printf("\n%s (%s):\n\n%s", ct.Name, ct.does, strings.Join(lines, ""))
		}
	}
	if !found {
		r.printf("\nNobody.\n")
	}
}

// aheadOf has a line for each way that the peer is ahead of.
func (r *report) aheadOf(p part, peer string) (lines []string) {
	var keys []string
	where := map[string][]string{}
	for _, c := range r.only(func(w Work) bool { return w.Part == p }) {
		for _, a := range c.Ahead {
			if a.Peer != peer {
				continue
			}
			key := fmt.Sprintf("of %s by the clock", a.Of)
			if a.In == inCPU {
				key = fmt.Sprintf("of %s in processor time", a.Of)
			}
			if p != partSending {
				key += ", " + c.where()
			}
			if where[key] == nil {
				keys = append(keys, key)
			}
			where[key] = append(where[key], fmt.Sprintf("%s %.2f (%.2f)", c.Name, a.Times, a.Bound))
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
				r.printf("\nFAILED: %s, %s, %s, %s: %s\n", c.Part, c.where(), c.Name, row.Way, row.Error)
			}
		}
	}
}
