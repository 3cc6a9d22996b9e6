// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

// Ceiling compares ways of sending datagrams in Go with loops written by hand
// in C, which are what the kernel can do at most. All ways send in turn, round
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
	"slices"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

var (
	rounds = flag.Int("rounds", 31, "rounds, each of all ways in turn")
	slot   = flag.Duration("time", 20*time.Millisecond, "how long a way sends in a round")
	size   = flag.Int("size", 1200, "bytes of a datagram")
	byCPU  = flag.Bool("cpu", true, "compare processor time of the sending thread, which other work on the machine disturbs less")
)

// A load is what is sent in a call: count datagrams, burst in a row to each of
// the receivers in turn. step makes each larger than the one before.
type load struct {
	name                          string
	receivers, count, burst, step int
	ways                          []string // those of interest
}

var loads = []load{
	{"one receiver", 1, 64, 64, 0, nil},
	{"bursts to many", 16, 128, 8, 0, nil},
	{"every message another destination", 64, 64, 1, 0, []string{"SendMessages, GSOOff", "SendMessages"}},
	{"every message another size", 1, 64, 64, 1, []string{"SendMessages, GSOOff", "SendMessages"}},
}

func main() {
	log.SetFlags(0)
	flag.Parse()
	if flag.NArg() > 0 || *rounds < 1 || *slot <= 0 || *size < 1 || *size > 9000 {
		fmt.Fprintln(os.Stderr, "ceiling: want rounds and time above 0, a size of 1 to 9000, and no argument")
		os.Exit(2)
	}
	runtime.LockOSThread() // thread time is read before and after
	for _, l := range loads {
		if err := measure(l); err != nil {
			log.Fatalf("ceiling: %s: %v", l.name, err)
		}
	}
}

// A way sends the datagrams of a load for about d.
type way struct {
	name string
	send func(d time.Duration) (sample, error)
}

// A sample is what a way did in a round.
type sample struct {
	datagrams int
	wall, cpu time.Duration
}

// each is nanoseconds for a datagram.
func (s sample) each() float64 {
	t := s.wall
	if *byCPU {
		t = s.cpu
	}
	return float64(t) / float64(s.datagrams)
}

// repeat is a way that calls f, which sends n datagrams.
func repeat(name string, n int, f func() error) way {
	return way{name, func(d time.Duration) (s sample, err error) {
		wall, cpu := time.Now(), threadTime()
		for err == nil && time.Since(wall) < d {
			err = f()
			s.datagrams += n
		}
		s.wall, s.cpu = time.Since(wall), threadTime()-cpu
		return s, err
	}}
}

func threadTime() time.Duration {
	var t unix.Timespec
	unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano())
}

func measure(l load) error {
	s, err := newScene(l)
	if err != nil {
		return err
	}
	defer s.close()
	ways := s.ways()
	if l.ways != nil {
		ways = slices.DeleteFunc(ways, func(w way) bool { return !slices.Contains(l.ways, w.name) })
	}
	times := make([][]float64, len(ways))
	for round := range *rounds {
		for i := range ways {
			at := (i + round) % len(ways) // who goes first gains or loses by it
			sample, err := ways[at].send(*slot)
			if err != nil {
				return fmt.Errorf("%s: %w", ways[at].name, err)
			}
			times[at] = append(times[at], sample.each())
		}
	}
	print(l, ways, times)
	return nil
}

// print shows each way's time, and how many times as fast as each it is.
func print(l load, ways []way, times [][]float64) {
	of := "wall time"
	if *byCPU {
		of = "processor time"
	}
	fmt.Printf("%s: %d receivers, %d messages a call, %d in a row to each, %d bytes; %s, %d rounds of %v\n\n",
		l.name, l.receivers, l.count, l.burst, *size, of, *rounds, *slot)
	tw := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(tw, "\tns/datagram\tbest tenth\t")
	for i := range ways {
		fmt.Fprintf(tw, "x %d\t", i)
	}
	fmt.Fprintln(tw)
	for i, w := range ways {
		fmt.Fprintf(tw, "%d %s\t%.1f\t%.1f\t", i, w.name, median(times[i]), bestTenth(times[i]))
		for j := range ways {
			ratios := make([]float64, len(times[i]))
			for r := range ratios {
				ratios[r] = times[j][r] / times[i][r]
			}
			fmt.Fprintf(tw, "%.3f\t", median(ratios))
		}
		fmt.Fprintln(tw)
	}
	tw.Flush()
	fmt.Println()
}

// bestTenth is what a tenth of the rounds did not need: on a busy machine, nearer
// to what a way costs by itself.
func bestTenth(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/10] }

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
