// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"fmt"

	"github.com/batchconn/batchconn/bench/internal/way"
)

// Work is what all contenders are given to send. Senders share one socket; each
// sends batches, in them Burst datagrams in a row to each receiver in turn.
type Work struct {
	Dimension string `json:"dimension"` // in which it differs from the base
	Name      string `json:"name"`
	Receivers int    `json:"receivers"`
	Burst     int    `json:"burst"`
	Batch     int    `json:"batch"`
	Size      int    `json:"size"`
	Senders   int    `json:"senders"`
	Unread    bool   `json:"unread"` // nobody reads, and the kernel drops
}

const (
	base       = "base"
	receivers  = "receivers"
	sizes      = "size"
	batches    = "batch"
	manySender = "senders"
	reading    = "reading"
)

// works are the base and what differs from it in one dimension each.
func works(quick bool) []Work {
	b := Work{Dimension: base, Name: "base", Receivers: 1, Burst: 64, Batch: 64, Size: 1200, Senders: 1}
	all := []Work{b}
	vary := func(dimension, name string, change func(w *Work)) {
		w := b
		w.Dimension, w.Name = dimension, name
		change(&w)
		all = append(all, w)
	}
	choose := func(few, many []int) []int {
		if quick {
			return few
		}
		return many
	}
	for _, n := range choose([]int{16}, []int{16, 64}) {
		vary(receivers, fmt.Sprintf("%d receivers, 8 in a row to each", n), func(w *Work) { w.Receivers, w.Burst, w.Batch = n, 8, 8*n })
	}
	for _, n := range choose([]int{16}, []int{16, 64}) {
		vary(receivers, fmt.Sprintf("%d receivers, interleaved", n), func(w *Work) { w.Receivers, w.Burst = n, 1 })
	}
	for _, n := range choose([]int{64, 8900}, []int{64, 300, 1400, 8900}) {
		vary(sizes, fmt.Sprintf("%d bytes", n), func(w *Work) { w.Size = n })
	}
	for _, n := range choose([]int{1, 1024}, []int{1, 2, 4, 8, 16, 32, 128, 256, 512, 1024}) {
		vary(batches, fmt.Sprintf("batch %d", n), func(w *Work) { w.Batch, w.Burst = n, n })
	}
	for _, n := range choose([]int{2}, []int{2, 8}) {
		vary(manySender, fmt.Sprintf("%d senders", n), func(w *Work) { w.Senders = n })
	}
	vary(reading, "nobody reads", func(w *Work) { w.Unread = true })
	if !quick {
		vary(reading, "nobody reads, batch 1024", func(w *Work) { w.Unread, w.Batch, w.Burst = true, 1024, 1024 })
	}
	return all
}

func (w *Work) load(to []receiver) way.Load {
	return way.Load{To: addresses(to), Count: w.Batch, Burst: w.Burst, Size: w.Size}
}
