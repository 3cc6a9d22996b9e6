// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"slices"
	"strings"
	"time"
)

// results are all that was measured.
type results struct {
	opt         *options
	to          netip.AddrPort
	rounds      int
	each        time.Duration
	ways        []result
	interrupted bool
}

// A result is what one way gave.
type result struct {
	name    string
	samples []sample // by round
	err     error    // what ended it early
}

func newResults(opt *options, ways []way, to netip.AddrPort) *results {
	res := &results{opt: opt, to: to}
	res.rounds, res.each = opt.rounds()
	for _, w := range ways {
		res.ways = append(res.ways, result{name: w.name, samples: make([]sample, res.rounds)})
	}
	return res
}

// A row is one line of the table. What is not known is nil.
type row struct {
	Way         string   `json:"way"`
	Error       string   `json:"error,omitempty"`
	Rounds      int      `json:"rounds"`
	Rate        *float64 `json:"datagrams_per_second"`
	Gbit        *float64 `json:"gbit_per_second"`
	Nanos       *float64 `json:"ns_per_datagram"`
	CPUNanos    *float64 `json:"cpu_ns_per_datagram"`
	Calls       *float64 `json:"calls_per_datagram"`
	Sent        uint64   `json:"sent"`
	Arrived     *uint64  `json:"arrived"`
	Reordered   *uint64  `json:"reordered"`  // of those that arrived
	Damaged     *uint64  `json:"damaged"`    // wrong content, length or receiver
	Duplicated  *uint64  `json:"duplicated"` // arrived again
	Uncounted   *uint64  `json:"uncounted"`  // arrived, not counted as sent
	Ratio       *float64 `json:"ratio"`
	RatioLow    *float64 `json:"ratio_first_quartile"`
	RatioHigh   *float64 `json:"ratio_third_quartile"`
	unsupported bool
}

// wrong is what the table shows as damaged.
func (r *row) wrong() uint64 {
	if r.Damaged == nil {
		return 0
	}
	return *r.Damaged + *r.Duplicated + *r.Uncounted
}

func (s *sample) rate() float64 { return float64(s.sent) / s.elapsed.Seconds() }

func (s *sample) valid() bool { return s.elapsed > 0 && s.sent > 0 }

// row sums up a way: medians for what a busy machine disturbs, totals for what
// is exact.
func (res *results) row(w *result) row {
	out := row{Way: w.name}
	var total sample
	var rates, cpus, ratios []float64
	for i := range w.samples {
		s := &w.samples[i]
		total.sent += s.sent
		total.calls += s.calls
		total.tally.add(s.tally)
		total.uncounted += s.uncounted
		if !s.valid() {
			continue
		}
		rates = append(rates, s.rate())
		cpus = append(cpus, float64(s.cpu)/float64(s.sent))
		if first := &res.ways[0].samples[i]; first.valid() {
			ratios = append(ratios, s.rate()/first.rate())
		}
	}
	out.Rounds, out.Sent = len(rates), total.sent
	if res.opt.to == "" {
		out.Arrived, out.Reordered = &total.tally.arrived, &total.tally.reordered
		out.Damaged, out.Duplicated, out.Uncounted = &total.tally.damaged, &total.tally.duplicated, &total.uncounted
	}
	if w.err != nil {
		out.Error = w.err.Error()
		out.unsupported = errors.Is(w.err, errors.ErrUnsupported)
		return out
	}
	if len(rates) == 0 {
		return out
	}
	rate := quantile(rates, 0.5)
	out.Rate, out.Gbit, out.Nanos = &rate, new(rate*float64(res.opt.size)*8/1e9), new(1e9/rate)
	if hasCPU {
		out.CPUNanos = new(quantile(cpus, 0.5))
	}
	if total.calls > 0 {
		out.Calls = new(float64(total.calls) / float64(total.sent))
	}
	if len(ratios) > 0 {
		out.Ratio = new(quantile(ratios, 0.5))
		out.RatioLow, out.RatioHigh = new(quantile(ratios, 0.25)), new(quantile(ratios, 0.75))
	}
	return out
}

// quantile interpolates between the two values nearest to the part q.
func quantile(v []float64, q float64) float64 {
	slices.Sort(v)
	at := q * float64(len(v)-1)
	i := int(at)
	if i+1 == len(v) {
		return v[i]
	}
	return v[i] + (at-float64(i))*(v[i+1]-v[i])
}

// soFar is for the progress line.
func (w *result) soFar() string {
	for _, s := range slices.Backward(w.samples) {
		if s.valid() {
			return commas(uint64(s.rate())) + " datagrams/s"
		}
	}
	return ""
}

func (res *results) rows() (rows []row) {
	for i := range res.ways {
		rows = append(rows, res.row(&res.ways[i]))
	}
	return rows
}

// code is the exit code, and why it is 1.
func (res *results) code() (int, error) {
	var errs []error
	for _, r := range res.rows() {
		if n := r.wrong(); n > 0 {
			errs = append(errs, fmt.Errorf("%s: %s", r.Way, r.complaint()))
		}
		if r.Error != "" && !r.unsupported {
			errs = append(errs, fmt.Errorf("%s: %s", r.Way, r.Error))
		}
	}
	switch {
	case errs != nil:
		return exitFailed, oneLine(errs)
	case res.interrupted:
		return exitInterrupted, nil
	}
	return exitOK, nil
}

