// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/bench/internal/reading"
	"github.com/batchconn/batchconn/bench/internal/way"
	"github.com/batchconn/batchconn/internal/harness"
)

// Both halves of a way, end to end: this process sends, and one of its own
// receives, so that each has its own processor time and its own scheduler. It
// ends a time with a marker, which the receiver answers with what it got.

// An endsPlayer sends from its flows to a receiver in another process.
type endsPlayer struct {
	work    Work
	flows   []endsFlow
	marker  *net.UDPConn
	cmd     *exec.Cmd
	control io.Closer
	reports chan endsReport
	seed    uint64
	slot    uint64
}

// An endsFlow is one socket.
type endsFlow struct {
	socket *way.Socket
	batch  *way.Batch
	send   way.Sender
}

const (
	// endsBuffer is the receivers' SO_RCVBUF, which the kernel doubles.
	endsBuffer = 2 << 20

	// together is how many datagrams a flow sends at least before its sender
	// looks at the clock: pion/transport sends by so many.
	together = 64
)

func openEnds(c *contest, m *reading.Medium) error {
	for _, e := range c.entries {
		p, err := newEndsPlayer(e.contender, c.work, m)
		if p != nil {
			e.player = p
		}
		if err == nil {
			e.checked, err = p.check()
		}
		e.err = err
	}
	return nil
}

func newEndsPlayer(ct contender, w Work, m *reading.Medium) (*endsPlayer, error) {
	p := &endsPlayer{work: w, seed: rand.Uint64(), reports: make(chan endsReport, 1)}
	to, err := p.startReceiver(ct.Name, m)
	if err != nil {
		return nil, err
	}
	for range w.Flows {
		l := way.Load{To: to, Count: w.Burst, Burst: w.Burst, Size: w.Size, Full: true}
		s, err := ct.send.Open(&l)
		if err != nil {
			return p, err
		}
		b := way.NewBatch(l, ct.send.Roomy)
		p.flows = append(p.flows, endsFlow{s, b, s.Sender(b)})
	}
	p.marker, err = net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(to[0]))
	return p, err
}

func (p *endsPlayer) close() error {
	for _, f := range p.flows {
		f.socket.Close()
	}
	if p.marker != nil {
		p.marker.Close()
	}
	return errors.Join(p.control.Close(), p.cmd.Wait())
}

// check has all flows send datagrams that no other is like, and the receiver
// look for each: complete, once, from that sender. What the kernel dropped for
// want of room is tried again.
func (p *endsPlayer) check() (checked int, err error) {
	const tries = 3
	for range tries {
		sent, err := p.sendStamped()
		if err != nil {
			return sent, err
		}
		r, err := p.finish(receiverChecks)
		switch {
		case err != nil:
			return sent, err
		case r.Wrong > 0:
			return sent, fmt.Errorf("%d of %d datagrams that were not sent so, or came before", r.Wrong, r.Datagrams)
		case r.Datagrams == sent:
			_, err = p.finish(receiverTimes)
			return sent, err
		case r.Dropped == 0 && p.work.Medium != onWire:
			return sent, fmt.Errorf("%d of %d datagrams arrived, and the kernel dropped none", r.Datagrams, sent)
		}
	}
	return 0, fmt.Errorf("some of the datagrams did not arrive, %d times", tries)
}

func (p *endsPlayer) sendStamped() (sent int, err error) {
	const checks = 2
	for round := range checks {
		for i := range p.flows {
			n, err := p.sendStampedOf(i, round)
			if sent += n; err != nil {
				return sent, err
			}
			harness.Pause(time.Millisecond) // the receiver's buffer does not hold all
		}
	}
	return sent, p.flush()
}

// sendStampedOf has a flow send as many as it does together.
func (p *endsPlayer) sendStampedOf(flow, round int) (sent int, err error) {
	f, batches := p.flows[flow], max(1, together/p.work.Burst)
	for batch := range batches {
		for k, d := range f.batch.Datagrams {
			stamp{p.seed, uint32(flow), uint32((round*batches+batch)*p.work.Burst + k)}.fill(d)
		}
		n, err := f.send(0)
		if sent += n; err != nil {
			return sent, err
		}
	}
	return sent, nil
}

// flush waits until what the flows hold has left.
func (p *endsPlayer) flush() error {
	for _, f := range p.flows {
		if f.socket.Flush == nil {
			continue
		}
		if err := f.socket.Flush(); err != nil {
			return err
		}
	}
	return nil
}

