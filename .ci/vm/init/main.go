// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

// Init is the first and only program of an emulated machine: it readies the
// network, runs the test binaries it finds and switches the machine off.
//
// Of the files it was started with, /modules/* are kernel modules to load,
// /arguments has an argument for the test binaries on each line, and each
// /suite/*/package.test is a test binary.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// settings keep the loopback's order. This kernel leaves packets to a thread of
// its own when busy, one for each processor, so what a sender sends from two
// processors may change places on the way, and what is many may be dropped.
var settings = []struct{ file, value string }{
	{"/sys/class/net/lo/queues/rx-0/rps_cpus", "1"},
	{"/proc/sys/net/core/netdev_max_backlog", "100000"},
}

func main() {
	ready()
	started := time.Now()
	fmt.Printf("machine: Linux %s, %s, test binaries of GOARCH=%s, %d processors\n", kernel(), platform(), runtime.GOARCH, runtime.NumCPU())
	ran, failed := runAll()
	verdict := "PASS"
	if ran == 0 || failed > 0 {
		verdict = "FAIL"
	}
	// What asked for the machine looks for this line.
	fmt.Printf("\nmachine: %s, %d of %d failed, %.0f s\n", verdict, failed, ran, time.Since(started).Seconds())
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
}

// ready makes of a bare kernel what tests expect of a machine. What goes wrong
// is told; the tests show whether it matters.
func ready() {
	for _, m := range []struct{ kind, on string }{{"proc", "/proc"}, {"sysfs", "/sys"}, {"devtmpfs", "/dev"}, {"tmpfs", "/tmp"}} {
		tell(os.MkdirAll(m.on, 0o755))
		if err := unix.Mount(m.kind, m.on, m.kind, 0, ""); err != nil && err != unix.EBUSY {
			tell(fmt.Errorf("mount %s: %w", m.on, err))
		}
	}
	modules, _ := filepath.Glob("/modules/*")
	for _, module := range modules {
		tell(load(module))
	}
	for _, setting := range settings {
		tell(os.WriteFile(setting.file, []byte(setting.value), 0))
	}
	tell(setUp("lo"))
	os.Setenv("PATH", "/bin")
	os.Setenv("HOME", "/tmp")
}

func tell(err error) {
	if err != nil {
		fmt.Println("machine:", err)
	}
}

func load(module string) error {
	f, err := os.Open(module)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
		return fmt.Errorf("load %s: %w", module, err)
	}
	return nil
}

// setUp sets an interface up (netdevice(7)).
func setUp(name string) error {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return err
	}
	ifr.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr); err != nil {
		return fmt.Errorf("set up %s: %w", name, err)
	}
	return nil
}

func kernel() string   { return uname(func(u *unix.Utsname) []byte { return u.Release[:] }) }
func platform() string { return uname(func(u *unix.Utsname) []byte { return u.Machine[:] }) }

func uname(field func(*unix.Utsname) []byte) string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	return unix.ByteSliceToString(field(&u))
}

func runAll() (ran, failed int) {
	text, err := os.ReadFile("/arguments")
	tell(err)
	arguments := strings.Fields(string(text))
	tests, _ := filepath.Glob("/suite/*/package.test")
	for _, test := range tests {
		cmd := exec.Command(test, arguments...)
		cmd.Dir = filepath.Dir(test)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		name, started := filepath.Base(cmd.Dir), time.Now()
		fmt.Printf("\nmachine: %s %s\n", name, strings.Join(arguments, " "))
		err := cmd.Run()
		ran++
		word := "ok"
		if err != nil {
			word = fmt.Sprintf("FAIL (%v)", err)
			failed++
		}
		fmt.Printf("\nmachine: %s %s, %.1f s\n", name, word, time.Since(started).Seconds())
	}
	return ran, failed
}
