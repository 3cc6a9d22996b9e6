// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/netns"
	"github.com/batchconn/batchconn/internal/sys"
)

// injectEnv tells the process which error it meets, and at which call of each
// thread: "ENOBUFS sendmmsg 2".
const injectEnv = "BATCHCONN_TEST_INJECT"

var injectedErrors = []syscall.Errno{
	unix.EINTR, unix.EAGAIN, unix.ENOSYS, // of which nobody shall notice anything
	unix.EINVAL, unix.EIO, unix.EPERM, // which a segmented message is sent again for, plainly
	unix.ENOBUFS, // at which a plain message is tried again: the socket may have been full
	unix.ENOMEM, unix.ECONNREFUSED,
}

// TestInjected: whatever error the kernel's first, second or third call meets,
// what arrives and what is reported are exact. strace(1) injects it into a
// process of its own.
func TestInjected(t *testing.T) {
	if job, ok := os.LookupEnv(injectEnv); ok {
		playInjected(t, job)
		return
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	if out, err := exec.Command(strace, "--seccomp-bpf", "-f", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("strace does not work here: %v %s", err, out)
	}
	for _, errno := range injectedErrors {
		if errno == unix.ENOSYS && !sys.HaveBatchCall {
			continue // what there is without the batch call every kernel has
		}
		for when := 1; when <= 3; when++ {
			if testing.Short() && when != 2 {
				continue
			}
			t.Run(fmt.Sprint(unix.ErrnoName(errno), when), func(t *testing.T) { injected(t, strace, errno, batchCall(), when) })
		}
		t.Run(fmt.Sprint(unix.ErrnoName(errno), " alone"), func(t *testing.T) { injected(t, strace, errno, "sendto", 1) })
	}
}

func batchCall() string {
	if sys.HaveBatchCall {
		return "sendmmsg"
	}
	return "sendmsg"
}

func injected(t *testing.T, strace string, errno syscall.Errno, call string, when int) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(t.TempDir(), "log")
	cmd := exec.Command(strace, "--seccomp-bpf", "-f", "-qq", "-o", log, "-e", "trace="+call, "-e", "signal=none",
		"-e", fmt.Sprintf("inject=%s:error=%s:when=%d", call, unix.ErrnoName(errno), when),
		self, "-test.run=^TestInjected$", "-test.v=true", "-test.count=1")
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%s %s %d", injectEnv, unix.ErrnoName(errno), call, when))
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: TestInjected ") {
		t.Fatalf("%v\n%s", err, netns.Relayed(string(out)))
	}
	calls, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	played := strings.Count(string(out), "--- PASS: TestInjected/")
	if n := strings.Count(string(calls), "(INJECTED)"); played == 0 || n < played {
		t.Fatalf("%d errors were injected in %d calls of ours", n, played)
	}
}

// An injection is how a batch of n messages is sent, of which each call to the
// kernel takes at most perCall.
type injection struct {
	name      string
	kind      kind
	gso       GSOMode
	inboxes   int
	n         int
	perCall   int
	to, size  func(i int) int
	send      func(t *testing.T, w *world, m *mail, hard *hardError)
	segmented bool
}

// A hardError is an error that is not passed over, at message at.
type hardError struct {
	errno syscall.Errno
	at    int
}

