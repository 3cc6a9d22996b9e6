// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package main

import (
	"bufio"
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asMain in the environment makes the test binary the program itself.
const asMain = "BATCHBENCH_AS_MAIN"

func TestMain(m *testing.M) {
	if os.Getenv(asMain) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func program(args ...string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asMain+"=1")
	return cmd
}

// TestSignals ends the program as soon as something was sent. Ctrl-C, the end
// of a service and that of a terminal show what was measured so far.
func TestSignals(t *testing.T) {
	for sig, code := range map[syscall.Signal]int{syscall.SIGINT: 130, syscall.SIGTERM: 143, syscall.SIGHUP: 129} {
		t.Run(sig.String(), func(t *testing.T) {
			if signal.Ignored(sig) {
				t.Skip("nohup(1) has it ignored")
			}
			testSignal(t, sig, code)
		})
	}
}

func testSignal(t *testing.T, sig syscall.Signal, want int) {
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	cmd := program("-duration", "10m", "-to", u.LocalAddr().String())
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	u.SetReadDeadline(time.Now().Add(time.Minute))
	if _, _, err := u.ReadFrom(make([]byte, 2000)); err != nil {
		t.Fatalf("%v; stderr: %s", err, &stderr)
	}
	cmd.Process.Signal(sig)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != want {
		t.Errorf("exit code %d, want %d: %v", code, want, cmd.ProcessState)
	}
	if s := stdout.String(); !strings.Contains(s, "net WriteTo loop") || !strings.Contains(s, "\nInterrupted in round ") || !strings.Contains(s, " of 3000.\n") {
		t.Errorf("printed\n%s", s)
	}
	if stderr.Len() > 0 {
		t.Errorf("stderr, which is no terminal: %s", &stderr)
	}
}

// TestIgnoredSignal: what nohup(1) ignores stays ignored. Of two signals, the
// kernel and the runtime hand out the lower one first.
func TestIgnoredSignal(t *testing.T) {
	signal.Ignore(syscall.SIGHUP)
	defer signal.Reset(syscall.SIGHUP)
	ctx, stop := withSignals(t.Context())
	defer stop()
	syscall.Kill(os.Getpid(), syscall.SIGHUP)
	syscall.Kill(os.Getpid(), syscall.SIGTERM)
	<-ctx.Done()
	if code := interruptedBy(ctx); code != 128+int(syscall.SIGTERM) {
		t.Errorf("exit code %d: %v", code, context.Cause(ctx))
	}
}

// TestSecondSignal: the second one kills. The program hangs in printing,
// because nobody reads its pipe.
func TestSecondSignal(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for filler := make([]byte, 1); ; { // until the pipe is full
		w.SetWriteDeadline(time.Now().Add(10 * time.Millisecond))
		if _, err := w.Write(filler); err != nil {
			break
		}
	}
	cmd := program("-duration", "10m")
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	w.Close()
	ended := make(chan struct{})
	go func() { cmd.Wait(); close(ended) }()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for limit := time.After(time.Minute); ; {
		select {
		case <-ended:
			if s := cmd.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGINT {
				t.Errorf("ended with %v", cmd.ProcessState)
			}
			return
		case <-again.C:
			cmd.Process.Signal(syscall.SIGINT)
		case <-limit:
			t.Fatal("hangs")
		}
	}
}

// TestInterruptListen: for -listen, an interrupt is the usual end.
func TestInterruptListen(t *testing.T) {
	cmd := program("-listen", "127.0.0.1:0")
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	lines := bufio.NewScanner(stdout)
	lines.Scan() // it listens
	cmd.Process.Signal(syscall.SIGINT)
	total := false
	for lines.Scan() {
		total = total || strings.HasPrefix(strings.TrimSpace(lines.Text()), "total")
	}
	if err := cmd.Wait(); err != nil || !total {
		t.Errorf("%v, total printed: %v", err, total)
	}
}

func TestExitCodeOfMain(t *testing.T) {
	cmd := program("-size", "1")
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != exitUsage {
		t.Errorf("%v, want exit code %d", err, exitUsage)
	}
}
