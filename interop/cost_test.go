// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package interop

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"runtime/metrics"
	"slices"
	"strings"
	"testing"
	"time"
)

// A cost is what a piece of work took, of the whole process: both ends of the
// connection. CPU time is the one to compare where others use the machine too.
type cost struct {
	wall, cpu     time.Duration
	calls, allocs int64 // system calls, where they are counted, and allocations
}

// counting says whether system calls are counted.
var counting bool

// A moment is when a piece of work began.
type moment struct {
	wall   time.Time
	cpu    time.Duration
	allocs int64
	calls  callCounter
}

func begin() moment {
	m := moment{cpu: cpuTime(), allocs: allocations()}
	if counting {
		m.calls = countCalls()
	}
	m.wall = time.Now()
	return m
}

func (m moment) cost() cost {
	c := cost{wall: time.Since(m.wall), calls: m.calls.stop()}
	c.cpu, c.allocs = cpuTime()-m.cpu, allocations()-m.allocs
	return c
}

func (c cost) add(d cost) cost {
	return cost{c.wall + d.wall, c.cpu + d.cpu, c.calls + d.calls, c.allocs + d.allocs}
}

// allocations is how many objects the process has allocated.
func allocations() int64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:objects"}}
	metrics.Read(sample)
	return int64(sample[0].Value.Uint64())
}

var results table

// A table is the costs of every test on every kind, in the order of their runs.
type table struct{ rows []*row }

type row struct {
	test  string
	kinds []string
	costs map[string][]cost
	calls map[string]int64 // of the round that counted
}

// add takes a cost of the test that has a sub-test for each kind.
func (r *table) add(t *testing.T, kind string, c cost) {
	test := t.Name()[:strings.LastIndexByte(t.Name(), '/')]
	i := slices.IndexFunc(r.rows, func(row *row) bool { return row.test == test })
	if i < 0 {
		i = len(r.rows)
		r.rows = append(r.rows, &row{test: test, costs: map[string][]cost{}, calls: map[string]int64{}})
	}
	row := r.rows[i]
	if !slices.Contains(row.kinds, kind) {
		row.kinds = append(row.kinds, kind)
	}
	if counting {
		row.calls[kind] = c.calls
		return
	}
	row.costs[kind] = append(row.costs[kind], c)
	t.Logf("%v, %v CPU", c.wall, c.cpu)
}

// print shows for each test the medians on the first kind; of the others the
// medians of the ratios to the run on the first kind beside it.
func (r *table) print(w io.Writer) {
	if len(r.rows) == 0 {
		return
	}
	fmt.Fprintf(w, "\n| medians of %d | on | time | CPU | system calls | allocations |\n|---|---|---|---|---|---|\n", *rounds)
	for _, row := range r.rows {
		for i, k := range row.kinds {
			if i == 0 {
				row.printFirst(w, k)
			} else {
				row.printRatios(w, k)
			}
		}
	}
}

func (r *row) printFirst(w io.Writer, kind string) {
	costs := r.costs[kind]
	name := r.test[strings.IndexByte(r.test, '/')+1:]
	fmt.Fprintf(w, "| %s | %s | %v | %v | %s | %s |\n", strings.ReplaceAll(name, "_", " "), kind,
		medianOf(costs, func(c cost) time.Duration { return c.wall }).Round(time.Millisecond),
		medianOf(costs, func(c cost) time.Duration { return c.cpu }).Round(time.Millisecond),
		thousands(r.calls[kind]), thousands(medianOf(costs, func(c cost) int64 { return c.allocs })))
}

func (r *row) printRatios(w io.Writer, kind string) {
	wall := r.ratios(kind, func(c cost) float64 { return c.wall.Seconds() })
	cpu := r.ratios(kind, func(c cost) float64 { return c.cpu.Seconds() })
	fmt.Fprintf(w, "| | %s | %s | %s | %s | %s |\n", kind, verdict(wall), verdict(cpu),
		thousands(r.calls[kind]), thousands(medianOf(r.costs[kind], func(c cost) int64 { return c.allocs })))
}

// ratios compare each run on a kind with the run on the first kind beside it;
// above 1 the kind is faster.
func (r *row) ratios(kind string, of func(cost) float64) (ratios []float64) {
	first := r.costs[r.kinds[0]]
	for i, c := range r.costs[kind][:min(len(first), len(r.costs[kind]))] {
		ratios = append(ratios, of(first[i])/of(c))
	}
	return ratios
}

// verdict is the median ratio, with a plus or minus if the rounds agree that
// the kind is faster or slower.
func verdict(ratios []float64) string {
	if len(ratios) == 0 {
		return ""
	}
	mark := ""
	if signTest(ratios) < 0.05 {
		mark = " +"
		if median(ratios) < 1 {
			mark = " −"
		}
	}
	return fmt.Sprintf("%.2fx%s", median(ratios), mark)
}

// signTest is how likely ratios are that lie on one side of 1 so often, if
// either side is as likely as the other.
func signTest(ratios []float64) float64 {
	above := 0
	for _, r := range ratios {
		if r > 1 {
			above++
		}
	}
	n := len(ratios)
	p, choose := 0.0, 1.0 // n over i
	for i := range min(above, n-above) + 1 {
		p += choose
		choose = choose * float64(n-i) / float64(i+1)
	}
	return min(1, 2*p/math.Pow(2, float64(n)))
}

func thousands(n int64) string {
	switch {
	case n == 0:
		return "–"
	case n < 10_000:
		return fmt.Sprint(n)
	}
	return fmt.Sprintf("%dk", (n+500)/1000)
}

func medianOf[T cmp.Ordered](costs []cost, of func(cost) T) T {
	var v []T
	for _, c := range costs {
		v = append(v, of(c))
	}
	if len(v) == 0 {
		return *new(T)
	}
	return median(v)
}

func median[T cmp.Ordered](v []T) T { return slices.Sorted(slices.Values(v))[len(v)/2] }

func TestSignTest(t *testing.T) {
	for _, test := range []struct {
		above, below int
		want         float64
	}{{0, 0, 1}, {9, 0, 2. / 512}, {0, 9, 2. / 512}, {8, 1, 20. / 512}, {7, 2, 92. / 512}, {5, 5, 1}} {
		ratios := append(slices.Repeat([]float64{1.5}, test.above), slices.Repeat([]float64{0.5}, test.below)...)
		if got := signTest(ratios); math.Abs(got-test.want) > 1e-9 {
			t.Errorf("%d above, %d below: %v, want %v", test.above, test.below, got, test.want)
		}
	}
}
