// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package batchconn

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"
)

// TestSeccomp: where a filter refuses sendmmsg and permits the calls for single
// datagrams, these are used from then on.
func TestSeccomp(t *testing.T) {
	if runtime.GOARCH == "386" || runtime.GOARCH == "s390x" {
		t.Skip("x/net makes the batch call through socketcall(2), which filters do not tell from others")
	}
	for _, errno := range []syscall.Errno{unix.EPERM, unix.EACCES, unix.ENOSYS} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			forbid(t, unix.SYS_SENDMMSG, errno)
			for _, k := range kinds {
				w := k.world(t, 3, nil)
				for _, call := range batchCalls {
					for range 2 {
						m := w.write(t, 300, inRuns, runSize)
						if n, err := call.call(w.conn, nil, m.msgs); n != 300 || err != nil {
							t.Fatalf("%s, %s: %d, %v", k.name, call.name, n, err)
						}
						w.checkAll(t, m)
					}
				}
				if s := w.conn.Stats(); s.Failed != 0 || s.Segmented == 0 && s.GSO {
					t.Errorf("%s: %+v", k.name, s)
				}
				if !w.conn.send.noBatchCall.Load() {
					t.Errorf("%s: the batch call is tried again and again", k.name)
				}
			}
		})
	}
}

// TestSeccompSendto: where a filter refuses sendto and permits the other calls,
// these send lone datagrams, from the first on.
func TestSeccompSendto(t *testing.T) {
	if runtime.GOARCH == "386" || runtime.GOARCH == "s390x" {
		t.Skip("sendto is socketcall(2) there, which filters do not tell from others")
	}
	for _, errno := range []syscall.Errno{unix.EPERM, unix.EACCES, unix.ENOSYS} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			forbid(t, unix.SYS_SENDTO, errno)
			for _, k := range kinds {
				for _, call := range sends {
					w := k.world(t, 1, nil)
					for range 3 {
						msgs := []OutputMessage{{Addr: w.dest[0], Vectors: [][]byte{{1}}}}
						if n, err := call.call(w.conn, nil, msgs); n != 1 || err != nil {
							t.Fatalf("%s, %s: %d, %v", k.name, call.name, n, err)
						}
						w.inboxes[0].expect(t, [][]byte{{1}})
					}
					if s := w.conn.Stats(); s.Failed != 0 || s.Calls > 4 {
						t.Errorf("%s, %s: %+v, want one call in vain", k.name, call.name, s)
					}
				}
				w := k.world(t, 1, nil)
				wr := NewWriter(w.conn, nil)
				if _, err := wr.accept(&packet{payload: []byte("idle"), to: w.dest[0]}); err != nil {
					t.Errorf("%s, an idle Writer: %v", k.name, err)
				}
				if err := wr.Flush(nil); err != nil {
					t.Error(err)
				}
				w.inboxes[0].expect(t, [][]byte{[]byte("idle")})
			}
		})
	}
}

// TestSeccompReceive: where a filter refuses recvmmsg and permits recvmsg, each
// datagram is read once and in order, coalesced or not, nobody sees an error,
// and the batch call is not tried again.
func TestSeccompReceive(t *testing.T) {
	if runtime.GOARCH == "386" || runtime.GOARCH == "s390x" {
		t.Skip("filters do not tell the calls of socketcall(2) apart")
	}
	for _, errno := range []syscall.Errno{unix.EPERM, unix.EACCES, unix.ENOSYS} {
		t.Run(unix.ErrnoName(errno), func(t *testing.T) {
			forbid(t, unix.SYS_RECVMMSG, errno)
			for _, mode := range []GROMode{GROAuto, GROOn, GROOff} {
				for _, way := range []int{0, 5} { // ReceiveMessages, ReadBatch
					testSeccompReceive(t, mode, readerKinds[way])
				}
			}
		})
	}
}

func testSeccompReceive(t *testing.T, mode GROMode, way readerKind) {
	t.Helper()
	in, out, to := readPair(t, &Config{GRO: mode})
	sent, read := 0, 0
	for range 10 {
		sendRuns(t, out, to, 40, &sent)
		for read < sent {
			err := way.read(in, func(p []byte) {
				if len(p) != 10 || p[0] != byte('a'+read%26) {
					t.Fatalf("%s, GRO %v: datagram %d is %q", way.name, mode, read, p)
				}
				read++
			})
			if err != nil {
				t.Fatalf("%s, GRO %v: %v", way.name, mode, err)
			}
		}
	}
	if s := in.Stats(); s.Received != uint64(sent) || s.GRO != (mode != GROOff) {
		t.Errorf("%s, GRO %v: %+v", way.name, mode, s)
	}
	if !in.send.noBatchCall.Load() {
		t.Errorf("%s, GRO %v: the batch call is tried again and again", way.name, mode)
	}
}

// forbid has a seccomp(2) filter answer errno to a system call of this thread.
// The goroutine keeps the thread, which ends with it.
func forbid(t *testing.T, call uint32, errno syscall.Errno) {
	t.Helper()
	prog := []unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}, // struct seccomp_data: nr
		{Code: unix.BPF_JMP | unix.BPF_JEQ, K: call, Jf: 1},
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ERRNO | uint32(errno)},
		{Code: unix.BPF_RET, K: unix.SECCOMP_RET_ALLOW},
	}
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		t.Skip(err)
	}
	filter := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&filter))); e != 0 {
		t.Skipf("no seccomp here: %v", e)
	}
}

// TestFirewallIsNoSeccomp: EPERM that is a firewall's verdict on a message is
// the user's error, and the batch call stays.
func TestFirewallIsNoSeccomp(t *testing.T) {
	for _, errno := range []syscall.Errno{unix.EPERM, unix.EACCES} {
		w := plainKind.world(t, 1, &Config{GSO: GSOOff})
		refused := false
		refuse(t, w.conn, 0, func(int, *ipv4.Message) error {
			if refused {
				return nil
			}
			refused = true
			return errno
		})
		m := w.write(t, 3, inTurn, runSize)
		n, err := w.conn.SendMessages(nil, m.msgs, 0)
		if n != 0 {
			t.Errorf("n = %d", n)
		}
		checkError(t, err, errno)
		var sys *os.SyscallError
		if errors.As(err, &sys) && sys.Syscall != "sendmmsg" || w.conn.send.noBatchCall.Load() {
			t.Errorf("%v: the batch call was given up", err)
		}
	}
}
