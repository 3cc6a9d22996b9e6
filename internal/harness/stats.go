// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package harness

import "slices"

// Median returns the middle of v, which need not be sorted.
func Median(v []float64) float64 { return Quantile(v, 0.5) }

// Quantile returns what the part q of v does not exceed, between two values if
// need be. v need not be sorted, must not be empty, and is not changed.
func Quantile(v []float64, q float64) float64 {
	v = slices.Sorted(slices.Values(v))
	at := q * float64(len(v)-1)
	i := int(at)
	if i+1 >= len(v) {
		return v[len(v)-1]
	}
	return v[i] + (at-float64(i))*(v[i+1]-v[i])
}
