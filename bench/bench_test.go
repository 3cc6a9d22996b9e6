// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/batchconn/batchconn/bench/internal/reading"
	"github.com/batchconn/batchconn/bench/internal/way"
	"github.com/batchconn/batchconn/internal/netns"
)

// TestMain lets this binary be the processes that receive, as the command is.
func TestMain(m *testing.M) {
	if beReader() || beReceiver() {
		return
	}
	os.Exit(m.Run())
}

func receiversOf(t *testing.T, w Work) []receiver {
	t.Helper()
	rs, err := openReceivers(w.Receivers, &reading.Loopback)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeReceivers(rs) })
	return rs
}

// TestLoserIsFound: a way that does not send all, or sends it twice or spoilt,
// is out.
func TestLoserIsFound(t *testing.T) {
	w := sendingWorks(true, reading.Loopback.Name)[1] // of several receivers
	for name, spoil := range map[string]func(b *way.Batch){
		"loses one":    func(b *way.Batch) { b.Datagrams = b.Datagrams[1:]; b.Count-- },
		"damages one":  func(b *way.Batch) { b.Datagrams[3] = make([]byte, b.Size) },
		"one twice":    func(b *way.Batch) { b.Datagrams[3] = b.Datagrams[4] },
		"one's prefix": func(b *way.Batch) { b.Datagrams[3] = b.Datagrams[3][:7] },
	} {
		bad := way.Way{Name: name, Open: func(l *way.Load) (*way.Socket, error) {
			s, err := way.Net.Open(l)
			if err != nil {
				return nil, err
			}
			sender := s.Sender
			s.Sender = func(b *way.Batch) way.Sender {
				spoilt := *b
				spoilt.Datagrams = append([][]byte(nil), b.Datagrams...)
				spoil(&spoilt)
				return sender(&spoilt)
			}
			return s, nil
		}}
		if _, _, err := checkArrival(bad, w, receiversOf(t, w)); err == nil {
			t.Errorf("one that %s is not found", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// testWorks are some of each part and medium; on loopback two of a kind, as
// charts need.
func testWorks(media []string) (some []Work) {
	kinds := map[string]int{}
	for _, w := range works(true, media) {
		enough := 2
		if w.Medium == onWire || testing.Short() {
			enough = 1
		}
		kind := string(w.Part) + w.where()
		if kinds[kind]++; kinds[kind] <= enough && (w.Medium != onWire || w.Part == partEnds || !testing.Short()) {
			some = append(some, w)
		}
	}
	return some
}

// TestResults: short contests, in which all datagrams of all ways arrive, give
// a report, JSON that gives the same report again, and charts.
func TestResults(t *testing.T) {
	netns.Run(t, func(t *testing.T, ns *netns.Namespace) {
		s, err := newSite(ns)
		netns.Check(t, err)
		defer s.close()
		for _, n := range append(missing(), s.notes...) {
			t.Log("left out: ", n)
		}
		opt := &options{rounds: 1, slot: time.Millisecond, out: t.TempDir()}
		res := &Results{Machine: thisMachine(), Rounds: opt.rounds}
		if err := res.hold(testWorks(s.media()), s, opt); err != nil {
			t.Fatal(err)
		}
		if err := res.write(opt.out); err != nil {
			t.Fatal(err)
		}
		report := readFile(t, opt.out, "report.md")
		if res.failed() > 0 {
			t.Errorf("%d failures:\n%s", res.failed(), report[strings.Index(report, "FAILED"):])
		}
		for _, c := range res.Contests {
			if len(c.Rows) < 9 || !strings.Contains(report, c.Name) {
				t.Errorf("%s: %d rows", c.Name, len(c.Rows))
			}
		}
		checkCharts(t, res, opt.out)
		again := &options{from: filepath.Join(opt.out, "results.json"), out: t.TempDir()}
		if err := run(again, nil); err != nil {
			t.Fatal(err)
		}
		if readFile(t, again.out, "report.md") != report {
			t.Error("another report from the same results")
		}
	})
}

// checkCharts looks for each chart that has two points or more.
func checkCharts(t *testing.T, res *Results, dir string) {
	t.Helper()
	drawn := 0
	for _, c := range charts() {
		if len(c.contests(res)) < 2 {
			continue
		}
		drawn++
		if svg := readFile(t, dir, c.file); !strings.Contains(svg, "</svg>") || !strings.Contains(svg, "batchconn") {
			t.Errorf("%s: %d bytes", c.file, len(svg))
		}
	}
	if drawn < 3 && !testing.Short() {
		t.Errorf("%d charts", drawn)
	}
}

// TestReceiverKnows: what arrives end to end is the sender's, whole, and once.
func TestReceiverKnows(t *testing.T) {
	const seed, size = 5, 300
	r := &endsReceiver{receiverJob: receiverJob{Seed: seed}, want: make([]byte, size), seen: map[[stampSize]byte]bool{}}
	datagram := func(s stamp) []byte {
		p := make([]byte, size)
		s.fill(p)
		return p
	}
	if !r.isNew(datagram(stamp{seed, 1, 2})) || !r.isNew(datagram(stamp{seed, 2, 2})) {
		t.Error("two that are right are not known")
	}
	if r.isNew(datagram(stamp{seed, 1, 2})) {
		t.Error("one came twice")
	}
	if r.isNew(datagram(stamp{seed + 1, 1, 3})) {
		t.Error("one is another receiver's")
	}
	for _, at := range []int{0, 10, 14, 17, size - 1} {
		damaged := datagram(stamp{seed, 1, 4})
		damaged[at]++
		if r.isNew(damaged) {
			t.Errorf("byte %d is damaged", at)
		}
	}
}

func readFile(t *testing.T, dir, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(bytes.TrimSpace(b))
}

// TestLowerBound: what is said of many rounds holds except by chance, and of
// few nothing is said.
func TestLowerBound(t *testing.T) {
	if _, ok := lowerBound(make([]float64, 9)); ok {
		t.Error("nine rounds can be all heads once in 512 times")
	}
	v := make([]float64, 31)
	for i := range v {
		v[i] = float64(i)
	}
	// Of 31 fair coins up to 6 show heads with probability 0.00044, and up to
	// 7 with 0.0017.
	if bound, ok := lowerBound(v); !ok || bound != 6 {
		t.Errorf("%v, %v; want the 7th smallest", bound, ok)
	}
}
