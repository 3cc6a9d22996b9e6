// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/netns"
	"github.com/batchconn/batchconn/internal/sys"
)

// injectReadEnv tells the process which error its reads meet: "ENOBUFS".
const injectReadEnv = "BATCHCONN_TEST_INJECT_READ"

// TestReceiveInjected: whatever error the kernel answers to the first, second
// or fourth call that receives, each datagram is read once and in order, and
// the error is told once, or not at all if it is none of the socket's.
func TestReceiveInjected(t *testing.T) {
	if name := os.Getenv(injectReadEnv); name != "" {
		for _, errno := range readErrors {
			if unix.ErrnoName(errno) == name {
				readInjected(t, errno)
			}
		}
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	if out, err := exec.Command(strace, "--seccomp-bpf", "-f", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("strace does not work here: %v %s", err, out)
	}
	for _, call := range []string{"recvfrom", "recvmsg", "recvmmsg"} {
		for _, errno := range readErrors {
			if errno == unix.ENOSYS && call != "recvmmsg" {
				continue // those every kernel has
			}
			if call == "recvmmsg" && !sys.HaveBatchCall {
				continue // the portable path does without
			}
			for _, when := range []int{1, 2, 4} {
				if testing.Short() && when != 2 {
					continue
				}
				t.Run(fmt.Sprint(call, unix.ErrnoName(errno), when), func(t *testing.T) {
					t.Parallel()
					log := filepath.Join(t.TempDir(), "log")
					cmd := exec.Command(strace, "--seccomp-bpf", "-f", "-qq", "-o", log, "-e", "trace="+call,
						"-e", fmt.Sprintf("inject=%s:error=%s:when=%d", call, unix.ErrnoName(errno), when),
						self, "-test.run=^TestReceiveInjected$", "-test.v")
					cmd.Env = append(os.Environ(), injectReadEnv+"="+unix.ErrnoName(errno))
					if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "PASS") {
						t.Fatalf("%v\n%s", err, netns.Relayed(string(out)))
					}
					if calls, err := os.ReadFile(log); err != nil || !strings.Contains(string(calls), "(INJECTED)") {
						t.Errorf("no error was injected: %v", err)
					}
				})
			}
		}
	}
}

var readErrors = []syscall.Errno{
	unix.EINTR, unix.EAGAIN, unix.ENOSYS, // of which nobody shall notice anything
	unix.ENOMEM, unix.ENOBUFS, unix.ECONNREFUSED, unix.EPERM, unix.EBADF,
}

// readInjected reads by all ways, each on a thread of its own, of which strace
// counts the calls.
func readInjected(t *testing.T, errno syscall.Errno) {
	was := coalesceTest
	defer func() { coalesceTest = was }()
	coalesceTest = &loopbackTest{answered: true} // its calls are not to meet the error
	for _, mode := range []GROMode{GROAuto, GROOn} {
		for _, way := range []injectedRead{
			{"ReceiveMessages", func(c *Conn, got func([]byte)) error { return receiveInto(c, nil, 7, MsgDontWait, got) }},
			{"Receive100", func(c *Conn, got func([]byte)) error {
				return receiveInto(c, context.Background(), 100, MsgDontWait, got)
			}},
			{"ReceiveFrom", func(c *Conn, got func([]byte)) error {
				p := make([]byte, 64)
				n, _, err := c.ReceiveFrom(nil, p, MsgDontWait)
				if err == nil {
					got(p[:n])
				}
				return err
			}},
			{"ReadFromUDPAddrPort", readerKinds[4].read},
			{"ReadBatch", readerKinds[5].read},
		} {
			if errno == unix.EAGAIN && !strings.HasPrefix(way.name, "Receive") {
				continue // what waits goes by the poller, which does not know of the error
			}
			t.Run(fmt.Sprint(way.name, mode), func(t *testing.T) {
				runtime.LockOSThread()
				way.run(t, mode, errno)
			})
		}
	}
}

type injectedRead struct {
	name string
	read func(c *Conn, got func(p []byte)) error
}

func (way injectedRead) run(t *testing.T, mode GROMode, errno syscall.Errno) {
	in, out, to := readPair(t, &Config{GRO: mode})
	next, sent, told := uint32(0), uint32(0), 0
	check := func(err error) {
		t.Helper()
		switch {
		case err == nil || errors.Is(err, ErrWouldBlock): // that may be late on its way
		case errors.Is(err, errno) && errno != unix.EINTR && errno != unix.ENOSYS:
			told++
		default:
			t.Fatal(err)
		}
	}
	for range 10 {
		var p []byte
		for range 40 {
			p = binary.BigEndian.AppendUint32(p, sent)
			sent++
		}
		if err := sendAll(out, nil, AppendSegments(nil, to, p, 4, nil)); err != nil {
			t.Fatal(err)
		}
		for calls := 0; next < sent; calls++ {
			check(way.read(in, func(p []byte) {
				if len(p) != 4 || binary.BigEndian.Uint32(p) != next {
					t.Fatalf("%x, want %x", p, next)
				}
				next++
			}))
			if calls > 1_000_000 {
				t.Fatalf("%d were read", next)
			}
		}
		n, _, err := in.ReceiveFrom(nil, make([]byte, 10), MsgDontWait)
		if check(err); n != 0 || err == nil {
			t.Fatalf("one too many: %d, %v", n, err)
		}
	}
	if told > 1 {
		t.Errorf("told %d times", told)
	}
}
