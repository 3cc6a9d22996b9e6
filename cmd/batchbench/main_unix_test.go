// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build unix

package main

import (
	"bufio"
	"bytes"
	"net"
	"os"
	"os/exec"
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

// TestInterruptSignal sends SIGINT as soon as something was sent.
func TestInterruptSignal(t *testing.T) {
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
	cmd.Process.Signal(syscall.SIGINT)
	cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != exitInterrupted {
		t.Errorf("exit code %d, want %d: %v", code, exitInterrupted, cmd.ProcessState)
	}
	if s := stdout.String(); !strings.Contains(s, "net WriteTo loop") || !strings.Contains(s, "\nInterrupted in round ") || !strings.Contains(s, " of 3000.\n") {
		t.Errorf("printed\n%s", s)
	}
	if stderr.Len() > 0 {
		t.Errorf("stderr, which is no terminal: %s", &stderr)
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
