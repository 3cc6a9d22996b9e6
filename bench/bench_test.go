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

	"github.com/batchconn/batchconn/bench/internal/way"
)

// TestMain lets this binary be the process that reads, as the command's does.
func TestMain(m *testing.M) {
	if beReader() {
		return
	}
	os.Exit(m.Run())
}

func receiversOf(t *testing.T, w Work) []receiver {
	t.Helper()
	rs, err := openReceivers(w.Receivers)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeReceivers(rs) })
	return rs
}

// TestArrival: all that each way sends arrives, once and undamaged, at whom it
// was sent to.
func TestArrival(t *testing.T) {
	all, missing := contenders()
	for _, m := range missing {
		t.Log("left out: ", m)
	}
	for _, w := range works(true) {
		t.Run(w.Name, func(t *testing.T) {
			rs := receiversOf(t, w)
			for _, ct := range all {
				if _, _, err := checkArrival(ct.Way, w, rs); err != nil {
					t.Errorf("%s: %v", ct.Name, err)
				}
			}
		})
	}
}

// TestLoserIsFound: who does not send all, sends it twice or to another is out.
func TestLoserIsFound(t *testing.T) {
	w := works(true)[1] // of several receivers
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
			t.Errorf("who %s is not found", name)
		} else {
			t.Logf("%s: %v", name, err)
		}
	}
}

// TestResults: a short contest gives a report, JSON that gives the same report
// again, and charts.
func TestResults(t *testing.T) {
	opt := &options{rounds: 2, slot: time.Millisecond, quick: true, out: t.TempDir()}
	res := new(Results)
	if err := res.measure(opt); err != nil {
		t.Fatal(err)
	}
	if n := res.failed(); n > 0 {
		t.Errorf("%d failures", n)
	}
	if err := res.write(opt.out); err != nil {
		t.Fatal(err)
	}
	report := readFile(t, opt.out, "report.md")
	for _, c := range res.Contests {
		if len(c.Rows) < 8 || !strings.Contains(report, c.Name) {
			t.Errorf("%s: %d rows", c.Name, len(c.Rows))
		}
	}
	for _, c := range charts {
		if svg := readFile(t, opt.out, c.file); !strings.Contains(svg, "</svg>") || !strings.Contains(svg, way.SendMessages.Name) {
			t.Errorf("%s: %d bytes", c.file, len(svg))
		}
	}
	again := &options{from: filepath.Join(opt.out, "results.json"), out: t.TempDir()}
	if err := run(again); err != nil {
		t.Fatal(err)
	}
	if readFile(t, again.out, "report.md") != report {
		t.Error("another report from the same results")
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

// TestAtLeast: what is said of many rounds holds but for chance, and of few
// nothing is said.
func TestAtLeast(t *testing.T) {
	if _, ok := atLeast(make([]float64, 9)); ok {
		t.Error("nine rounds can be all heads once in 512 times")
	}
	v := make([]float64, 31)
	for i := range v {
		v[i] = float64(i)
	}
	// Of 31 fair coins at most 6 show heads with probability 0.00044, and at
	// most 7 with 0.0017.
	if bound, ok := atLeast(v); !ok || bound != 6 {
		t.Errorf("%v, %v; want the 7th smallest", bound, ok)
	}
}
