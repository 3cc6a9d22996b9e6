// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package harness

import "math/rand/v2"

// Alternate gives each of n contenders one turn in each round, so that what
// else the machine does falls on all of them. Each round has an order of its
// own: nobody always runs after the same one. It ends with the first error of
// f.
func Alternate(rounds, n int, f func(round, contender int) error) error {
	order := rand.New(rand.NewPCG(1, 2)) // the same in each run
	for round := range rounds {
		for _, i := range order.Perm(n) {
			if err := f(round, i); err != nil {
				return err
			}
		}
	}
	return nil
}
