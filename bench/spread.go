// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"slices"
	"strconv"

	"github.com/batchconn/batchconn/internal/harness"
)

// A Spread is a median with its quartiles.
type Spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

func spread(v []float64) Spread {
	return Spread{digits(harness.Median(v)), digits(harness.Quantile(v, 0.25)), digits(harness.Quantile(v, 0.75))}
}

// digits rounds to as many as mean something, and more.
func digits(v float64) float64 {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 5, 64), 64)
	return v
}

// chance is how often, of comparisons between equals, one may be called
// unequal.
const chance = 0.001

// lowerBound is what the median of all rounds there could be exceeds, except by
// that chance, whatever the distribution: the k-th smallest, where fewer than k
// of n fair coins show heads so rarely. There is none if there are too few.
func lowerBound(v []float64) (bound float64, ok bool) {
	v = slices.Sorted(slices.Values(v))
	below, coin := 0.0, 1.0 // that up to k-1 of n show heads; that just k do
	for range v {
		coin /= 2
	}
	k := 0
	for ; below+coin <= chance; k++ {
		below += coin
		coin = coin * float64(len(v)-k) / float64(k+1)
	}
	if k == 0 {
		return 0, false
	}
	return v[k-1], true
}
