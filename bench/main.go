// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

// Bench compares batchconn with what else sends and receives UDP datagrams, all
// in one run: sending, receiving, and both end to end, on loopback and on a
// wire.
//
//	go run . [-quick] [-out results] [-rounds 21] [-time 30ms]
//
// Each way first has every datagram of its batches looked for at the receivers.
// Then all take turns, round after round, each for a moment; see README.md for
// what is measured. -out is where results.json, report.md and the charts go. It
// fails if a datagram of a check did not arrive intact.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/batchconn/batchconn/internal/netns"
)

func main() {
	if beReader() || beReceiver() {
		return
	}
	log.SetFlags(0)
	log.SetPrefix("bench: ")
	var opt options
	flag.BoolVar(&opt.quick, "quick", false, "fewer works and rounds, in less than a minute: whether all datagrams of the checks arrive")
	flag.IntVar(&opt.rounds, "rounds", 0, "rounds that count, of each work (21, or 3 with -quick)")
	flag.DurationVar(&opt.slot, "time", 0, "how long a way sends in a round (30ms, or 8ms with -quick); reading takes a quarter of it")
	flag.StringVar(&opt.only, "only", "", "one part only: sending, reading, overrun or ends")
	flag.StringVar(&opt.out, "out", "", "folder for the results (results, or none with -quick or -only)")
	flag.StringVar(&opt.from, "from", "", "results.json of a former run, to write its report and charts again")
	flag.Parse()
	if flag.NArg() > 0 || opt.rounds < 0 || opt.slot < 0 {
		flag.Usage()
		os.Exit(2)
	}
	opt.defaults()
	ns, err := ownNetwork(&opt)
	if err == nil {
		err = run(&opt, ns)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// ownNetwork has this program run again in a network of its own, where it can
// make wires. It returns that network there, and nothing where there are none.
func ownNetwork(opt *options) (*netns.Namespace, error) {
	if opt.from != "" {
		return nil, nil
	}
	if netns.Inside() {
		return netns.Enter()
	}
	code, err := netns.Reexec()
	if err == nil {
		os.Exit(code)
	}
	if netns.Unavailable(err) {
		err = nil
	}
	return nil, err
}

type options struct {
	quick           bool
	rounds          int
	slot            time.Duration
	only, out, from string
}

func (o *options) defaults() {
	rounds, slot, out := 21, 30*time.Millisecond, "results"
	if o.quick {
		rounds, slot = 3, 8*time.Millisecond
	}
	if o.quick || o.only != "" {
		out = ""
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

// command gives the same measurement again.
func (o *options) command() string {
	c := fmt.Sprintf("go run . -rounds %d -time %v", o.rounds, o.slot)
	if o.quick {
		c += " -quick"
	}
	if o.only != "" {
		c += " -only " + o.only
	}
	return c
}

func run(opt *options, ns *netns.Namespace) error {
	res := new(Results)
	if opt.from != "" {
		b, err := os.ReadFile(opt.from)
		if err == nil {
			err = json.Unmarshal(b, res)
		}
		if err != nil {
			return err
		}
	} else if err := res.measure(opt, ns); err != nil {
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
func (r *Results) measure(opt *options, ns *netns.Namespace) (err error) {
	s, err := newSite(ns)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	*r = Results{Machine: thisMachine(), Rounds: opt.rounds, Slot: opt.slot.String(), Missing: append(missing(), s.notes...)}
	r.Command = opt.command()
	ws := slices.DeleteFunc(works(opt.quick, s.media()), func(w Work) bool { return opt.only != "" && string(w.Part) != opt.only })
	return r.hold(ws, s, opt)
}

// hold holds the contests of works.
func (r *Results) hold(ws []Work, s *site, opt *options) error {
	begin := time.Now()
	for i, w := range ws {
		log.Printf("%4.0f s: %d of %d: %s, %s: %s", time.Since(begin).Seconds(), i+1, len(ws), w.Part, w.where(), w.Name)
		res, err := hold(w, s, opt)
		if err != nil {
			return fmt.Errorf("%s, %s: %w", w.Part, w.Name, err)
		}
		r.Contests = append(r.Contests, res)
	}
	log.Printf("%4.0f s: done", time.Since(begin).Seconds())
	return nil
}

func hold(w Work, s *site, opt *options) (res Result, err error) {
	c, err := newContest(w, s)
	if err != nil {
		return res, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	rounds, slot := opt.rounds, opt.slot
	switch w.Part {
	case partReading:
		slot /= 4
	case partOverrun: // which comes out the same each time
		rounds = min(rounds, 3)
	}
	c.run(rounds, slot)
	return c.result(), nil
}

// write writes report, results and charts to a folder.
func (r *Results) write(dir string) error {
	if dir == "" {
		return nil
	}
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	b = bytes.ReplaceAll(b, []byte(`{"way":`), []byte("\n"+`{"way":`)) // a line for each row
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
