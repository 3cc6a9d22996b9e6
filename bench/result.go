// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"errors"
	"slices"

	"github.com/batchconn/batchconn/bench/internal/reading"
)

// Results are what the program writes.
type Results struct {
	Command  string   `json:"command"`
	Machine  Machine  `json:"machine"`
	Rounds   int      `json:"rounds"`
	Slot     string   `json:"slot"`
	Missing  []string `json:"missing,omitempty"`
	Contests []Result `json:"contests"`
}

// A Result is what one work gave.
type Result struct {
	Work
	Rows  []Row   `json:"rows"`
	Ahead []Ahead `json:"ahead,omitempty"`
}

// A Row is what one way did. Times are for a datagram, and of the side that is
// measured; end to end, of both. The gains are how many times as fast as the
// first way it was in the same round.
type Row struct {
	Way        string `json:"way"`
	Kind       kind   `json:"kind"`
	Rate       Spread `json:"datagrams_per_second,omitzero"`
	Wall       Spread `json:"wall_ns,omitzero"`
	CPU        Spread `json:"cpu_ns,omitzero"`
	SendCPU    Spread `json:"send_cpu_ns,omitzero"`
	ReceiveCPU Spread `json:"receive_cpu_ns,omitzero"`
	WallGain   Spread `json:"wall_gain,omitzero"`
	CPUGain    Spread `json:"cpu_gain,omitzero"`

	// Of the kernel, for a datagram; 0: not counted.
	SendCalls    float64 `json:"send_calls,omitempty"`
	ReceiveCalls float64 `json:"receive_calls,omitempty"`

	Arrived   float64 `json:"arrived"`             // share of what was sent while the clock ran; 0 if nobody read
	Checked   int     `json:"checked,omitempty"`   // datagrams that were looked for one by one
	Reordered int     `json:"reordered,omitempty"` // of those of the check
	TooLong   bool    `json:"too_long,omitempty"`  // it has no room for datagrams of this size
	Error     string  `json:"error,omitempty"`
}

// line is how charts draw the way.
func (r *Row) line(p part) string {
	for _, c := range contenders(p) {
		if c.Name == r.Way {
			return c.line
		}
	}
	return ""
}

// Ahead says that a way was faster than one of batchconn, by how many times at
// the median, and by how many at the worst except for chance.
type Ahead struct {
	Peer  string  `json:"peer"`
	Kind  kind    `json:"kind"`
	Of    string  `json:"of"`
	In    string  `json:"in"` // "wall" or "cpu"
	Times float64 `json:"times"`
	Bound float64 `json:"lower_bound"`
}

const (
	inWall = "wall"
	inCPU  = "cpu"
)

func (s sample) wallEach() float64 { return float64(s.wall) / float64(s.count) }
func (s sample) cpuEach() float64  { return float64(s.cpu) / float64(s.count) }

func (e *entry) each(of func(sample) float64) []float64 {
	v := make([]float64, len(e.samples))
	for i, s := range e.samples {
		v[i] = of(s)
	}
	return v
}

// gains are how many times as fast as another e was in each round.
func (e *entry) gains(other *entry, of func(sample) float64) []float64 {
	a, b := other.each(of), e.each(of)
	v := make([]float64, min(len(a), len(b)))
	for i := range v {
		v[i] = a[i] / b[i]
	}
	return v
}

func (c *contest) result() Result {
	r := Result{Work: c.work}
	for _, e := range c.entries {
		r.Rows = append(r.Rows, e.row(c.entries[0]))
	}
	for _, own := range c.entries {
		for _, e := range c.entries {
			if comparable(e, own) {
				r.Ahead = append(r.Ahead, ahead(e, own)...)
			}
		}
	}
	return r
}

func (e *entry) row(first *entry) Row {
	row := Row{Way: e.Name, Kind: e.kind, Checked: e.checked, Reordered: e.reordered, SendCalls: e.sendCalls, ReceiveCalls: e.receiveCalls}
	switch {
	case errors.Is(e.err, reading.ErrSize):
		row.TooLong = true
		return row
	case e.err != nil:
		row.Error = e.err.Error()
		return row
	}
	sent, arrived := 0, 0
	for _, s := range e.samples {
		sent += s.sent
		arrived += s.arrived
	}
	row.Arrived = digits(float64(arrived) / float64(sent))
	if e.samples[0].count == 0 {
		return row // nothing was timed
	}
	row.Rate = spread(e.each(func(s sample) float64 { return float64(s.count) / s.wall.Seconds() }))
	row.Wall, row.CPU = spread(e.each(sample.wallEach)), spread(e.each(sample.cpuEach))
	row.SendCPU = spread(e.each(func(s sample) float64 { return float64(s.sendCPU) / float64(s.sent) }))
	row.ReceiveCPU = spread(e.each(func(s sample) float64 { return float64(s.receiveCPU) / float64(s.count) }))
	if first.err == nil {
		row.WallGain, row.CPUGain = spread(e.gains(first, sample.wallEach)), spread(e.gains(first, sample.cpuEach))
	}
	return row
}

// comparable reports whether e could take the place of own.
func comparable(e, own *entry) bool {
	if own.kind != ours || e.kind == ours || own.err != nil || e.err != nil || e.samples[0].count == 0 {
		return false
	}
	return slices.Equal(own.rivals, anybody) || slices.Contains(own.rivals, e.Name)
}

// worthSaying is the smallest gain that is called one.
const worthSaying = 1.01

// ahead says in what e was faster than own, beyond what chance could do.
func ahead(e, own *entry) (all []Ahead) {
	for _, in := range []string{inWall, inCPU} {
		of := sample.wallEach
		if in == inCPU {
			of = sample.cpuEach
		}
		gains := e.gains(own, of)
		bound, ok := lowerBound(gains)
		if times := spread(gains).Median; ok && bound > 1 && times >= worthSaying {
			all = append(all, Ahead{e.Name, e.kind, own.Name, in, times, digits(bound)})
		}
	}
	return all
}

// only are the contests of some works.
func (r *Results) only(keep func(Work) bool) (all []Result) {
	for _, c := range r.Contests {
		if keep(c.Work) {
			all = append(all, c)
		}
	}
	return all
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
