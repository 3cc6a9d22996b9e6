// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

//go:build linux && !android && !batchconn_portable

package batchconn

import (
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

// marks are control messages of 60 datagrams, and the runs that these make.
var marks = []struct {
	name string
	mark func(i int) ControlMessage
	runs []int // in datagrams
}{
	{"equal", func(int) ControlMessage { return ControlMessage{Flags: ControlTOS | ControlTTL, TOS: 2, TTL: 9} }, []int{60}},
	{"ECN", func(i int) ControlMessage { return ControlMessage{Flags: ControlTOS, TOS: i / 20} }, []int{20, 20, 20}},
	{"TTL", func(i int) ControlMessage { return ControlMessage{Flags: ControlTTL, TTL: 5 + i/30} }, []int{30, 30}},
	{"none and some", func(i int) ControlMessage { return ControlMessage{Flags: ControlTOS * ControlFlags(i/40), TOS: 1} }, []int{40, 20}},
}

// TestControlSegments: datagrams with equal messages leave as one kernel
// message, and those with another ECN or TTL in one of their own. Each has its
// own mark.
func TestControlSegments(t *testing.T) {
	const size = 100
	for _, k := range kinds {
		for _, test := range marks {
			t.Run(k.name+"/"+test.name, func(t *testing.T) {
				w := k.world(t, 1, nil)
				var msgs []OutputMessage
				for i := range 60 {
					m := test.mark(i)
					msgs = append(msgs, OutputMessage{Addr: w.dest[0], Vectors: [][]byte{make([]byte, size)}, Control: m.Append(nil, w.inboxes[0].addr.Addr())})
				}
				send := func() {
					t.Helper()
					if n, err := w.conn.SendMessages(nil, msgs, 0); n != len(msgs) || err != nil {
						t.Fatal(n, err)
					}
				}
				r := newConn(t, w.inboxes[0].conn, nil)
				if err := r.ReceiveControl(ControlTOS | ControlTTL); err != nil {
					t.Fatal(err)
				}
				send()
				for i := range msgs {
					want := ControlMessage{Flags: ControlTOS | ControlTTL, TTL: 64}
					if m := test.mark(i); m.Flags&ControlTOS != 0 {
						want.TOS = m.TOS
					}
					if m := test.mark(i); m.Flags&ControlTTL != 0 {
						want.TTL = m.TTL
					}
					if _, m, _ := r.next(t); m != want {
						t.Fatalf("datagram %d has %+v, want %+v", i, m, want)
					}
				}
				if s := w.conn.Stats(); s.Calls != 1 || s.Segmented != uint64(len(msgs)) || s.Fallbacks != 0 {
					t.Errorf("%+v, want 1 call, all segmented", s)
				}
				w.testRuns(t, send, size, test.runs)
			})
		}
	}
}

// testRuns sends again, to one that reads runs as they were sent.
func (w *world) testRuns(t *testing.T, send func(), size int, want []int) {
	t.Helper()
	control(t, w.inboxes[0].conn, option(unix.SOL_UDP, unix.UDP_GRO, 1))
	send()
	total := 0
	for _, n := range want {
		total += n
	}
	bursts := w.inboxes[0].bursts(t, total*size)
	for i := range bursts {
		bursts[i] /= size
	}
	if !slices.Equal(bursts, want) {
		t.Errorf("runs of %d datagrams, want %d", bursts, want)
	}
}

// markEnv tells the process to send, and how many datagrams have one mark.
const markEnv = "BATCHCONN_TEST_MARK"

// TestControlSystemCalls counts the system calls of 1024 datagrams of which
// some neighbours are marked alike, and the kernel messages in each call.
// strace(1) sees them.
func TestControlSystemCalls(t *testing.T) {
	if alike, ok := os.LookupEnv(markEnv); ok {
		sendMarked(t, alike)
		return
	}
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	if out, err := exec.Command(strace, "-f", "-o", os.DevNull, "true").CombinedOutput(); err != nil {
		t.Skipf("strace does not work here: %v %s", err, out)
	}
	for alike, want := range map[int][]string{
		1024: {"16"}, // as many runs of 64, which is the most there can be in one
		16:   {"64"},
		2:    {"256", "256"}, // maxBatch
		1:    {"256", "256", "256", "256"},
	} {
		log := filepath.Join(t.TempDir(), "log")
		cmd := exec.Command(strace, "-f", "-qq", "-o", log, "-e", "trace=sendmmsg", "-e", "signal=none",
			os.Args[0], "-test.run=^TestControlSystemCalls$", "-test.v")
		cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", markEnv, alike))
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS: TestControlSystemCalls ") {
			t.Fatalf("%v\n%s", err, out)
		}
		trace, err := os.ReadFile(log)
		if err != nil {
			t.Fatal(err)
		}
		var calls []string
		for _, call := range regexp.MustCompile(`(?m)sendmmsg.* = (\S+)$`).FindAllSubmatch(trace, -1) {
			calls = append(calls, string(call[1]))
		}
		if !slices.Equal(calls, want) {
			t.Errorf("with %d marked alike the calls sent %q kernel messages, want %q", alike, calls, want)
		}
	}
}

// sendMarked marks datagrams with ECT(0) and CE in turn.
func sendMarked(t *testing.T, alike string) {
	var n int
	if _, err := fmt.Sscan(alike, &n); err != nil {
		t.Fatal(err)
	}
	in, out, to := readPair(t, &Config{GRO: GROOff})
	var msgs []OutputMessage
	for i := range 1024 {
		mark := ControlMessage{Flags: ControlTOS, TOS: 2 + i/n%2}
		msgs = append(msgs, OutputMessage{Addr: to, Vectors: [][]byte{contents(i, 100)}, Control: mark.Append(nil, to.Addr())})
	}
	if err := sendAll(out, nil, msgs); err != nil {
		t.Fatal(err)
	}
	if st := in.Stats(); st.Dropped != 0 {
		t.Errorf("%d were dropped", st.Dropped)
	}
}

// TestControlReplySegments: many datagrams of a reply from the address that was
// asked are one kernel message.
func TestControlReplySegments(t *testing.T) {
	server := controlConn(t, "udp", "::", replyFields|ControlTOS)
	client := newConn(t, listen(t, "udp4", "127.0.0.1"), nil)
	send1(t, client, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), server.port()), nil)
	_, m, from := server.next(t)
	m.TOS = 2
	msgs := AppendSegments(nil, from, make([]byte, 5000), 100, m.Append(nil, from.Addr()))
	if n, err := server.SendMessages(nil, msgs, 0); n != 50 || err != nil {
		t.Fatal(n, err)
	}
	if s := server.Stats(); s.Calls != 1 || s.Segmented != 50 {
		t.Errorf("%+v, want 1 call, 50 segmented", s)
	}
	for range msgs {
		if _, _, from := client.next(t); from.Addr() != netip.MustParseAddr("127.0.0.2") {
			t.Fatalf("from %v", from)
		}
	}
}

// TestControlTimeNotSegmented: a time to leave is that of one kernel message.
func TestControlTimeNotSegmented(t *testing.T) {
	to := netip.IPv6Loopback()
	for flags, want := range map[ControlFlags]bool{allControl &^ ControlTime: true, allControl: false} {
		m := ControlMessage{Flags: flags, Local: to, IfIndex: 1, TOS: 1, TTL: 1, Time: time.Now()}
		if got := sys.Segmentable(m.Append(nil, to)); got != want {
			t.Errorf("%#x: segmentable is %v, want %v", flags, got, want)
		}
	}
}
