// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"slices"

	"github.com/batchconn/batchconn/bench/internal/way"
)

// Results are what the program writes.
type Results struct {
	Machine  Machine  `json:"machine"`
	Rounds   int      `json:"rounds"`
	Slot     string   `json:"slot"`
	Base     string   `json:"base"` // the way that the others are compared with
	Missing  []string `json:"missing,omitempty"`
	Contests []Result `json:"contests"`
}

// A Result is what one work gave.
type Result struct {
	Work
	Rows  []Row   `json:"rows"`
	Ahead []Ahead `json:"ahead,omitempty"`
}

// A Row is what one way did. Times are for a datagram. The gains are how many
// times as fast as the base it was in the same round.
type Row struct {
	Way       string  `json:"way"`
	Kind      kind    `json:"kind"`
	Rate      Spread  `json:"datagrams_per_second"`
	Wall      Spread  `json:"wall_ns"`
	CPU       Spread  `json:"cpu_ns"`
	WallGain  Spread  `json:"wall_gain"`
	CPUGain   Spread  `json:"cpu_gain"`
	Arrived   float64 `json:"arrived"`             // share of what was sent while the clock ran; 0 if nobody read
	Checked   int     `json:"checked"`             // datagrams sent at once when each was looked for
	Reordered int     `json:"reordered,omitempty"` // of those of the check
	Error     string  `json:"error,omitempty"`
}

// Ahead says that a way was faster than one of batchconn, by how many times at
// the median, and by how many at least but for chance.
type Ahead struct {
	Peer    string  `json:"peer"`
	Kind    kind    `json:"kind"`
	Of      string  `json:"of"`
	In      string  `json:"in"` // "wall" or "cpu"
	Times   float64 `json:"times"`
	AtLeast float64 `json:"at_least"`
}

const (
	inWall = "wall"
	inCPU  = "cpu"
)

func (s sample) wallEach() float64 { return float64(s.wall) / float64(s.sent) }
func (s sample) cpuEach() float64  { return float64(s.cpu) / float64(s.sent) }

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
	row := Row{Way: e.Name, Kind: e.kind, Checked: e.atOnce, Reordered: e.reordered}
	if e.err != nil {
		row.Error = e.err.Error()
		return row
	}
	row.Rate = spread(e.each(func(s sample) float64 { return float64(s.sent) / s.wall.Seconds() }))
	row.Wall, row.CPU = spread(e.each(sample.wallEach)), spread(e.each(sample.cpuEach))
	if first.err == nil {
		row.WallGain, row.CPUGain = spread(e.gains(first, sample.wallEach)), spread(e.gains(first, sample.cpuEach))
	}
	sent, arrived := 0, 0
	for _, s := range e.samples {
		sent += s.sent
		arrived += s.arrived
	}
	row.Arrived = float64(arrived) / float64(sent)
	return row
}

// comparable reports whether e could take the place of own: SendMessages is
// measured by all, another way by those that are called as it is.
func comparable(e, own *entry) bool {
	if own.kind != ours || e.kind == ours || own.err != nil || e.err != nil {
		return false
	}
	switch own.Name {
	case way.SendMessages.Name:
		return true
	case way.WriteBatch.Name:
		return e.Name == way.XNet.Name
	case way.Writer.Name:
		return slices.Contains([]string{way.Net.Name, pion.Name}, e.Name)
	}
	return false
}

// worthSaying is the least gain that is called one.
const worthSaying = 1.01

// ahead says in what e was faster than own, beyond what chance could do.
func ahead(e, own *entry) (all []Ahead) {
	for _, in := range []string{inWall, inCPU} {
		of := sample.wallEach
		if in == inCPU {
			of = sample.cpuEach
		}
		gains := e.gains(own, of)
		bound, ok := atLeast(gains)
		if times := spread(gains).Median; ok && bound > 1 && times >= worthSaying {
			all = append(all, Ahead{e.Name, e.kind, own.Name, in, times, bound})
		}
	}
	return all
}
