// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"github.com/batchconn/batchconn/internal/harness"
)

const (
	// flowRest is how long a flow may be silent before it is forgotten.
	flowRest = 10 * time.Second
)

// A listener counts what batchbench -to sends here.
type listener struct {
	in   *reader
	mail *harness.Mailbag

	mu    sync.Mutex
	flows map[flowKey]*remoteFlow
	tally tally
	rest  int64 // lost in the flows that are forgotten
}

type flowKey struct {
	run              uint64
	sender, receiver uint16
}

type remoteFlow struct {
	flow
	last time.Time
}

// listen prints what arrives, each second in which anything did, until ctx is
// done or -duration is over.
func listen(ctx context.Context, opt *options, stdout io.Writer) (code int, err error) {
	u, err := harness.ListenUDP(opt.addr)
	if err != nil {
		return exitFailed, err
	}
	addr := u.LocalAddr()
	mail := harness.NewMailbag(readCount(maxSize), maxSize)
	in, err := opt.reading.open(u, mail)
	if err != nil {
		u.Close()
		return exitFailed, err
	}
	defer in.conn.Close()
	if opt.set["duration"] {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, opt.duration)
		defer cancel()
	}
	l := &listener{in: in, mail: mail, flows: make(map[flowKey]*remoteFlow)}
	out := &reports{w: stdout, json: opt.json}
	out.begin(addr, opt.reading)
	if err := l.run(ctx, out); err != nil {
		return exitFailed, err
	}
	if t := &out.before; t.damaged+t.duplicated > 0 {
		return exitFailed, fmt.Errorf("%s datagrams arrived damaged, %s twice", commas(t.damaged), commas(t.duplicated))
	}
	return exitOK, out.err
}

// run reads, and reports each second and at the end.
func (l *listener) run(ctx context.Context, out *reports) error {
	done := make(chan error, 1)
	go func() { done <- l.read() }()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	var err error
	for running := true; running; {
		select {
		case <-ticker.C:
		case err = <-done:
			running = false
		case <-ctx.Done():
			l.in.conn.SetReadDeadline(time.Now())
			err = <-done
			running = false
		}
		out.interval(l.state(time.Now()))
	}
	out.total()
	return err
}

// read counts until the read deadline.
func (l *listener) read() error {
	for {
		n, err := l.in.read(0)
		now := time.Now()
		l.mu.Lock()
		for i := range n {
			l.take(l.mail.Datagram(i), now)
		}
		l.mu.Unlock()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// take checks and counts one datagram. The caller holds mu.
func (l *listener) take(p []byte, now time.Time) {
	h, intact := parse(p)
	if !intact {
		l.tally.damaged++
		return
	}
	key := flowKey{h.run, h.sender, h.receiver}
	f := l.flows[key]
	if f == nil {
		f = new(remoteFlow)
		l.flows[key] = f
	}
	f.last = now
	f.note(h.sequence, len(p), &l.tally)
}

// state returns what was counted so far, and forgets flows that have ended.
func (l *listener) state(now time.Time) (t tally, lost int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	lost = l.rest
	for key, f := range l.flows {
		n := int64(f.lost())
		lost += n
		if now.Sub(f.last) > flowRest {
			l.rest += n
			delete(l.flows, key)
		}
	}
	return l.tally, lost
}

// A report is what one line says.
type report struct {
	Second     float64  `json:"second"` // since the start, at the end of the interval
	Total      bool     `json:"total"`  // of all intervals
	Rate       *float64 `json:"datagrams_per_second,omitempty"`
	Gbit       *float64 `json:"gbit_per_second,omitempty"`
	Arrived    uint64   `json:"arrived"`
	Lost       int64    `json:"lost"` // below 0 when what seemed lost came late
	Reordered  uint64   `json:"reordered"`
	Damaged    uint64   `json:"damaged"`
	Duplicated uint64   `json:"duplicated"`
}

// reports writes them.
type reports struct {
	w    io.Writer
	json bool
	err  error // of w

	start, last time.Time // of all, and of the interval under way
	before      tally     // what was reported
	lostBefore  int64
}

const reportLine = "%8s %12s %7s %12s %10s %8s\n"

func (o *reports) begin(addr net.Addr, how *reading) {
	o.start = time.Now()
	o.last = o.start
	if o.json {
		o.write(map[string]string{"listening": addr.String(), "read_with": how.name})
		return
	}
	o.printf("listening on %v with %s, a line for each second in which anything arrives\n\n", addr, how.name)
	o.printf(reportLine, "second", "datagrams/s", "Gbit/s", "arrived", "lost", "damaged")
}

// interval reports what came since the last one, if anything did.
func (o *reports) interval(t tally, lost int64) {
	now := time.Now()
	d := now.Sub(o.last).Seconds()
	o.last = now
	if t == o.before && lost == o.lostBefore {
		return
	}
	r := report{
		Second:     now.Sub(o.start).Seconds(),
		Rate:       new(float64(t.arrived-o.before.arrived) / d),
		Gbit:       new(float64(t.bytes-o.before.bytes) * 8 / 1e9 / d),
		Arrived:    t.arrived - o.before.arrived,
		Lost:       lost - o.lostBefore,
		Reordered:  t.reordered - o.before.reordered,
		Damaged:    t.damaged - o.before.damaged,
		Duplicated: t.duplicated - o.before.duplicated,
	}
	o.before, o.lostBefore = t, lost
	o.line(r, fmt.Sprintf("%.0f", r.Second))
}

func (o *reports) total() {
	t := &o.before
	if !o.json {
		o.printf("\n")
	}
	o.line(report{
		Second: o.last.Sub(o.start).Seconds(), Total: true,
		Arrived: t.arrived, Lost: o.lostBefore, Reordered: t.reordered, Damaged: t.damaged, Duplicated: t.duplicated,
	}, "total")
	if lost := max(o.lostBefore, 0); !o.json && t.arrived > 0 {
		o.printf("\n%s arrived. lost: gaps in the sequence numbers; what the end of a round lost leaves none.\n", percent(t.arrived, t.arrived+uint64(lost)))
	}
}

func (o *reports) line(r report, name string) {
	if o.json {
		o.write(r)
		return
	}
	rate := "-"
	if r.Rate != nil {
		rate = commas(uint64(*r.Rate + 0.5))
	}
	o.printf(reportLine, name, rate, decimal(r.Gbit, 2), commas(r.Arrived), fmt.Sprint(r.Lost), commas(r.Damaged+r.Duplicated))
}

func (o *reports) write(v any) {
	if err := json.NewEncoder(o.w).Encode(v); err != nil && o.err == nil {
		o.err = err
	}
}

func (o *reports) printf(format string, args ...any) {
	if _, err := fmt.Fprintf(o.w, format, args...); err != nil && o.err == nil {
		o.err = err
	}
}