func (r *row) complaint() string {
	return fmt.Sprintf("%s datagrams arrived damaged, %s twice, %s without having been counted as sent",
		commas(*r.Damaged), commas(*r.Duplicated), commas(*r.Uncounted))
}

func oneLine(errs []error) error {
	return errors.New(strings.ReplaceAll(errors.Join(errs...).Error(), "\n", "; "))
}

func (res *results) print(w io.Writer) error {
	if res.opt.json {
		return res.printJSON(w)
	}
	_, err := io.WriteString(w, res.table())
	return err
}

func (res *results) printJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(map[string]any{
		"system": runtime.GOOS + "/" + runtime.GOARCH, "go": runtime.Version(), "cpus": runtime.GOMAXPROCS(0),
		"to": res.to.String(), "loopback": res.opt.to == "",
		"size": res.opt.size, "batch": res.opt.batch, "receivers": res.opt.receivers, "senders": res.opt.senders,
		"rounds": res.rounds, "round_seconds": res.each.Seconds(), "interrupted": res.interrupted,
		"ways": res.rows(),
	})
}

const (
	columns   = "%-*s %11s %7s %7s %7s %7s %18s %8s %6s\n"
	arrivedIn = "%s %6s" // count and part
)

func (res *results) table() string {
	var t strings.Builder
	opt := res.opt
	fmt.Fprintf(&t, "%s to %s: %d bytes, %d a call\n", plural(opt.senders, "sender"), res.target(), opt.size, opt.batch)
	fmt.Fprintf(&t, "%s/%s, %s, %s\n\n", runtime.GOOS, runtime.GOARCH, plural(runtime.GOMAXPROCS(0), "CPU"), runtime.Version())
	rows, width := res.rows(), len("way")
	for i := range rows {
		width = max(width, len(rows[i].Way))
	}
	fmt.Fprintf(&t, "%*s\n", width+43, "per datagram")
	fmt.Fprintf(&t, columns, width, "way", "datagrams/s", "Gbit/s", "ns", "CPU-ns", "calls", "arrived", "damaged", "ratio")
	for i := range rows {
		rows[i].print(&t, width)
	}
	t.WriteByte('\n')
	res.notes(&t, rows)
	return t.String()
}

func (res *results) target() string {
	if res.opt.to != "" {
		return res.to.String()
	}
	return plural(res.opt.receivers, "receiver") + " on loopback"
}

func (r *row) print(w io.Writer, width int) {
	if r.Error != "" {
		why := r.Error
		if r.unsupported {
			why = "not on " + runtime.GOOS
		}
		fmt.Fprintf(w, "%-*s %s\n", width, r.Way, why)
		return
	}
	arrived, damaged := "-", "-"
	if r.Arrived != nil && r.Sent > 0 {
		arrived = fmt.Sprintf(arrivedIn, commas(*r.Arrived), percent(*r.Arrived, r.Sent))
		damaged = commas(r.wrong())
	}
	rate := "-"
	if r.Rate != nil {
		rate = commas(uint64(*r.Rate + 0.5))
	}
	fmt.Fprintf(w, columns, width, r.Way, rate, decimal(r.Gbit, 2), decimal(r.Nanos, 0), decimal(r.CPUNanos, 0),
		decimal(r.Calls, 4), arrived, damaged, decimal(r.Ratio, 2))
}

// notes says how the numbers came about, and what there is to know about them.
func (res *results) notes(w io.Writer, rows []row) {
	done, lost := 0, uint64(0)
	for _, r := range rows {
		done = max(done, r.Rounds)
		if r.Arrived != nil {
			lost += r.Sent - min(*r.Arrived, r.Sent)
		}
	}
	if res.interrupted {
		fmt.Fprintf(w, "Interrupted in round %d of %d.\n", max(done, 1), res.rounds)
	}
	fmt.Fprintf(w, "Medians of %s of %v in which the ways took turns; ratio: the median\n"+
		"of each round's own. calls, arrived and damaged: exact, of all rounds.\n", plural(done, "round"), res.each.Round(100*time.Microsecond))
	if hasCPU {
		fmt.Fprintln(w, cpuNote)
	}
	switch {
	case res.opt.to != "":
		fmt.Fprintln(w, "These were handed to the kernel. What arrived is printed by batchbench -listen at the\nother end, without which no rate means anything.")
	case lost > 0:
		fmt.Fprintln(w, "arrived: the rest was dropped, as a rule at a receiver's full buffer; on loopback\nnothing slows a sender down, and a drop costs it less than a delivery.")
	}
	for i := range rows {
		if rows[i].wrong() > 0 {
			fmt.Fprintf(w, "DAMAGED: %s: %s.\n", rows[i].Way, rows[i].complaint())
		}
	}
}

func decimal(v *float64, digits int) string {
	if v == nil {
		return "-"
	}
	return fmt.Sprintf("%.*f", digits, *v)
}

// percent never says 100% of less than all.
func percent(part, whole uint64) string {
	if part == whole {
		return "100%"
	}
	tenths := uint64(float64(part) / float64(whole) * 1000)
	return fmt.Sprintf("%d.%d%%", min(tenths, 999)/10, min(tenths, 999)%10)
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// commas groups the digits of n by three.
func commas(n uint64) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
