// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux

package main

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/bench/internal/cloop"
)

// A Machine is what was measured on, and with what.
type Machine struct {
	Processor  string            `json:"processor"`
	Processors int               `json:"processors"`
	Kernel     string            `json:"kernel"`
	Go         string            `json:"go"`
	Versions   map[string]string `json:"versions"` // of the peers
	Load       string            `json:"load"`     // of all that ran, before this did: 1, 5 and 15 minutes
}

// peerModules are named in what the program writes.
var peerModules = []string{
	"golang.org/x/net", "golang.org/x/sys", "golang.zx2c4.com/wireguard", "github.com/pion/transport/v5", "tailscale.com",
}

const glib = "GLib" // is no Go module

func thisMachine() Machine {
	m := Machine{Processor: processor(), Processors: runtime.NumCPU(), Go: runtime.Version(), Versions: map[string]string{}}
	if v, why := cloop.GLib(); why == "" {
		m.Versions[glib] = v
	}
	if b, err := os.ReadFile("/proc/loadavg"); err == nil {
		m.Load = strings.Join(strings.Fields(string(b))[:3], ", ")
	}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = "Linux " + unix.ByteSliceToString(u.Release[:])
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, d := range info.Deps {
			for _, p := range peerModules {
				if d.Path == p {
					m.Versions[p] = d.Version
				}
			}
		}
	}
	return m
}

// processor is the model's name, if the kernel tells it.
func processor() string {
	b, _ := os.ReadFile("/proc/cpuinfo")
	for line := range bytes.Lines(b) {
		if name, model, ok := strings.Cut(string(line), ":"); ok && strings.TrimSpace(name) == "model name" {
			return strings.TrimSpace(model)
		}
	}
	return runtime.GOARCH
}

func (m *Machine) String() string {
	return fmt.Sprintf("%s, %d processors, %s, %s", m.Processor, m.Processors, m.Kernel, m.Go)
}

// peers names the versions, the modules' in order.
func (m *Machine) peers() string {
	var all []string
	for _, p := range append(peerModules, glib) {
		if v := m.Versions[p]; v != "" {
			v, _, _ = strings.Cut(v, "-0.") // of a pseudo-version
			all = append(all, p+" "+v)
		}
	}
	return strings.Join(all, ", ")
}
