// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/harness"
)

// The receivers are read by a process of their own, so that the time of this
// one is that of the senders: in one process, what the scheduler does for a
// reader that sleeps and wakes would be counted as theirs.

// readerVariable marks that process; it holds the size of the datagrams and the
// number of sockets, which follow standard error.
const readerVariable = "BATCHCONN_BENCH_READER"

const (
	beginReading = 'b'
	endReading   = 'e'
	firstSocket  = 3

	// nap is how long the reader waits when it found nothing.
	nap = 50_000 // ns
)

// A reader is that process, seen from here.
type reader struct {
	cmd     *exec.Cmd
	control io.WriteCloser
	results io.ReadCloser
}

// A count is what was read: the datagrams, and how many had another size than
// they should.
type count struct{ Datagrams, Wrong uint64 }

func startReader(rs []receiver, size int) (*reader, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	r := &reader{cmd: exec.Command(self)}
	r.cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", readerVariable, size, len(rs)), "GOMAXPROCS=1")
	r.cmd.Stderr = os.Stderr
	for _, rc := range rs {
		f, err := rc.File()
		if err != nil {
			return nil, err
		}
		defer f.Close()
		r.cmd.ExtraFiles = append(r.cmd.ExtraFiles, f)
	}
	if r.control, err = r.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	if r.results, err = r.cmd.StdoutPipe(); err != nil {
		return nil, err
	}
	return r, r.cmd.Start()
}

func (r *reader) begin() error {
	if _, err := r.control.Write([]byte{beginReading}); err != nil {
		return err
	}
	var ready [1]byte
	_, err := io.ReadFull(r.results, ready[:])
	return err
}

// end returns when all that there is of what was sent was read.
func (r *reader) end(sent int) (c count, err error) {
	command := binary.NativeEndian.AppendUint64([]byte{endReading}, uint64(sent))
	if _, err := r.control.Write(command); err != nil {
		return c, err
	}
	err = binary.Read(r.results, binary.NativeEndian, &c)
	return c, err
}

func (r *reader) stop() error {
	return errors.Join(r.control.Close(), r.cmd.Wait())
}

// beReader is that process's main function. It returns false if this is not it.
func beReader() bool {
	is := os.Getenv(readerVariable)
	if is == "" {
		return false
	}
	runtime.LockOSThread()
	if err := serveReader(is); err != nil {
		fmt.Fprintln(os.Stderr, "reader:", err)
		os.Exit(1)
	}
	return true
}

func serveReader(what string) error {
	first, second, _ := strings.Cut(what, " ")
	size, err1 := strconv.Atoi(first)
	sockets, err2 := strconv.Atoi(second)
	if err := errors.Join(err1, err2); err != nil {
		return err
	}
	m := newMailbag(size)
	inlets := make([]*harness.Inlet, sockets)
	for i := range inlets {
		inlets[i] = harness.InletOf(firstSocket + i)
	}
	for {
		var command [1]byte
		if _, err := os.Stdin.Read(command[:]); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if _, err := os.Stdout.Write(command[:]); err != nil { // ready
			return err
		}
		c, err := readUntilTold(inlets, m, size)
		if err != nil {
			return err
		}
		if err := binary.Write(os.Stdout, binary.NativeEndian, c); err != nil {
			return err
		}
	}
}

// latest is how long the reader waits in vain for what was neither read nor
// dropped: a busy kernel delivers on loopback some time after the send
// returned.
const latest = 200 * time.Millisecond

// readUntilTold reads until it is told to end and nothing is left.
func readUntilTold(inlets []*harness.Inlet, m *harness.Mailbag, size int) (c count, err error) {
	droppedBefore, err := drops(inlets)
	if err != nil {
		return c, err
	}
	told, sent, last := false, uint64(0), time.Now()
	for {
		end := told // before the read: nothing is sent after it
		found := false
		for _, in := range inlets {
			n, err := in.Read(m)
			if err != nil {
				return c, err
			}
			for _, length := range m.Lengths[:n] {
				if length != size {
					c.Wrong++
				}
			}
			c.Datagrams += uint64(n)
			found = found || n > 0
		}
		if found {
			last = time.Now()
			continue
		}
		if end {
			dropped, err := drops(inlets)
			if err != nil || c.Datagrams+uint64(dropped-droppedBefore) >= sent || time.Since(last) > latest {
				return c, err
			}
		}
		if came, err := waitForCommand(); err != nil {
			return c, err
		} else if came {
			told, last = true, time.Now()
			if err := binary.Read(os.Stdin, binary.NativeEndian, &sent); err != nil {
				return c, err
			}
		}
	}
}

// drops counts what the kernel had no room for.
func drops(inlets []*harness.Inlet) (n uint32, err error) {
	for _, in := range inlets {
		k, err := in.Drops()
		if err != nil {
			return 0, err
		}
		n += k
	}
	return n, nil
}

// waitForCommand waits for a nap, no longer.
func waitForCommand() (came bool, err error) {
	stdin := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
	n, err := unix.Ppoll(stdin, &unix.Timespec{Nsec: nap}, nil)
	if n == 0 || err == unix.EINTR {
		return false, nil
	}
	if err != nil {
		return false, os.NewSyscallError("ppoll", err)
	}
	var command [1]byte
	_, err = os.Stdin.Read(command[:])
	return true, err
}
