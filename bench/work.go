// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"fmt"

	"github.com/batchconn/batchconn/bench/internal/way"
)

// A part is what is measured.
type part string

const (
	partSending part = "sending" // the sender's time; a process of its own reads
	partReading part = "reading" // the reader's time; a burst is sent, then read
	partOverrun part = "overrun" // what a small buffer keeps of a burst
	partEnds    part = "ends"    // both halves, each in a process of its own
)

// Work is what all contenders of a part are given to do.
type Work struct {
	Part      part   `json:"part"`
	Medium    string `json:"medium"`
	Dimension string `json:"dimension"` // in which it differs from the base
	Name      string `json:"name"`
	Size      int    `json:"size"`

	// Senders share one socket; each sends batches, in them Burst datagrams in a
	// row to each receiver in turn.
	Receivers int  `json:"receivers,omitempty"`
	Senders   int  `json:"senders,omitempty"`
	Batch     int  `json:"batch,omitempty"`
	Unread    bool `json:"unread,omitempty"` // nobody reads, and the kernel drops

	// Flows are sockets that send to one receiver, in turn. Reading: each has its
	// part of a burst, and sends it segmented or plainly. Ends: each sends a
	// burst.
	Flows     int  `json:"flows,omitempty"`
	Segmented bool `json:"segmented,omitempty"`
	Burst     int  `json:"burst"`
}

const (
	base       = "base"
	receivers  = "receivers"
	sizes      = "size"
	batches    = "batch"
	manySender = "senders"
	unread     = "unread"
	flows      = "flows"
)

// A plan is a list of works: a base, and what differs from it in one dimension.
type plan struct {
	base  Work
	quick bool
	all   []Work
}

func newPlan(quick bool, b Work) *plan {
	b.Dimension = base
	if b.Name == "" {
		b.Name = base
	}
	return &plan{b, quick, []Work{b}}
}

// vary adds a work for each value, or for the few of a quick run. Its name is
// that of format.
func (p *plan) vary(dimension, format string, few, many []int, change func(w *Work, n int)) {
	if !p.quick {
		few = many
	}
	for _, n := range few {
		w := p.base
		w.Dimension, w.Name = dimension, fmt.Sprintf(format, n)
		if p.base.Name != base {
			w.Name = p.base.Name + ", " + w.Name
		}
		change(&w, n)
		p.all = append(p.all, w)
	}
}

func setSize(w *Work, n int)  { w.Size = n }
func setBurst(w *Work, n int) { w.Burst = n }

// works are all there is to do. Without a wire, it is on loopback only.
func works(quick bool, media []string) (all []Work) {
	for _, m := range media {
		all = append(all, sendingWorks(quick, m)...)
	}
	for _, p := range []func(bool, string, bool) []Work{readingWorks, overrunWorks} {
		for _, m := range media {
			for _, segmented := range []bool{true, false} {
				all = append(all, p(quick, m, segmented)...)
			}
		}
	}
	for _, m := range media {
		all = append(all, endsWorks(quick, m)...)
	}
	return all
}

func sendingWorks(quick bool, medium string) []Work {
	b := Work{Part: partSending, Medium: medium, Receivers: 1, Burst: 64, Batch: 64, Size: 1200, Senders: 1}
	if medium == onWire {
		b.Name = "wire"
		p := newPlan(quick, b)
		p.vary(sizes, "%d bytes", nil, []int{64, 300, 1400, 8900}, setSize)
		p.vary(receivers, "%d receivers, 8 in a row to each", nil, []int{16}, func(w *Work, n int) { w.Receivers, w.Burst, w.Batch = n, 8, 8*n })
		return p.all
	}
	p := newPlan(quick, b)
	p.vary(receivers, "%d receivers, 8 in a row to each", []int{16}, []int{16, 64}, func(w *Work, n int) { w.Receivers, w.Burst, w.Batch = n, 8, 8*n })
	p.vary(receivers, "%d receivers, interleaved", []int{16}, []int{16, 64}, func(w *Work, n int) { w.Receivers, w.Burst = n, 1 })
	p.vary(sizes, "%d bytes", []int{64, 8900}, []int{64, 300, 1400, 8900}, setSize)
	batch := func(w *Work, n int) { w.Batch, w.Burst = n, n }
	p.vary(batches, "batch %d", []int{1, 1024}, []int{1, 2, 4, 8, 16, 32, 128, 256, 512, 1024}, batch)
	p.vary(manySender, "%d senders", []int{2}, []int{2, 8}, func(w *Work, n int) { w.Senders = n })
	p.vary(unread, "nobody reads, batch %d", []int{64}, []int{64, 1024}, func(w *Work, n int) { batch(w, n); w.Unread = true })
	return p.all
}

func readingWorks(quick bool, medium string, segmented bool) []Work {
	p := newPlan(quick, Work{Part: partReading, Medium: medium, Segmented: segmented, Flows: 1, Burst: 64, Size: 1200})
	p.vary(batches, "burst %d", []int{1}, []int{1, 4, 16, 32, 128, 256}, setBurst)
	p.vary(sizes, "%d bytes", nil, []int{64, 300, 1400, 8900}, setSize)
	p.vary(flows, "%d flows", nil, []int{16, 64}, func(w *Work, n int) { w.Flows = n })
	return p.all
}

func overrunWorks(quick bool, medium string, segmented bool) []Work {
	p := newPlan(quick, Work{Part: partOverrun, Medium: medium, Segmented: segmented, Name: "burst 64", Flows: 1, Burst: 64, Size: 1200})
	p.base.Name = base
	p.vary(batches, "burst %d", []int{256}, []int{1, 16, 32, 128, 256, 512, 1024}, setBurst)
	return p.all
}

func endsWorks(quick bool, medium string) []Work {
	p := newPlan(quick, Work{Part: partEnds, Medium: medium, Flows: 1, Burst: 64, Size: 1200})
	p.vary(sizes, "%d bytes", nil, []int{64, 300, 1400, 8900}, setSize)
	p.vary(flows, "%d flows, 8 in a row of each", []int{16}, []int{16, 64}, func(w *Work, n int) { w.Flows, w.Burst = n, 8 })
	return p.all
}

func (w *Work) load(to []receiver) way.Load {
	return way.Load{To: addresses(to), Count: w.Batch, Burst: w.Burst, Size: w.Size}
}

// where names the medium and how it is sent, for parts that have both.
func (w *Work) where() string {
	switch {
	case w.Part != partReading && w.Part != partOverrun:
		return w.Medium
	case w.Segmented:
		return w.Medium + ", sent segmented"
	}
	return w.Medium + ", sent plainly"
}