func playInjected(t *testing.T, job string) {
	var name, call string
	var when int
	if _, err := fmt.Sscan(job, &name, &call, &when); err != nil {
		t.Fatal(err)
	}
	errno := injectedErrors[slices.IndexFunc(injectedErrors, func(e syscall.Errno) bool { return unix.ErrnoName(e) == name })]
	toOne := func(int) int { return 0 }
	plain := injection{"", plainKind, GSOOff, 3, 600, maxBatch, inTurn, mixed, nil, false}
	runs := injection{"", plainKind, GSOAuto, 3, 2200, maxDatagrams, inRuns, runSize, nil, true}
	connected := injection{"", kinds[3], GSOOff, 1, 600, maxBatch, toOne, mixed, nil, false}
	written := injection{"", plainKind, GSOAuto, 1, 700, sendChunk, toOne, runSize, nil, true}
	one := injection{"", plainKind, GSOAuto, 1, 1, 1, toOne, mixed, nil, false}
	for _, in := range []injection{
		plain.by("SendMessages", sendInjected), plain.by("SendEach", sendEachInjected),
		plain.by("WriteBatch", writeBatchInjected), plain.by("Writer", writerInjected),
		runs.by("SendMessages/runs", sendInjected), runs.by("SendEach/runs", sendEachInjected),
		runs.by("WriteBatch/runs", writeBatchInjected), written.by("Writer/runs", writerInjected),
		connected.by("SendMessages/connected", sendInjected), connected.by("Writer/connected", writerInjected),
		one.by("SendTo", sendToInjected), one.by("Writer/alone", writerInjected),
	} {
		if alone := in.n == 1; alone != (call == "sendto") {
			continue
		}
		t.Run(strings.ReplaceAll(in.name, "/", "-"), func(t *testing.T) { in.play(t, errno, when) })
	}
}

func (in injection) by(name string, send func(*testing.T, *world, *mail, *hardError)) injection {
	in.name, in.send = name, send
	return in
}

func (in injection) play(t *testing.T, errno syscall.Errno, when int) {
	runtime.LockOSThread() // and never unlocked, so that the next has a thread with no calls yet
	w := in.kind.world(t, in.inboxes, &Config{GSO: in.gso})
	if in.segmented && !w.conn.Stats().GSO {
		in.segmented = false
	}
	m := w.write(t, in.n, in.to, in.size)
	var hard *hardError
	if in.isHard(errno) {
		if !sys.HaveBatchCall {
			in.perCall = 1
		}
		hard = &hardError{errno, (when - 1) * in.perCall}
	}
	in.send(t, w, m, hard)
	if in.segmented && hard == nil && slices.Index(injectedErrors, errno) > 2 && w.conn.Stats().Fallbacks != 1 {
		t.Errorf("%+v: want one fall-back", w.conn.Stats())
	}
}

// isHard reports whether the user sees errno, met once.
func (in injection) isHard(errno syscall.Errno) bool {
	switch slices.Index(injectedErrors, errno) {
	case 0, 1, 2:
		return false
	case 3, 4, 5:
		return !in.segmented
	case 6:
		return in.segmented
	}
	return true
}

// sendInjected: the prefix before the error, or the error if there is none.
func sendInjected(t *testing.T, w *world, m *mail, hard *hardError) {
	prefixInjected(t, w, m, hard, func(at int) (int, error) {
		n, err := w.conn.SendMessages(nil, m.msgs[at:], 0)
		for i := range m.msgs[at+n:] {
			if m.msgs[at+n+i].BytesSent != untouched {
				t.Fatalf("BytesSent %d of message %d after %d", m.msgs[at+n+i].BytesSent, at+n+i, n)
			}
		}
		return n, err
	})
}

func writeBatchInjected(t *testing.T, w *world, m *mail, hard *hardError) {
	ms := xnetMessages(m.msgs)
	prefixInjected(t, w, m, hard, func(at int) (int, error) {
		n, err := w.conn.WriteBatch(ms[at:], 0)
		for i := range ms[at:][:n] {
			m.msgs[at+i].BytesSent = ms[at+i].N
		}
		return n, err
	})
}

