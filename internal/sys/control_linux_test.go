// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package sys

import (
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

func udpSocket(t *testing.T, domain int) uintptr {
	t.Helper()
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Skipf("no such socket here: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return uintptr(fd)
}

func optionsOf(t *testing.T, fd uintptr, isIPv6 bool) (values []int) {
	t.Helper()
	for _, o := range controlOptions {
		v, err := getOption(fd, o.level, o.name)
		if err != nil && (isIPv6 || o.family != levelIPv6) {
			t.Fatal(err)
		}
		values = append(values, v)
	}
	return values
}

// noOption is one that no kernel knows.
const noOption = 9999

// TestSetReceiveControlUndoes: where an option in the middle is refused, those
// before it are what they were.
func TestSetReceiveControlUndoes(t *testing.T) {
	ours := controlOptions
	defer func() { controlOptions = ours }()
	for domain, isIPv6 := range map[int]bool{unix.AF_INET: false, unix.AF_INET6: true} {
		fd := udpSocket(t, domain)
		controlOptions = ours
		if err := SetReceiveControl(fd, isIPv6, ControlTOS|ControlTime); err != nil {
			t.Fatal(err)
		}
		before := optionsOf(t, fd, isIPv6)
		controlOptions = append(slices.Clone(ours), controlOption{1 << 10, anyFamily, unix.SOL_SOCKET, noOption, 0})
		err := SetReceiveControl(fd, isIPv6, ControlTTL|ControlDropped|1<<10)
		if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, unix.ENOPROTOOPT) {
			t.Errorf("IPv6 %v: %v, want ErrUnsupported and ENOPROTOOPT", isIPv6, err)
		}
		controlOptions = ours
		if after := optionsOf(t, fd, isIPv6); !slices.Equal(after, before) {
			t.Errorf("IPv6 %v: options were %d, are %d", isIPv6, before, after)
		}
		controlOptions = append(slices.Clone(ours), controlOption{1 << 10, anyFamily, unix.SOL_SOCKET, noOption, 0})
		if err := SetReceiveControl(fd, isIPv6, ControlTTL); err != nil {
			t.Errorf("an option that is not wanted and not known: %v", err)
		}
		controlOptions = ours
	}
}

// TestOlderOption: where the first is not known, the second is set, and both
// are cleared.
func TestOlderOption(t *testing.T) {
	ours := controlOptions
	defer func() { controlOptions = ours }()
	fd := udpSocket(t, unix.AF_INET)
	controlOptions = []controlOption{{ControlTime, anyFamily, unix.SOL_SOCKET, noOption, unix.SO_TIMESTAMPNS}}
	for _, want := range []ControlFields{ControlTime, 0, ControlTime} {
		if err := SetReceiveControl(fd, false, want); err != nil {
			t.Fatal(err)
		}
		if v, err := getOption(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS); err != nil || (v != 0) != (want != 0) {
			t.Errorf("asked for %v: the option is %d, %v", want, v, err)
		}
	}
	controlOptions = ours
	setOption(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS_NEW, 1)
	if err := SetReceiveControl(fd, false, 0); err != nil {
		t.Fatal(err)
	}
	for _, name := range []int{unix.SO_TIMESTAMPNS, unix.SO_TIMESTAMPNS_NEW} {
		if v, err := getOption(fd, unix.SOL_SOCKET, name); v != 0 || err != nil {
			t.Errorf("after none were asked for, %d is %d, %v", name, v, err)
		}
	}
}

// TestTimestampOption: 32-bit longs end in 2038.
func TestTimestampOption(t *testing.T) {
	if o := timestampOption(4); o.name != unix.SO_TIMESTAMPNS_NEW || o.older != unix.SO_TIMESTAMPNS {
		t.Errorf("32-bit: %+v", o)
	}
	if o := timestampOption(8); o.name != unix.SO_TIMESTAMPNS || o.older != unix.SO_TIMESTAMPNS_NEW {
		t.Errorf("64-bit: %+v", o)
	}
}

func TestControlFieldsString(t *testing.T) {
	for f, want := range map[ControlFields]string{
		0:                            "0x0",
		ControlTOS:                   "ControlTOS",
		ControlLocal | 1<<10:         "ControlLocal|0x400",
		ControlDropped | ControlTime: "ControlTime|ControlDropped",
	} {
		if got := f.String(); got != want {
			t.Errorf("%d is %q, want %q", uint(f), got, want)
		}
	}
}
