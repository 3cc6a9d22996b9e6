// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

// Ceiling compares ways of sending datagrams in Go with loops written by hand
// in C, if it was built with cgo, which are what the kernel can do at most. All ways send in turn, round
// after round, each for a few milliseconds, to receivers that nobody reads; the
// table has medians over the rounds, of times and of the ratios within a round.
//
//	go run ./ceiling [-rounds 31] [-time 20ms] [-size 1200] [-cpu]
package main

import (
	"flag"
	"fmt"
	"log"
	"os"
	"runtime"
	"text/tabwriter"
	"time"

	"github.com/batchconn/batchconn/bench/internal/way"
	"github.com/batchconn/batchconn/internal/harness"
)

var (
	rounds = flag.Int("rounds", 31, "rounds, each of all ways in turn")
	slot   = flag.Duration("time", 20*time.Millisecond, "how long a way sends in a round")
	size   = flag.Int("size", 1200, "bytes of a datagram")
	byCPU  = flag.Bool("cpu", true, "compare processor time of the sending thread, which other work on the machine disturbs less")
)

// A load is what is sent in a call, over and over: count datagrams, burst in a
// row to each of the receivers in turn. step makes each larger than the one
// before.
type load struct {
	name                          string
	receivers, count, burst, step int
	ways                          []way.Way // those of interest
}

func loads() []load {
	inC, missing := way.InC()
	if missing != "" {
		log.Printf("ceiling: no loops in C: %s", missing)
	}
	all := append([]way.Way{
		way.Net, way.XNet, way.SendMessagesOff, way.SendMessages, way.WriteBatch, way.AppendSegments,
		way.XNetSegmentedVectors, way.XNetSegmented,
	}, inC...)
	two := []way.Way{way.SendMessagesOff, way.SendMessages}
	return []load{
		{"one receiver", 1, 64, 64, 0, all},
		{"bursts to many", 16, 128, 8, 0, all},
		{"every message another destination", 64, 64, 1, 0, two},
		{"every message another size", 1, 64, 64, 1, two},
	}
}

func main() {
	log.SetFlags(0)
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 || *slot <= 0 || *size < 1 || *size > 9000 {
		fmt.Fprintln(os.Stderr, "ceiling: want rounds and time above 0, a size of 1 to 9000, and no argument")
		os.Exit(2)
	}
	runtime.LockOSThread() // thread time is read before and after
	for _, l := range loads() {
		if err := measure(l); err != nil {
			log.Fatalf("ceiling: %s: %v", l.name, err)
		}
	}
}

// each is nanoseconds for a datagram of what a way sends in a round.
func each(send way.Sender) (float64, error) {
	wall, cpu := time.Now(), harness.ThreadCPU()
	n, err := send(*slot)
	t := time.Since(wall)
	if *byCPU {
		t = harness.ThreadCPU() - cpu
	}
	return float64(t) / float64(n), err
}

func measure(l load) error {
	to, closeAll, err := harness.Sinks(l.receivers)
	if err != nil {
		return err
	}
	defer closeAll()
	wl := way.Load{To: to, Count: l.count, Burst: l.burst, Size: *size, Step: l.step}
	senders := make([]way.Sender, len(l.ways))
	for i, w := range l.ways {
		s, err := w.Open(&wl)
		if err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
		defer s.Close()
		senders[i] = s.Sender(way.NewBatch(wl, w.Roomy))
	}
	times := make([][]float64, len(senders))
	err = harness.Alternate(*rounds, len(senders), func(_, i int) error {
		ns, err := each(senders[i])
		if err != nil {
			return fmt.Errorf("%s: %w", l.ways[i].Name, err)
		}
		times[i] = append(times[i], ns)
		return nil
	})
	if err != nil {
		return err
	}
	print(l, times)
	return nil
}

// print shows each way's time, and how many times as fast as each it is.
func print(l load, times [][]float64) {
	of := "wall time"
	if *byCPU {
		of = "processor time"
	}
	fmt.Printf("%s: %d receivers, %d messages a call, %d in a row to each, %d bytes; %s, %d rounds of %v\n\n",
		l.name, l.receivers, l.count, l.burst, *size, of, *rounds, *slot)
	tw := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(tw, "\tns/datagram\tbest tenth\t")
	for i := range l.ways {
		fmt.Fprintf(tw, "x %d\t", i)
	}
	fmt.Fprintln(tw)
	for i, w := range l.ways {
		fmt.Fprintf(tw, "%d %s\t%.1f\t%.1f\t", i, w.Name, harness.Median(times[i]), bestTenth(times[i]))
		for j := range l.ways {
			ratios := make([]float64, len(times[i]))
			for r := range ratios {
				ratios[r] = times[j][r] / times[i][r]
			}
			fmt.Fprintf(tw, "%.3f\t", harness.Median(ratios))
		}
		fmt.Fprintln(tw)
	}
	tw.Flush()
	fmt.Println()
}

// bestTenth is what a tenth of the rounds did not need: on a busy machine, nearer
// to what a way costs by itself.
func bestTenth(v []float64) float64 { return harness.Quantile(v, 0.1) }
