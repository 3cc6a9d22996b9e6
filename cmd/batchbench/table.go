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

	"github.com/batchconn/batchconn/internal/harness"
)

// maxSpans bounds the memory that a long measurement takes: beyond so many
// samples each becomes the sum of two that followed each other.
const maxSpans = 4096

// results are all that was measured.
type results struct {
	opt      *options
	to       netip.AddrPort
	burst    int // of the ways of reading
	rounds   int
	each     time.Duration
	ways     []result
	readings []result

	done        int  // rounds that began
	shift       uint // a sample is the sum of 1<<shift rounds
	interrupted int  // the exit code of what ended it early, or 0
}

// A result is what one way of sending or of reading gave.
type result struct {
	sending, reading string
	how              *reading // of a way of reading
	by               way      // that sends to it
	samples          []sample // by round
	err              error    // what ended it early
}

// title is for the progress line.
func (r *result) title() string {
	if r.how == nil {
		return r.sending
	}
	return r.reading + ", " + r.sending
}

func newResults(opt *options, to netip.AddrPort) *results {
	res := &results{opt: opt, to: to}
	res.rounds, res.each = opt.rounds()
	for _, w := range ways {
		r := result{sending: w.name}
		if opt.to == "" {
			r.reading = opt.reading.name
		}
		res.ways = append(res.ways, r)
	}
	if opt.to != "" {
		return res
	}
	for _, by := range sendings {
		for i := range readings {
			how := &readings[i]
			if opt.set["read"] && opt.reading != &prompt && opt.reading != how && i > 0 {
				continue
			}
			res.readings = append(res.readings, result{sending: by.name, reading: how.name, how: how, by: by})
		}
	}
	return res
}

// add notes what one did in a round.
func (res *results) add(r *result, round int, s *sample) {
	res.done = max(res.done, round+1)
	if round>>res.shift == maxSpans {
		res.halve()
	}
	at := round >> res.shift
	for len(r.samples) <= at {
		r.samples = append(r.samples, sample{})
	}
	r.samples[at].add(s)
}

// halve adds each second sample to the one before it.
func (res *results) halve() {
	res.shift++
	for _, rs := range [][]result{res.ways, res.readings} {
		for i := range rs {
			old := rs[i].samples
			rs[i].samples = nil
			for k := range old {
				if k%2 == 0 {
					rs[i].samples = append(rs[i].samples, sample{})
				}
				rs[i].samples[k/2].add(&old[k])
			}
		}
	}
}

// A row is one line of the table. What is not known is nil.
type row struct {
	Way         string   `json:"way"`                 // of sending
	Reading     string   `json:"read_with,omitempty"` // nobody here, with -to
	Error       string   `json:"error,omitempty"`
	Rounds      int      `json:"rounds"`
	Rate        *float64 `json:"datagrams_per_second"`
	Gbit        *float64 `json:"gbit_per_second"`
	Nanos       *float64 `json:"ns_per_datagram"`
	CPUNanos    *float64 `json:"cpu_ns_per_datagram"`
	ReadCPU     *float64 `json:"read_cpu_ns_per_datagram"` // of those that arrived
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
	name        string // of the row
}

// wrong is what the table shows as damaged.
func (r *row) wrong() uint64 {
	if r.Damaged == nil {
		return 0
	}
	return *r.Damaged + *r.Duplicated + *r.Uncounted
}

func (s *sample) rate() float64 { return float64(s.moved) / s.elapsed.Seconds() }

// cost is what ratios compare: the time for each datagram. Reading is done in
// one thread, whose processor's time a busy machine disturbs less than the
// clock's.
func (s *sample) cost(r *result) float64 {
	if r.how != nil && harness.HaveThreadCPU {
		return float64(s.readCPU) / float64(s.moved)
	}
	return 1 / s.rate()
}

func (s *sample) valid() bool { return s.elapsed > 0 && s.moved > 0 }

// first is what a result is compared with.
func (res *results) first(r *result) *result {
	if r.how == nil {
		return &res.ways[0]
	}
	for i := range res.readings {
		if res.readings[i].sending == r.sending {
			return &res.readings[i]
		}
	}
	return r
}

