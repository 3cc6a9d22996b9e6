// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

// Bench compares batchconn with what else sends UDP datagrams, all in one run, on
// the same datagrams and receivers.
//
//	go run . [-quick] [-out results] [-rounds 31] [-time 40ms]
//
// Each way first has every datagram of its batches looked for at the receivers.
// Then all send in turn, round after round, each for a moment; see README.md for
// what is measured. -out is where results.json, report.md and the charts go. It
// fails if a datagram of a check did not arrive intact.
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"
)

func main() {
	if beReader() {
		return
	}
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	var opt options
	flag.BoolVar(&opt.quick, "quick", false, "fewer workloads and rounds, in less than a minute: whether all datagrams of the checks arrive")
	flag.IntVar(&opt.rounds, "rounds", 0, "rounds that count, of each work (31, or 3 with -quick)")
	flag.DurationVar(&opt.slot, "time", 0, "how long a way sends in a round (40ms, or 10ms with -quick)")
	flag.StringVar(&opt.out, "out", "", "folder for the results (results, or none with -quick)")
	flag.StringVar(&opt.from, "from", "", "results.json of a former run, to write its report and charts again")
	flag.Parse()
	if flag.NArg() > 0 || opt.rounds < 0 || opt.slot < 0 {
		flag.Usage()
		os.Exit(2)
	}
	opt.defaults()
	if err := run(&opt); err != nil {
		log.Fatal(err)
	}
}

type options struct {
	quick     bool
	rounds    int
	slot      time.Duration
	out, from string
}

func (o *options) defaults() {
	rounds, slot, out := 31, 40*time.Millisecond, "results"
	if o.quick {
		rounds, slot, out = 3, 10*time.Millisecond, ""
	}
	if o.rounds == 0 {
		o.rounds = rounds
	}
	if o.slot == 0 {
		o.slot = slot
	}
	if o.out == "" {
		o.out = out
	}
}

func run(opt *options) error {
	res := new(Results)
	if opt.from != "" {
		b, err := os.ReadFile(opt.from)
		if err == nil {
			err = json.Unmarshal(b, res)
		}
		if err != nil {
			return err
		}
	} else if err := res.measure(opt); err != nil {
		return err
	}
	err := res.write(opt.out)
	writeReport(os.Stdout, res)
	if n := res.failed(); n > 0 {
		return errors.Join(err, fmt.Errorf("%d failures, see above", n))
	}
	fmt.Println("\nAll datagrams of the checks arrived.")
	return err
}

// measure holds all contests.
func (r *Results) measure(opt *options) error {
	all, missing := contenders()
	*r = Results{Machine: thisMachine(), Rounds: opt.rounds, Slot: opt.slot.String(), Base: all[0].Name, Missing: missing}
	ws := works(opt.quick)
	begin := time.Now()
	for i, w := range ws {
		log.Printf("%4.0f s: %d of %d: %s", time.Since(begin).Seconds(), i+1, len(ws), w.Name)
		res, err := hold(w, all, opt)
		if err != nil {
			return fmt.Errorf("%s: %w", w.Name, err)
		}
		r.Contests = append(r.Contests, res)
	}
	log.Printf("%4.0f s: done", time.Since(begin).Seconds())
	return nil
}

func hold(w Work, all []contender, opt *options) (res Result, err error) {
	c, err := newContest(w, all)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	if err := c.run(opt.rounds, opt.slot); err != nil {
		return res, err
	}
	return c.result(), nil
}

// write writes everything but to standard output.
func (r *Results) write(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "results.json"), append(b, '\n'), 0o666); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(dir, "report.md"))
	if err != nil {
		return err
	}
	writeReport(f, r)
	return errors.Join(f.Close(), r.draw(dir))
}
