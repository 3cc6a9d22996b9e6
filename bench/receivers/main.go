// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

// Receivers compares batchconn with what else receives UDP datagrams. In one
// thread, a burst is sent and then read, and only the reading is timed: a reader
// always finds the same queue, nothing is dropped, and nobody is woken. Each way
// hands out each datagram in a buffer of its own, and has every one of its first
// bursts looked for: complete, once, in order. All read in turn, round after round;
// the table has medians over the rounds, of times and of the ratios within a round.
//
//	go run ./receivers [-rounds 15] [-time 10ms] [-quick]
package main

import (
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/batchconn/batchconn/bench/internal/reading"
	"github.com/batchconn/batchconn/internal/harness"
)

var (
	rounds = flag.Int("rounds", 15, "rounds, each of all ways in turn")
	slot   = flag.Duration("time", 10*time.Millisecond, "how long a way is fed and reads in a round")
	quick  = flag.Bool("quick", false, "one dimension only: segmented or not")
)

func main() {
	log.SetFlags(0)
	log.SetPrefix("receivers: ")
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 || *slot <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	runtime.LockOSThread() // thread time is read before and after
	all, missing := reading.All()
	for _, m := range missing {
		log.Print("left out: ", m)
	}
	failed := false
	for _, l := range loads() {
		l, err := reading.Fit(l)
		if err != nil {
			log.Fatal(err)
		}
		failed = measure(all, l) || failed
	}
	if failed {
		os.Exit(1)
	}
}

// loads are the base and what differs from it in one dimension each, segmented and
// not.
func loads() (all []reading.Load) {
	bursts, sizes, flows := []int{1, 4, 16, 256}, []int{64, 300, 1400, 8900}, []int{16, 64}
	if *quick {
		bursts, sizes, flows = nil, nil, nil
	}
	for _, segmented := range []bool{true, false} {
		base := reading.Load{Flows: 1, Burst: 64, Size: 1200, Segmented: segmented}
		all = append(all, base)
		for _, n := range bursts {
			l := base
			l.Burst = n
			all = append(all, l)
		}
		for _, n := range sizes {
			l := base
			l.Size = n
			all = append(all, l)
		}
		for _, n := range flows {
			l := base
			l.Flows = n
			all = append(all, l)
		}
	}
	return all
}

// An entry is a way at a load.
type entry struct {
	name            string
	feed            *reading.Feed
	err             error
	wall, cpu, send []float64 // ns a datagram, by round
}

// measure prints the table of a load, and reports whether a way failed.
func measure(ways []reading.Way, l reading.Load) (failed bool) {
	entries := make([]*entry, len(ways))
	for i, w := range ways {
		entries[i] = newEntry(w, l)
	}
	harness.Alternate(*rounds, len(entries), func(_, i int) error {
		if e := entries[i]; e.err == nil {
			e.err = e.round()
		}
		return nil
	})
	for _, e := range entries {
		if e.feed != nil {
			e.feed.Close()
		}
		if e.err != nil && !errors.Is(e.err, reading.ErrSize) {
			failed = true
		}
	}
	print(l, entries)
	return failed
}

func newEntry(w reading.Way, l reading.Load) *entry {
	e := &entry{name: w.Name}
	if e.feed, e.err = reading.NewFeed(w, l); e.err != nil {
		return e
	}
	lost, err := e.feed.Check(5)
	if e.err = err; err == nil && lost > 0 {
		e.err = fmt.Errorf("%d datagrams did not arrive", lost)
	}
	return e
}

func (e *entry) round() error {
	var times harness.BurstTimes
	read := 0
	for begin := time.Now(); time.Since(begin) < *slot; {
		n, err := e.feed.Run(&times)
		if err != nil {
			return err
		}
		if n < len(e.feed.Mail.Buffers) {
			return fmt.Errorf("%d of %d datagrams arrived", n, len(e.feed.Mail.Buffers))
		}
		read += n
	}
	each := func(d time.Duration) float64 { return float64(d) / float64(read) }
	e.wall = append(e.wall, each(times.Read))
	e.cpu = append(e.cpu, each(times.ReadCPU))
	e.send = append(e.send, each(times.SendCPU))
	return nil
}

func print(l reading.Load, entries []*entry) {
	how := "plain"
	if l.Segmented {
		how = "segmented"
	}
	fmt.Printf("%d datagrams of %d bytes in %d flows, sent %s; %d rounds of %v; ns for each datagram\n\n", l.Burst, l.Size, l.Flows, how, *rounds, *slot)
	tw := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "\tread\tCPU\tbest tenth\tx CPU\tsend CPU")
	first := entries[0]
	for _, e := range entries {
		if e.err != nil {
			fmt.Fprintf(tw, "%s\t%v\n", e.name, e.err)
			continue
		}
		times := make([]float64, 0, *rounds)
		for i := range min(len(e.cpu), len(first.cpu)) {
			times = append(times, first.cpu[i]/e.cpu[i])
		}
		ratio := "-"
		if len(times) > 0 {
			ratio = fmt.Sprintf("%.2f", harness.Median(times))
		}
		fmt.Fprintf(tw, "%s\t%.0f\t%.0f\t%.0f\t%s\t%.0f\n", e.name, harness.Median(e.wall), harness.Median(e.cpu),
			harness.Quantile(e.cpu, 0.1), ratio, harness.Median(e.send))
	}
	tw.Flush()
	fmt.Println()
}