// play sends for a while, and is over when the receiver has read all.
func (p *endsPlayer) play(d time.Duration, counting bool) (s sample, err error) {
	if counting {
		if _, err := p.finish(receiverTimes | receiverCounts); err != nil {
			return s, err
		}
	}
	begin, cpu := monotonic(), harness.ProcessCPU()
	for monotonic()-begin < d {
		n, err := p.sendOnce()
		if s.sent += n; err != nil {
			return s, err
		}
	}
	if err := p.flush(); err != nil {
		return s, err
	}
	s.sendCPU = harness.ProcessCPU() - cpu
	r, err := p.finish(receiverTimes)
	if err != nil {
		return s, err
	}
	s.arrived, s.count, s.receiveCalls = r.Datagrams, r.Datagrams, r.Calls
	s.wall, s.receiveCPU = r.At-begin, r.CPU
	s.cpu = s.sendCPU + s.receiveCPU
	if r.Wrong > 0 || s.arrived == 0 || s.arrived > s.sent {
		err = fmt.Errorf("%d of %d datagrams arrived, %d of them damaged", s.arrived, s.sent, r.Wrong)
	}
	return s, err
}

// sendOnce has each flow send some.
func (p *endsPlayer) sendOnce() (sent int, err error) {
	for range max(1, together/p.work.Burst) {
		for _, f := range p.flows {
			n, err := f.send(0)
			if sent += n; err != nil {
				return sent, err
			}
		}
	}
	return sent, nil
}

// finish ends the receiver's time, says what its next one is for, and returns
// what it got. Its buffer may be full, so that a marker is sent until it
// answers.
func (p *endsPlayer) finish(next receiverMode) (endsReport, error) {
	m := binary.BigEndian.AppendUint64(nil, p.slot)
	m = binary.BigEndian.AppendUint64(m, uint64(next))
	p.slot++
	wait := 300 * time.Microsecond
	for limit := time.Now().Add(checkPatience); time.Now().Before(limit); wait *= 2 {
		if _, err := p.marker.Write(m); err != nil {
			return endsReport{}, err
		}
		select {
		case r, ok := <-p.reports:
			if !ok {
				return r, errors.New("the receiver has ended")
			}
			return r, nil
		case <-time.After(wait):
		}
	}
	return endsReport{}, errors.New("the receiver does not answer")
}

// monotonic is a clock that all processes share.
func monotonic() time.Duration {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

// A stamp is what a datagram of a check consists of.
type stamp struct {
	seed        uint64
	flow, index uint32
}

// stampSize is that of what identifies a datagram.
const stampSize = 16

// fill writes the stamp, and what follows from it.
func (s stamp) fill(p []byte) {
	r := rand.New(rand.NewPCG(s.seed, uint64(s.flow)<<32|uint64(s.index)))
	word := binary.BigEndian.AppendUint64(nil, s.seed)
	word = binary.BigEndian.AppendUint32(word, s.flow)
	word = binary.BigEndian.AppendUint32(word, s.index)
	for n := copy(p, word); n < len(p); {
		binary.BigEndian.PutUint64(word, r.Uint64())
		n += copy(p[n:], word[:8])
	}
}

// startReceiver starts the process that receives, and returns where.
func (p *endsPlayer) startReceiver(name string, m *reading.Medium) ([]addrPort, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	job, err := json.Marshal(receiverJob{Way: name, Size: p.work.Size, At: m.To, Seed: p.seed})
	if err != nil {
		return nil, err
	}
	p.cmd = exec.Command(self)
	p.cmd.Env = append(os.Environ(), receiverVariable+"="+string(job))
	p.cmd.Stderr = os.Stderr
	if p.control, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := m.Do(p.cmd.Start); err != nil {
		return nil, err
	}
	in := json.NewDecoder(out)
	var hello receiverHello
	err = in.Decode(&hello)
	if err == nil {
		err = hello.error()
	}
	if err != nil {
		p.close()
		return nil, err
	}
	go p.readReports(in)
	return []addrPort{hello.Addr}, nil
}

func (p *endsPlayer) readReports(in *json.Decoder) {
	defer close(p.reports)
	for {
		var r endsReport
		if in.Decode(&r) != nil {
			return
		}
		p.reports <- r
	}
}