// row sums up a result: medians for what a busy machine disturbs, totals for
// what is exact.
func (res *results) row(r *result) row {
	out := row{Way: r.sending, Reading: r.reading, name: r.title()}
	var total sample
	var rates, cpus, readCPUs, ratios []float64
	first := res.first(r)
	for i := range r.samples {
		s := &r.samples[i]
		total.add(s)
		if !s.valid() {
			continue
		}
		rates = append(rates, s.rate())
		cpus = append(cpus, float64(s.cpu)/float64(s.sent))
		if s.tally.arrived > 0 {
			readCPUs = append(readCPUs, float64(s.readCPU)/float64(s.tally.arrived))
		}
		if i < len(first.samples) && first.samples[i].valid() {
			ratios = append(ratios, first.samples[i].cost(r)/s.cost(r))
		}
	}
	out.Rounds, out.Sent = len(rates), total.sent
	if res.opt.to == "" {
		out.Arrived, out.Reordered = &total.tally.arrived, &total.tally.reordered
		out.Damaged, out.Duplicated, out.Uncounted = &total.tally.damaged, &total.tally.duplicated, &total.uncounted
	}
	if r.err != nil {
		out.Error = r.err.Error()
		out.unsupported = errors.Is(r.err, errors.ErrUnsupported)
		return out
	}
	if len(rates) == 0 {
		return out
	}
	rate := harness.Median(rates)
	out.Rate, out.Gbit, out.Nanos = &rate, new(rate*float64(res.opt.size)*8/1e9), new(1e9/rate)
	if haveCPU(r) {
		out.CPUNanos = new(harness.Median(cpus))
	}
	if harness.HaveThreadCPU && len(readCPUs) > 0 {
		out.ReadCPU = new(harness.Median(readCPUs))
	}
	if total.calls > 0 {
		out.Calls = new(float64(total.calls) / float64(total.sent))
	}
	if len(ratios) > 0 {
		out.Ratio = new(harness.Median(ratios))
		out.RatioLow, out.RatioHigh = new(harness.Quantile(ratios, 0.25)), new(harness.Quantile(ratios, 0.75))
	}
	return out
}

// haveCPU reports whether the sending side's time is known: reading is compared
// in the same thread.
func haveCPU(r *result) bool {
	if r.how != nil {
		return harness.HaveThreadCPU
	}
	return harness.HaveProcessCPU
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

func (res *results) rows(of []result) (rows []row) {
	for i := range of {
		rows = append(rows, res.row(&of[i]))
	}
	return rows
}

func (res *results) allRows() []row { return append(res.rows(res.ways), res.rows(res.readings)...) }

// code is the exit code, and why it is 1.
func (res *results) code() (int, error) {
	var errs []error
	for _, r := range res.allRows() {
		if n := r.wrong(); n > 0 {
			errs = append(errs, fmt.Errorf("%s: %s", r.name, r.complaint()))
		}
		if r.Error != "" && !r.unsupported {
			errs = append(errs, fmt.Errorf("%s: %s", r.name, r.Error))
		}
	}
	switch {
	case errs != nil:
		return exitFailed, errors.Join(errs...)
	case res.interrupted != 0:
		return res.interrupted, nil
	}
	return exitOK, nil
}

func (r *row) complaint() string {
	return fmt.Sprintf("%s datagrams arrived damaged, %s twice, %s without having been counted as sent",
		commas(*r.Damaged), commas(*r.Duplicated), commas(*r.Uncounted))
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }

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
		"rounds": res.rounds, "round_seconds": res.each.Seconds(), "interrupted": res.interrupted != 0,
		"ways": res.rows(res.ways), "reading_burst": res.burst, "reading": res.rows(res.readings),
	})
}

const (
	sendColumns = "%-*s %11s %7s %7s %7s %7s %7s %7s %7s %6s\n"
	readColumns = "%-*s %-9s %11s %7s %7s %7s %7s %7s %6s\n"
)

func (res *results) table() string {
	var t strings.Builder
	opt := res.opt
	fmt.Fprintf(&t, "%s to %s: %d bytes, %d a call\n", plural(opt.senders, "sender"), res.target(), opt.size, opt.batch)
	fmt.Fprintf(&t, "%s/%s, %s, %s\n\n", runtime.GOOS, runtime.GOARCH, plural(runtime.GOMAXPROCS(0), "CPU"), runtime.Version())
	rows := res.rows(res.ways)
	width := len("sent by")
	for i := range rows {
		width = max(width, len(rows[i].Way))
	}
	fmt.Fprintf(&t, "%*s\n", width+43, "per datagram")
	fmt.Fprintf(&t, sendColumns, width, "sent by", "datagrams/s", "Gbit/s", "ns", "CPU-ns", "rCPU-ns", "calls", "arrived", "damaged", "ratio")
	for i := range rows {
		rows[i].printSending(&t, width)
	}
	reading := res.rows(res.readings)
	res.readingTable(&t, reading)
	t.WriteByte('\n')
	res.notes(&t, append(rows, reading...))
	return t.String()
}

