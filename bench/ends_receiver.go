// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"time"

	"github.com/batchconn/batchconn/bench/internal/calls"
	"github.com/batchconn/batchconn/bench/internal/reading"
	"github.com/batchconn/batchconn/internal/harness"
)

// receiverVariable marks the process that receives one end to end; it holds its
// job.
const receiverVariable = "BATCHCONN_BENCH_RECEIVER"

type addrPort = netip.AddrPort

// A receiverJob is what it is to do.
type receiverJob struct {
	Way  string
	Size int
	At   netip.Addr
	Seed uint64
}

// A receiverHello is its first word.
type receiverHello struct {
	Addr    addrPort
	Error   string
	TooLong bool // the error is reading.ErrSize
}

func (h *receiverHello) error() error {
	switch {
	case h.TooLong:
		return reading.ErrSize
	case h.Error != "":
		return errors.New(h.Error)
	}
	return nil
}

// A receiverMode is what a time of it is for.
type receiverMode uint64

const (
	receiverChecks receiverMode = 0 // each datagram is looked at
	receiverTimes  receiverMode = 1
	receiverCounts receiverMode = 2 // the kernel's calls are counted
)

// An endsReport is what it got in one time.
type endsReport struct {
	Datagrams, Wrong, Dropped, Calls int
	CPU, At                          time.Duration
}

const (
	markerSize = 16

	// receiverRoom is for what one call can bring: 8 runs of 128 datagrams.
	receiverRoom = 1024
)

// An endsReceiver is that process.
type endsReceiver struct {
	receiverJob
	socket reading.Opened
	mail   *harness.Mailbag
	out    *json.Encoder

	slot    uint64
	mode    receiverMode
	counter calls.Counter
	report  endsReport
	cpu     time.Duration // at the beginning of this time
	dropped uint32
	seen    map[[stampSize]byte]bool
	want    []byte
}

// beReceiver is its main function. It returns false if this is not it.
func beReceiver() bool {
	job := os.Getenv(receiverVariable)
	if job == "" {
		return false
	}
	go func() { // it ends with the one that started it
		io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}()
	r := &endsReceiver{out: json.NewEncoder(os.Stdout), seen: map[[stampSize]byte]bool{}}
	err := json.Unmarshal([]byte(job), &r.receiverJob)
	if err == nil {
		err = r.open()
	}
	if err != nil {
		r.out.Encode(receiverHello{Error: err.Error(), TooLong: errors.Is(err, reading.ErrSize)})
		return true
	}
	r.out.Encode(receiverHello{Addr: r.socket.Addr})
	fmt.Fprintln(os.Stderr, "receiver:", r.Way, r.serve())
	os.Exit(1)
	return true
}

func (r *endsReceiver) open() (err error) {
	r.mail, r.want = harness.NewMailbag(receiverRoom, r.Size), make([]byte, r.Size)
	for _, ct := range bothWays() {
		if ct.Name != r.Way {
			continue
		}
		r.socket, err = reading.Open(func() (*reading.Socket, error) { return ct.receive.Open(r.mail, r.At) })
		if err != nil {
			return err
		}
		reading.SetBuffer(r.socket.Inlet, endsBuffer)
		r.begin(receiverChecks)
		return r.socket.SetReadDeadline(time.Time{})
	}
	return fmt.Errorf("no such way: %s", r.Way)
}

// serve reads until it fails.
func (r *endsReceiver) serve() error {
	for {
		n, err := r.socket.Read(0)
		if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		for i := range n {
			if r.mail.Lengths[i] == markerSize {
				if err := r.mark(r.mail.Datagram(i)); err != nil {
					return err
				}
				continue
			}
			r.report.Datagrams++
			if r.mail.Lengths[i] != r.Size || r.mode == receiverChecks && !r.isNew(r.mail.Datagram(i)) {
				r.report.Wrong++
			}
		}
	}
}

// isNew reports whether a datagram is just as it was sent, and was not there
// yet.
func (r *endsReceiver) isNew(p []byte) bool {
	id := [stampSize]byte(p)
	s := stamp{binary.BigEndian.Uint64(id[:]), binary.BigEndian.Uint32(id[8:]), binary.BigEndian.Uint32(id[12:])}
	if s.seed != r.Seed || r.seen[id] {
		return false
	}
	r.seen[id] = true
	s.fill(r.want)
	return bytes.Equal(p, r.want)
}

// mark ends a time, unless the marker is one that came late.
func (r *endsReceiver) mark(p []byte) error {
	at := monotonic()
	if binary.BigEndian.Uint64(p) != r.slot {
		return nil
	}
	r.slot++
	r.report.At, r.report.CPU = at, harness.ProcessCPU()-r.cpu
	if r.mode&receiverCounts != 0 {
		r.report.Calls = r.counter.Stop()
	}
	dropped, err := r.socket.Inlet.Drops()
	if err != nil {
		return err
	}
	r.report.Dropped = int(dropped - r.dropped)
	if err := r.out.Encode(r.report); err != nil {
		return err
	}
	clear(r.seen)
	r.dropped = dropped
	r.begin(receiverMode(binary.BigEndian.Uint64(p[8:])))
	return nil
}

func (r *endsReceiver) begin(mode receiverMode) {
	r.mode, r.report = mode, endsReport{}
	if mode&receiverCounts != 0 {
		r.counter, _ = calls.Count(calls.Receive) // where it is not to be had, there are no calls
	}
	r.cpu = harness.ProcessCPU()
}