func prefixInjected(t *testing.T, w *world, m *mail, hard *hardError, send func(at int) (int, error)) {
	t.Helper()
	at, all := 0, len(m.msgs)
	step := func(want int, wantErr error) {
		t.Helper()
		n, err := send(at)
		if at += n; n != want || !errors.Is(err, wantErr) || err != nil && wantErr == nil {
			t.Fatalf("sent %d with error %v, want %d and %v", n, err, want, wantErr)
		}
	}
	if hard != nil {
		if hard.at > 0 {
			step(hard.at, nil)
		}
		if hard.at == 0 || w.connected && isToldOnce(hard.errno) { // the kernel does not tell it again
			step(0, hard.errno)
		}
	}
	step(all-at, nil)
	w.checkAll(t, m)
}

// sendEachInjected: the one message that met the error, and no other.
func sendEachInjected(t *testing.T, w *world, m *mail, hard *hardError) {
	n, err := w.conn.SendEach(nil, m.msgs, 0)
	if hard == nil {
		if n != len(m.msgs) || err != nil {
			t.Fatalf("sent %d with error %v", n, err)
		}
		w.checkAll(t, m)
		return
	}
	var batch *BatchError
	if n != len(m.msgs) || !errors.As(err, &batch) || len(batch.Failed) != 1 || batch.Err != nil {
		t.Fatalf("dealt with %d with error %v, want one of %d failed", n, err, len(m.msgs))
	}
	if f := batch.Failed[0]; f.Index != hard.at || f.Addr != m.msgs[hard.at].Addr || !errors.Is(f.Err, hard.errno) {
		t.Fatalf("%+v failed, want message %d with %v", f, hard.at, hard.errno)
	}
	w.check(t, m, func(i int) bool { return i != hard.at })
}

// writerInjected: the one datagram that met the error is reported, once.
func writerInjected(t *testing.T, w *world, m *mail, hard *hardError) {
	var failed []netip.AddrPort
	var errs []error
	cfg := &WriterConfig{MaxMessages: 1 << 12, MaxBytes: 1 << 20, OnError: func(addr netip.AddrPort, err error) {
		failed, errs = append(failed, addr), append(errs, err)
	}}
	if len(m.msgs) > 1 {
		cfg.MaxDelay = -1
	}
	wr := NewWriter(w.conn, cfg)
	for i, l := range m.letters {
		var err error
		if w.connected {
			_, err = wr.Write(l.p)
		} else {
			_, err = wr.WriteToUDPAddrPort(l.p, m.msgs[i].Addr)
		}
		if len(m.msgs) == 1 && hard != nil && errors.Is(err, hard.errno) { // it was idle
			w.check(t, m, func(int) bool { return false })
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	err := wr.Flush(nil)
	for i := range m.msgs {
		m.msgs[i].BytesSent = len(m.letters[i].p)
	}
	if hard == nil {
		if err != nil || len(failed) > 0 {
			t.Fatalf("flushed with %v; reported %v", err, errs)
		}
		w.checkAll(t, m)
		return
	}
	if w.connected && isToldOnce(hard.errno) { // it was of no datagram
		if !errors.Is(err, hard.errno) || len(failed) != 0 {
			t.Fatalf("flushed with %v; reported %v", err, errs)
		}
		w.checkAll(t, m)
		return
	}
	if !errors.Is(err, hard.errno) || len(failed) != 1 || failed[0] != m.msgs[hard.at].Addr || !errors.Is(errs[0], hard.errno) {
		t.Fatalf("flushed with %v; reported %v to %v, want one %v", err, errs, failed, hard.errno)
	}
	m.msgs[hard.at].BytesSent = untouched
	w.check(t, m, func(i int) bool { return i != hard.at })
}

func sendToInjected(t *testing.T, w *world, m *mail, hard *hardError) {
	n, err := w.conn.SendTo(nil, m.letters[0].p, w.dest[0], 0)
	if hard == nil {
		if err != nil {
			t.Fatal(err)
		}
		m.msgs[0].BytesSent = n
		w.checkAll(t, m)
		return
	}
	if n != 0 || !errors.Is(err, hard.errno) {
		t.Fatalf("%d, %v; want %v", n, err, hard.errno)
	}
	w.checkPrefix(t, m, 0)
}