// readingTable is the part about reading, if there is one.
func (res *results) readingTable(w io.Writer, rows []row) {
	if len(rows) == 0 {
		return
	}
	width := 0
	for i := range rows {
		width = max(width, len(rows[i].Reading))
	}
	fmt.Fprintf(w, "\nReading: %s sent, then read, in turn; only the reading is timed\n\n", plural(res.burst, "datagram"))
	fmt.Fprintf(w, "%*s\n", width+38, "per datagram")
	fmt.Fprintf(w, readColumns, width, "read by", "sent", "datagrams/s", "ns", "rCPU-ns", "CPU-ns", "arrived", "damaged", "ratio")
	for i := range rows {
		rows[i].printReading(w, width)
	}
}

func (res *results) target() string {
	if res.opt.to != "" {
		return res.to.String()
	}
	return plural(res.opt.receivers, "receiver") + " on loopback"
}

func (r *row) printSending(w io.Writer, width int) {
	if r.Error != "" {
		fmt.Fprintf(w, "%-*s %s\n", width, r.Way, r.why())
		return
	}
	arrived, damaged := r.arrival()
	fmt.Fprintf(w, sendColumns, width, r.Way, r.rate(), decimal(r.Gbit, 2), decimal(r.Nanos, 0), decimal(r.CPUNanos, 0),
		decimal(r.ReadCPU, 0), decimal(r.Calls, 4), arrived, damaged, decimal(r.Ratio, 2))
}

func (r *row) printReading(w io.Writer, width int) {
	if r.Error != "" {
		fmt.Fprintf(w, "%-*s %-9s %s\n", width, r.Reading, r.Way, r.why())
		return
	}
	arrived, damaged := r.arrival()
	fmt.Fprintf(w, readColumns, width, r.Reading, r.Way, r.rate(), decimal(r.Nanos, 0), decimal(r.ReadCPU, 0),
		decimal(r.CPUNanos, 0), arrived, damaged, decimal(r.Ratio, 2))
}

func (r *row) why() string {
	if r.unsupported {
		return "not on " + runtime.GOOS
	}
	return r.Error
}

func (r *row) rate() string {
	if r.Rate == nil {
		return "-"
	}
	return commas(uint64(*r.Rate + 0.5))
}

func (r *row) arrival() (arrived, damaged string) {
	if r.Arrived == nil || r.Sent == 0 {
		return "-", "-"
	}
	return percent(*r.Arrived, r.Sent), commas(r.wrong())
}

// notes says how the numbers came about, and what there is to know about them.
func (res *results) notes(w io.Writer, rows []row) {
	spans, lost := 0, uint64(0)
	for _, r := range rows {
		spans = max(spans, r.Rounds)
		if r.Arrived != nil {
			lost += r.Sent - min(*r.Arrived, r.Sent)
		}
	}
	if res.interrupted != 0 {
		fmt.Fprintf(w, "Interrupted in round %d of %d.\n", max(res.done, 1), res.rounds)
	}
	each := (res.each << res.shift).Round(100 * time.Microsecond)
	fmt.Fprintf(w, "Medians of %s of %v, in each of which all took turns", plural(spans, "round"), each)
	byCPU := ""
	if len(res.readings) > 0 {
		fmt.Fprintf(w, " (reading: %v)", each/readingPart)
		if harness.HaveThreadCPU {
			byCPU = " (reading: in rCPU-ns)"
		}
	}
	fmt.Fprint(w, ".\nratio: how many times as fast as the first row"+byCPU+", the median of the rounds' own.\ncalls, arrived and damaged: of all rounds.\n")
	if harness.HaveThreadCPU && res.opt.to == "" {
		fmt.Fprintf(w, "CPU-ns, rCPU-ns: user and system time of the sending and of the reading threads. On loopback the\n"+
			"sender does the kernel's work up to the receiver's queue too. Receivers of the first table\nread %s.\n", res.opt.reading.name)
	} else if harness.HaveProcessCPU {
		fmt.Fprintln(w, "CPU-ns: user and system time of the whole process.")
	}
	switch {
	case res.opt.to != "":
		fmt.Fprintln(w, "These were handed to the kernel. What arrived is printed by batchbench -listen at the\nother end, without which no rate means anything.")
	case lost > 0:
		fmt.Fprintln(w, "arrived: the rest was dropped, as a rule at a receiver's full buffer; on loopback\nnothing slows a sender down, and a drop costs it less than a delivery.")
	}
	for i := range rows {
		if rows[i].wrong() > 0 {
			fmt.Fprintf(w, "DAMAGED: %s: %s.\n", rows[i].name, rows[i].complaint())
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
