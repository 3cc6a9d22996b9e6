// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package netns

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// insideEnv tells a process that it was started for a network of its own, and
// what for: the name of the test, or a program's.
const insideEnv = "BATCHCONN_NETNS"

// Run runs f with a network of its own and as the only test of its process: a
// loopback, up, with MTU 1500, is all of it. It is called first thing in a
// top-level test, which runs again in that process, with the flags that this
// one was given, and relays what comes of it. The test is skipped where the
// system forbids namespaces, and only there.
func Run(t *testing.T, f func(t *testing.T, ns *Namespace)) {
	t.Helper()
	if strings.Contains(t.Name(), "/") {
		t.Fatal("netns.Run in a subtest")
	}
	if os.Getenv(insideEnv) == t.Name() {
		ns, err := enter()
		Check(t, err)
		t.Cleanup(func() { ns.Close() })
		f(t, ns)
		return
	}
	out, err := rerun(t)
	text := Relayed(out)
	switch {
	case strings.Contains(out, "--- SKIP: "+t.Name()+" ") && err == nil:
		t.Skip(text)
	case err != nil:
		t.Fatalf("in a namespace: %v\n%s", err, text)
	case !strings.Contains(out, "--- PASS: "+t.Name()+" "):
		t.Fatalf("in a namespace: the test did not run\n%s", text)
	}
	if text != "" {
		t.Log(text)
	}
}

// Inside tells whether this process has a network of its own from [Reexec].
func Inside() bool { return os.Getenv(insideEnv) == os.Args[0] }

// Reexec runs this program again, with its arguments and standard files, in a
// network of its own, and returns the code that it exits with. It is for the
// main function of a program that is not [Inside] yet.
func Reexec() (code int, err error) {
	cmd, err := start(func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe")
		cmd.Args = os.Args
		cmd.Env = append(os.Environ(), insideEnv+"="+os.Args[0])
		cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
		return cmd
	})
	if err != nil {
		return 0, err
	}
	var exit *exec.ExitError
	if err := cmd.Wait(); err != nil && !errors.As(err, &exit) {
		return 0, err
	}
	return cmd.ProcessState.ExitCode(), nil
}

// Enter is the network of a process that is [Inside], made ready.
func Enter() (*Namespace, error) {
	if !Inside() {
		return nil, errors.New("netns: the network is the machine's")
	}
	return enter()
}

func enter() (*Namespace, error) {
	ns, err := Current()
	if err != nil {
		return nil, err
	}
	if err := ns.raiseLoopback(); err != nil {
		ns.Close()
		return nil, err
	}
	return ns, nil
}

// rerun runs this test, and of its subtests those asked for, in a process of
// its own, and returns what it printed.
func rerun(t *testing.T) (string, error) {
	t.Helper()
	args := testArguments(t)
	var out strings.Builder
	cmd, err := start(func() *exec.Cmd {
		cmd := exec.Command("/proc/self/exe", args...)
		cmd.Env = append(os.Environ(), insideEnv+"="+t.Name(), fmt.Sprintf("GOMAXPROCS=%d", runtime.GOMAXPROCS(0)),
			"GORACE=atexit_sleep_ms=50 "+os.Getenv("GORACE")) // the detector ends with a sleep of a second
		cmd.Stdout, cmd.Stderr = &out, &out
		return cmd
	})
	Check(t, err)
	err = cmd.Wait()
	return out.String(), err
}

// testArguments are for the test by itself. Flags of the test's own are handed
// on, of package testing's those that bear on one test.
func testArguments(t *testing.T) []string {
	run := "^" + t.Name() + "$"
	if _, sub, ok := strings.Cut(flag.Lookup("test.run").Value.String(), "/"); ok {
		run += "/" + sub
	}
	args := []string{"-test.run=" + run, "-test.v=true", "-test.count=1", fmt.Sprintf("-test.short=%v", testing.Short())}
	if end, ok := t.Deadline(); ok { // early enough for its stacks to be seen
		args = append(args, "-test.timeout="+(time.Until(end)*9/10).String())
	}
	flag.Visit(func(f *flag.Flag) {
		if !strings.HasPrefix(f.Name, "test.") {
			args = append(args, "-"+f.Name+"="+f.Value.String())
		}
	})
	return args
}

// start starts a command in a network namespace of its own. A failed [exec.Cmd]
// cannot be started again, so that it takes what makes one.
func start(command func() *exec.Cmd) (*exec.Cmd, error) {
	var forbidden error
	// A process that may not make the one makes a user namespace too, in which
	// it may. There it may not do all that root may: see SetFlushTimeout.
	for _, flags := range []uintptr{syscall.CLONE_NEWNET, syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET} {
		cmd := command()
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: flags}
		if flags&syscall.CLONE_NEWUSER != 0 {
			cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}}
			cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
		}
		err := cmd.Start()
		if err == nil {
			return cmd, nil
		}
		if !isForbidden(err) {
			return nil, fmt.Errorf("netns: start a process with a network of its own: %w", err)
		}
		forbidden = errors.Join(forbidden, err)
	}
	return nil, &missingError{fmt.Errorf("netns: start a process with a network of its own: %w", forbidden)}
}

// isForbidden tells how clone(2) and the writing of the ID maps fail where
// namespaces are not to be had, user_namespaces(7).
func isForbidden(err error) bool {
	for _, errno := range []syscall.Errno{unix.EPERM, unix.EACCES, unix.ENOSPC, unix.EUSERS, unix.EINVAL, unix.ENOSYS} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

// OneProcessor keeps this process, and with it what it sends through a
// [Bucket], to one processor: on several the kernel may reorder that.
func OneProcessor() error {
	var all, one unix.CPUSet
	if err := unix.SchedGetaffinity(0, &all); err != nil {
		return fmt.Errorf("netns: %w", os.NewSyscallError("sched_getaffinity", err))
	}
	for cpu := range 1024 {
		if all.IsSet(cpu) {
			one.Set(cpu)
			break
		}
	}
	threads, err := os.ReadDir("/proc/self/task")
	if err != nil {
		return fmt.Errorf("netns: %w", err)
	}
	for _, thread := range threads {
		if tid, err := strconv.Atoi(thread.Name()); err == nil {
			unix.SchedSetaffinity(tid, &one) // one that has ended needs none
		}
	}
	return nil
}
