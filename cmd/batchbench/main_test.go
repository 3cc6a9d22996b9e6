// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/batchconn/batchconn/internal/harness"
	"github.com/batchconn/batchconn/internal/sys"
)

// output is what -json prints.
type output struct {
	System, Go, To                        string
	CPUs, Size, Batch, Receivers, Senders int
	Rounds                                int
	RoundSeconds                          float64 `json:"round_seconds"`
	Loopback, Interrupted                 bool
	ReadingBurst                          int `json:"reading_burst"`
	Ways, Reading                         []row
}

// runMain runs the program and returns what it printed.
func runMain(t *testing.T, ctx context.Context, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(ctx, args, &o, &e, &progress{})
	return code, o.String(), e.String()
}

func runJSON(t *testing.T, ctx context.Context, wantCode int, args ...string) output {
	t.Helper()
	code, stdout, stderr := runMain(t, ctx, append(args, "-json")...)
	if code != wantCode {
		t.Fatalf("%v: exit code %d, want %d; stderr: %s", args, code, wantCode, stderr)
	}
	var out output
	d := json.NewDecoder(strings.NewReader(stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&out); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	if _, err := d.Token(); err != io.EOF {
		t.Fatalf("more than one value in %s", stdout)
	}
	return out
}

// largest is what loopback carries with the system's default settings.
func largest() int {
	switch runtime.GOOS {
	case "linux", "android", "windows":
		return maxSize
	}
	return 8192 // net.inet.udp.maxdgram of BSD and macOS is about 9000
}

func TestEachWay(t *testing.T) {
	for i, o := range []options{
		{size: 1200, batch: 64, receivers: 1, senders: 1},
		{size: 1200, batch: 1, receivers: 1, senders: 1},
		{size: 1200, batch: 1, receivers: 16, senders: 4},
		{size: 1200, batch: 64, receivers: 16, senders: 4},
		{size: 1200, batch: 10, receivers: 16, senders: 1},
		{size: 1200, batch: 1024, receivers: 1, senders: 4},
		{size: 64, batch: 1, receivers: 1, senders: 4},
		{size: 64, batch: 1024, receivers: 16, senders: 1},
		{size: 64, batch: 4096, receivers: 1, senders: 1},
		{size: minSize, batch: 64, receivers: 1, senders: 1},
		{size: largest(), batch: 1, receivers: 16, senders: 1},
		{size: largest(), batch: 64, receivers: 1, senders: 4},
		{size: largest(), batch: 1024, receivers: 1, senders: 1},
	} {
		t.Run(fmt.Sprintf("size=%d/batch=%d/receivers=%d/senders=%d", o.size, o.batch, o.receivers, o.senders), func(t *testing.T) {
			if testing.Short() && i%3 != 0 {
				t.Skip("each third in short mode")
			}
			out := runJSON(t, t.Context(), exitOK, "-duration", "25ms", "-size", fmt.Sprint(o.size), "-batch", fmt.Sprint(o.batch),
				"-receivers", fmt.Sprint(o.receivers), "-senders", fmt.Sprint(o.senders))
			if out.Size != o.size || out.Batch != o.batch || out.Receivers != o.receivers || out.Senders != o.senders || !out.Loopback {
				t.Errorf("other settings: %+v", out)
			}
			if len(out.Ways) != len(ways) {
				t.Fatalf("%d ways, want %d", len(out.Ways), len(ways))
			}
			for i, r := range out.Ways {
				checkRow(t, &o, ways[i].name, r)
			}
			checkReading(t, &o, &out)
			if first := out.Ways[0]; *first.Ratio != 1 || *first.Calls != 1 {
				t.Errorf("first row: ratio %v, calls %v", *first.Ratio, *first.Calls)
			}
		})
	}
}

// checkRow checks what holds however slow the machine is.
func checkRow(t *testing.T, o *options, name string, r row) {
	t.Helper()
	if r.Way != name {
		t.Errorf("row of %q, want %q", r.Way, name)
	}
	if r.Error != "" {
		if name == "x/net WriteBatch" && runtime.GOOS == "windows" {
			return
		}
		t.Fatalf("%s: %s", name, r.Error)
	}
	if r.Sent == 0 || *r.Arrived == 0 || *r.Arrived > r.Sent {
		t.Errorf("%s: sent %d, arrived %d", name, r.Sent, *r.Arrived)
	}
	if r.wrong() != 0 {
		t.Errorf("%s: %s", name, r.complaint())
	}
	if r.Rate == nil || r.Ratio == nil || *r.Rate <= 0 || *r.Gbit <= 0 || *r.Nanos <= 0 || *r.Ratio <= 0 {
		t.Fatalf("%s: numbers are missing: %+v", name, r)
	}
	if sent := float64(r.Sent) / *r.Rate; r.Rounds == 1 && sent < 0.0249 {
		t.Errorf("%s: sent for %v s only", name, sent)
	}
	if harness.HaveProcessCPU && (r.CPUNanos == nil || *r.CPUNanos <= 0) {
		t.Errorf("%s: no CPU time", name)
	}
	batch := o.batch
	if strings.HasPrefix(name, "Writer") { // makes its own
		batch = 1024
	}
	if r.Calls == nil {
		if !strings.Contains(name, "net ") && !sys.HaveBatchCall {
			return
		}
		t.Errorf("%s: no calls", name)
	} else if *r.Calls < 1/float64(batch) {
		t.Errorf("%s: %v calls a datagram with %d a batch", name, *r.Calls, batch)
	}
}

// checkReading checks the rows of reading: every datagram of each.
func checkReading(t *testing.T, o *options, out *output) {
	t.Helper()
	if len(out.Reading) != len(sendings)*len(readings) || out.ReadingBurst < 1 || out.ReadingBurst > o.batch {
		t.Fatalf("%d rows of reading, bursts of %d", len(out.Reading), out.ReadingBurst)
	}
	for i, r := range out.Reading {
		if name := readings[i%len(readings)].name; r.Reading != name || r.Way != sendings[i/len(readings)].name {
			t.Errorf("row of %q, %q; want %q", r.Reading, r.Way, name)
		}
		if runtime.GOOS == "windows" && r.Error != "" {
			continue
		}
		if r.Error != "" || r.Sent == 0 || *r.Arrived != r.Sent || r.wrong() != 0 || *r.Reordered != 0 {
			t.Errorf("%s, %s: %+v, %s", r.Reading, r.Way, r, r.complaint())
		}
		if harness.HaveThreadCPU && (r.ReadCPU == nil || *r.ReadCPU <= 0 || *r.CPUNanos <= 0) {
			t.Errorf("%s, %s: no CPU time", r.Reading, r.Way)
		}
	}
}

// TestEachReader: receivers of what is sent can read in each way.
func TestEachReader(t *testing.T) {
	for _, how := range append(readings, prompt) {
		if how.key == "xnet" && runtime.GOOS == "windows" { // x/net reads nothing there
			continue
		}
		out := runJSON(t, t.Context(), exitOK, "-read", how.key, "-receivers", "3", "-duration", "30ms")
		for _, r := range out.Ways {
			if r.Error == "" && (r.Reading != how.name || *r.Arrived == 0 || r.wrong() != 0) {
				t.Errorf("-read %s: %+v", how.key, r)
			}
			if harness.HaveThreadCPU && r.Error == "" && (r.ReadCPU == nil || *r.ReadCPU <= 0) {
				t.Errorf("-read %s: no CPU time of %s", how.key, r.Way)
			}
		}
		rows := len(readings)
		if how.key == readings[0].key {
			rows = 1
		} else if how.key != prompt.key {
			rows = 2 // and the one that it is compared with
		}
		if len(out.Reading) != rows*len(sendings) {
			t.Errorf("-read %s: %d rows of reading", how.key, len(out.Reading))
		}
	}
}

// TestManyReceivers: as many threads as there are receivers would leave none of
// the processors to the senders.
func TestManyReceivers(t *testing.T) {
	opt := &options{size: 64, batch: 64, receivers: 500, senders: 1, reading: &prompt}
	all, err := newCollectors(opt)
	if err != nil {
		t.Fatal(err)
	}
	closeCollectors(all)
	if limit := max(1, runtime.GOMAXPROCS(0)-1); len(all) > limit {
		t.Errorf("%d threads read, want no more than %d", len(all), limit)
	}
	out := runJSON(t, t.Context(), exitOK, "-receivers", "500", "-size", "64", "-duration", "20ms")
	for _, r := range out.Ways {
		if r.Error == "" && *r.Arrived == 0 {
			t.Errorf("%s: nothing arrived", r.Way)
		}
	}
}

// TestIPv6Only: a machine may have no 127.0.0.1.
func TestIPv6Only(t *testing.T) {
	was := loopbacks
	t.Cleanup(func() { loopbacks = was })
	loopbacks = append([]net.IP{net.IPv4(192, 0, 2, 1)}, was[1:]...) // which nobody has
	u, err := net.ListenUDP("udp6", &net.UDPAddr{IP: net.IPv6loopback})
	if err != nil {
		t.Skip(err)
	}
	u.Close()
	out := runJSON(t, t.Context(), exitOK, "-duration", "20ms")
	if to := netip.MustParseAddrPort(out.To); to.Addr() != netip.IPv6Loopback() {
		t.Errorf("sent to %v", to)
	}
	for _, r := range append(out.Ways, out.Reading...) {
		if r.Error == "" && *r.Arrived == 0 {
			t.Errorf("%s: nothing arrived", r.Way)
		}
	}
	loopbacks = loopbacks[:1]
	if code, _, stderr := runMain(t, t.Context()); code != exitFailed || strings.Count(stderr, "\n") != 1 {
		t.Errorf("no loopback: exit code %d, stderr %q", code, stderr)
	}
}

func TestTable(t *testing.T) {
	code, stdout, stderr := runMain(t, t.Context(), "-duration", "50ms")
	if code != exitOK || stderr != "" {
		t.Fatalf("exit code %d, stderr %q", code, stderr)
	}
	for _, w := range ways {
		if !strings.Contains(stdout, "\n"+w.name+" ") {
			t.Errorf("no row for %s in\n%s", w.name, stdout)
		}
	}
	for _, how := range readings {
		if strings.Count(stdout, "\n"+how.name+" ") != len(sendings) {
			t.Errorf("not %d rows for %s in\n%s", len(sendings), how.name, stdout)
		}
	}
	headings := []string{"datagrams/s", "Gbit/s", " ns ", "CPU-ns", "rCPU-ns", "calls", "arrived", "damaged", "ratio", "1200 bytes, 64 a call"}
	if harness.HaveThreadCPU { // else nothing is said about the readers
		headings = append(headings, "read "+prompt.name)
	}
	for _, heading := range headings {
		if !strings.Contains(stdout, heading) {
			t.Errorf("no %q in\n%s", heading, stdout)
		}
	}
	for line := range strings.Lines(stdout) {
		if len(line) > 101 || strings.HasSuffix(line, " \n") {
			t.Errorf("line is too long or ends with a blank: %q", line)
		}
	}
}

func TestProgress(t *testing.T) {
	var stdout, stderr bytes.Buffer
	wide := &progress{w: &stderr, width: func() int { return 200 }}
	if code := run(t.Context(), []string{"-duration", "50ms"}, &stdout, &stderr, wide); code != exitOK {
		t.Fatalf("exit code %d: %s", code, &stderr)
	}
	if strings.Contains(stdout.String(), "\r") || !strings.Contains(stderr.String(), "\rround 1 of 1: "+ways[len(ways)-1].name) {
		t.Errorf("stdout %q, stderr %q", &stdout, &stderr)
	}
	if shown := stderr.String(); strings.Trim(shown[strings.LastIndex(strings.TrimSuffix(shown, "\r"), "\r"):], "\r ") != "" {
		t.Errorf("the last line is left on the terminal: %q", shown)
	}
}

// TestNarrowTerminal: what is shown stays in one line, also when the terminal
// becomes narrower, and when it does not say how wide it is.
func TestNarrowTerminal(t *testing.T) {
	for _, widths := range [][]int{{1}, {2}, {20}, {40, 10, 30}, {0}, {200, 5}} {
		var shown bytes.Buffer
		columns := 0
		p := &progress{w: &shown, width: func() int { return columns }}
		for _, columns = range widths {
			limit := columns - 1
			if columns == 0 {
				limit = usualWidth - 1
			}
			for _, text := range []string{strings.Repeat("long ", 50), "short", strings.Repeat("x", max(limit, 1))} {
				shown.Reset()
				p.show("%s", text)
				if line := shown.String(); line[0] != '\r' || len(line) > 1+limit || !strings.HasPrefix(line[1:], text[:min(limit, len(text))]) {
					t.Errorf("%d columns: %q", columns, line)
				}
			}
		}
		shown.Reset()
		p.clear()
		if len(shown.String()) > max(columns, usualWidth*(1-min(columns, 1)))+1 {
			t.Errorf("%d columns: cleared with %q", columns, &shown)
		}
	}
}

func TestWrongFlags(t *testing.T) {
	for _, c := range []struct{ args, says string }{
		{"-size 39", "-size is 39"},
		{"-size 65508", "-size is 65508"},
		{"-size big", "-size"},
		{"-batch 0", "-batch is 0"},
		{"-batch 16385", "-batch is 16385"},
		{"-receivers 0", "-receivers is 0"},
		{"-receivers -3", "-receivers is -3"},
		{"-senders 0", "-senders is 0"},
		{"-senders 257", "-senders is 257"},
		{"-senders 256 -receivers 1024", "-receivers 1024"},
		{"-senders 256 -batch 16384", "MiB"},
		{"-senders 256 -batch 16384 -size 40", "MiB"}, // what the ways keep of each
		{"-size 65507 -batch 16384", "MiB"},
		{"-size 9999999999999999999999", "-size"},
		{"-size -1", "-size is -1"},
		{"-batch -1", "-batch is -1"},
		{"-read", "-read"},
		{"-read fast", "-read fast"},
		{"-read=", "-read"},
		{"-listen :0 -read prompt", "-read prompt"},
		{"-to 127.0.0.1:9 -read net", "-read"},
		{"-duration 0s", "-duration is 0s"},
		{"-duration -1s", "-duration is -1s"},
		{"-duration 5", "-duration"},
		{"-speed 3", "-speed"},
		{"fast", "fast"},
		{"-json fast", "fast"},
		{"-to=", "-to needs an address"},
		{"-listen=", "-listen needs an address"},
		{"-to 127.0.0.1:9 -receivers 2", "-receivers"},
		{"-to 127.0.0.1:9 -listen :0", "-to"},
		{"-to 127.0.0.1", "-to 127.0.0.1"},
		{"-to 127.0.0.1:0", "-to 127.0.0.1:0"},
		{"-to 127.0.0.1:99999", "-to 127.0.0.1:99999"},
		{"-listen 127.0.0.1", "-listen 127.0.0.1"},
		{"-listen :0 -size 64", "-size"},
		{"-listen :0 -batch 64", "-batch"},
		{"-listen :0 -senders 1", "-senders"},
	} {
		code, stdout, stderr := runMain(t, t.Context(), strings.Fields(c.args)...)
		if code != exitUsage || stdout != "" {
			t.Errorf("%s: exit code %d, stdout %q", c.args, code, stdout)
		}
		if !strings.Contains(stderr, c.says) || strings.Index(stderr, "\n") != len(stderr)-1 || !strings.HasPrefix(stderr, "batchbench: ") {
			t.Errorf("%s: not one line that says %q: %q", c.args, c.says, stderr)
		}
	}
}

func TestHelp(t *testing.T) {
	for _, arg := range []string{"-h", "-help", "--help"} {
		code, stdout, stderr := runMain(t, t.Context(), arg)
		if code != exitOK || stderr != "" {
			t.Errorf("%s: exit code %d, stderr %q", arg, code, stderr)
		}
		for _, f := range []string{"-size", "-batch", "-receivers", "-senders", "-duration", "-read", "-json", "-to", "-listen"} {
			if !strings.Contains(stdout, "  "+f) {
				t.Errorf("%s does not say %s", arg, f)
			}
		}
	}
}

// TestInterrupted ends a long run as soon as a way has sent: the others have no
// turn.
func TestInterrupted(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	open := func(u *net.UDPConn) (*socket, error) {
		s, err := openNet(u)
		return s, errors.Join(err, alter(s, func(send sendFunc, slots []slot) sendFunc {
			return func(from, to int) (int, error) { defer cancel(); return send(from, to) }
		}))
	}
	replaceWays(t, way{"one", open}, way{"other", open})
	begin := time.Now()
	out := runJSON(t, ctx, exitInterrupted, "-duration", "10m")
	if d := time.Since(begin); d > time.Minute {
		t.Errorf("took %v", d)
	}
	turns := 0
	for _, r := range out.Ways {
		turns += r.Rounds
		if (r.Sent > 0) != (r.Rounds == 1) || (r.Rate != nil) != (r.Rounds == 1) {
			t.Errorf("%+v", r)
		}
	}
	if !out.Interrupted || turns != 1 {
		t.Errorf("%d turns, %+v", turns, out)
	}
	cancelled, stop := context.WithCancel(t.Context())
	stop()
	if code, stdout, _ := runMain(t, cancelled); code != exitInterrupted || !strings.Contains(stdout, "Interrupted") {
		t.Errorf("interrupted before the start: exit code %d and\n%s", code, stdout)
	}
}

// TestWait: an interrupt does not wait for the end of a run.
func TestWait(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := &bench{senders: make([]*sender, 1)}
	if err := b.wait(ctx, time.Hour, nil, nil); err != nil {
		t.Error(err)
	}
}

// replaceWays makes the program compare others.
func replaceWays(t *testing.T, others ...way) {
	was := ways
	ways = others
	t.Cleanup(func() { ways = was })
}

// alter puts something between a way and its socket.
func alter(s *socket, f func(send sendFunc, slots []slot) sendFunc) error {
	was := s.sender
	s.sender = func(slots []slot) sendFunc { return f(was(slots), slots) }
	return nil
}

// wrongWays do what a broken library could do, most of it only once.
func wrongWays(once *atomic.Bool) []wrongWay {
	return []wrongWay{
		{"damages", func(send sendFunc, slots []slot) sendFunc {
			return func(from, to int) (int, error) {
				if once.CompareAndSwap(false, true) {
					slots[from].p[100] ^= 1
					defer func() { slots[from].p[100] ^= 1 }()
				}
				return send(from, to)
			}
		}, func(r *row) uint64 { return *r.Damaged }},
		{"sends to another", func(send sendFunc, slots []slot) sendFunc {
			return func(from, to int) (int, error) {
				if once.CompareAndSwap(false, true) {
					slots[from].to, slots[from+1].to = slots[from+1].to, slots[from].to
					defer func() { slots[from].to, slots[from+1].to = slots[from+1].to, slots[from].to }()
				}
				return send(from, to)
			}
		}, func(r *row) uint64 { return *r.Damaged }},
		{"sends twice", func(send sendFunc, slots []slot) sendFunc {
			return func(from, to int) (int, error) {
				if once.CompareAndSwap(false, true) {
					send(from, to)
				}
				return send(from, to)
			}
		}, func(r *row) uint64 { return *r.Duplicated }},
		{"counts less", func(send sendFunc, slots []slot) sendFunc {
			return func(from, to int) (int, error) {
				if once.CompareAndSwap(false, true) {
					n, err := send(from, to)
					return n - 1, err
				}
				return send(from, to)
			}
		}, func(r *row) uint64 { return *r.Duplicated }},
		{"fails after sending", func(send sendFunc, slots []slot) sendFunc {
			return func(from, to int) (int, error) {
				send(from, to)
				return 0, errors.New("failed")
			}
		}, func(r *row) uint64 { return *r.Uncounted }},
	}
}

type wrongWay struct {
	name  string
	alter func(send sendFunc, slots []slot) sendFunc
	count func(r *row) uint64
}

// TestWrongWays lets a way do what a broken library could do: the program
// must notice each.
func TestWrongWays(t *testing.T) {
	var once atomic.Bool
	for _, c := range wrongWays(&once) {
		t.Run(c.name, func(t *testing.T) {
			once.Store(false)
			replaceWays(t, ways[0], way{"wrong", func(u *net.UDPConn) (*socket, error) {
				s, err := openNet(u)
				return s, errors.Join(err, alter(s, c.alter))
			}})
			out := runJSON(t, t.Context(), exitFailed, "-duration", "20ms", "-batch", "8", "-receivers", "2", "-senders", "1")
			if good := &out.Ways[0]; good.wrong() != 0 || good.Rate == nil {
				t.Errorf("the good way: %+v", good)
			}
			if bad := &out.Ways[1]; c.count(bad) == 0 || c.count(bad) > 8 {
				t.Errorf("not counted: %s", bad.complaint())
			}
			once.Store(false)
			code, stdout, stderr := runMain(t, t.Context(), "-duration", "20ms", "-batch", "8", "-receivers", "2")
			if code != exitFailed || !strings.Contains(stdout, "DAMAGED: wrong") || strings.Count(stderr, "\n") != 1 {
				t.Errorf("exit code %d, stderr %q and\n%s", code, stderr, stdout)
			}
		})
	}
}

// wrongReaders do what a broken library could do.
var wrongReaders = []struct {
	name  string
	alter func(m *harness.Mailbag, n int) int // what one read has put into the first n buffers
	wrong func(r *row) bool
}{
	{"damages", func(m *harness.Mailbag, n int) int { m.Buffers[0][50] ^= 1; return n },
		func(r *row) bool { return *r.Damaged > 0 }},
	{"cuts", func(m *harness.Mailbag, n int) int { m.Lengths[0]--; return n },
		func(r *row) bool { return *r.Damaged > 0 }},
	{"glues", func(m *harness.Mailbag, n int) int {
		m.Lengths[0] = copy(m.Buffers[0][1199:], m.Buffers[1]) + 1199
		return n
	},
		func(r *row) bool { return *r.Damaged > 0 }},
	{"doubles", func(m *harness.Mailbag, n int) int { m.Lengths[1] = copy(m.Buffers[1], m.Datagram(0)); return n },
		func(r *row) bool { return *r.Duplicated > 0 }},
	{"loses", func(m *harness.Mailbag, n int) int { return n - 1 },
		func(r *row) bool { return *r.Arrived < r.Sent }},
	{"reorders", func(m *harness.Mailbag, n int) int {
		m.Buffers[0], m.Buffers[1] = m.Buffers[1], m.Buffers[0]
		return n
	}, func(r *row) bool { return *r.Reordered > 0 }},
}

// TestWrongReaders lets a way of reading do what a broken library could do.
func TestWrongReaders(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no read takes more than one datagram here")
	}
	was := readings
	t.Cleanup(func() { readings = was })
	for _, c := range wrongReaders {
		bad := reading{"bad", c.name, true, func(u *net.UDPConn, m *harness.Mailbag) (*reader, error) {
			r, err := readXNet(u, m) // of batches on the portable path too
			if err != nil {
				return nil, err
			}
			read, once := r.read, false
			r.read = func(i int) (int, error) {
				n, err := read(i)
				if i == 0 && n > 1 && !once {
					once = true
					n = c.alter(m, n)
				}
				return n, err
			}
			return r, nil
		}}
		readings = []reading{was[0], bad}
		var o, e bytes.Buffer
		run(t.Context(), []string{"-json", "-duration", "20ms"}, &o, &e, &progress{})
		var out output
		if err := json.Unmarshal(o.Bytes(), &out); err != nil {
			t.Fatal(err)
		}
		for _, r := range out.Reading {
			if got := c.wrong(&r); got != (r.Reading == c.name) {
				t.Errorf("a way that %s, in the row of %s: %+v, %s", c.name, r.Reading, r, r.complaint())
			}
		}
	}
}

// TestLongMeasurement: it takes no more memory than a short one, and counts
// exactly.
func TestLongMeasurement(t *testing.T) {
	const rounds = 5*maxSpans + 3
	opt := &options{duration: 100000 * time.Hour, reading: &prompt, size: 1000, set: map[string]bool{}}
	res := newResults(opt, netip.AddrPort{})
	if res.rounds < rounds || res.each != roundTime {
		t.Errorf("%d rounds of %v", res.rounds, res.each)
	}
	for round := range rounds {
		for i := range 2 {
			moved := uint64(100 * (i + 1))
			res.add(&res.ways[i], round, &sample{elapsed: time.Second, sent: moved, moved: moved, tally: tally{arrived: moved - 1}})
		}
	}
	r := res.row(&res.ways[1])
	if r.Sent != 200*rounds || *r.Arrived != 199*rounds || *r.Rate != 200 || *r.Ratio != 2 {
		t.Errorf("%+v", r)
	}
	if n := len(res.ways[1].samples); n > maxSpans || r.Rounds != n {
		t.Errorf("%d samples, %d in the row", n, r.Rounds)
	}
	cancelled, stop := context.WithCancel(t.Context())
	stop()
	if code, stdout, _ := runMain(t, cancelled, "-duration", "2000000h"); code != exitInterrupted || !strings.Contains(stdout, "Interrupted in round 1 of ") {
		t.Errorf("exit code %d and\n%s", code, stdout)
	}
}

// TestFailingWay: a way that fails, or cannot be opened, leaves the others
// their rows.
func TestFailingWay(t *testing.T) {
	fails := func(u *net.UDPConn) (*socket, error) {
		s, err := openNet(u)
		return s, errors.Join(err, alter(s, func(sendFunc, []slot) sendFunc {
			return func(from, to int) (int, error) { return 0, errors.New("no luck") }
		}))
	}
	replaceWays(t, ways[0],
		way{"fails", fails},
		way{"missing", func(*net.UDPConn) (*socket, error) { return nil, errors.New("not built") }},
		way{"elsewhere", func(*net.UDPConn) (*socket, error) { return nil, errors.ErrUnsupported }},
		ways[3])
	code, stdout, stderr := runMain(t, t.Context(), "-duration", "50ms", "-senders", "3")
	if code != exitFailed || stderr != "batchbench: fails: no luck; missing: not built\n" {
		t.Errorf("exit code %d, stderr %q", code, stderr)
	}
	for _, s := range []string{"fails            no luck\n", "missing          not built\n", "elsewhere        not on " + runtime.GOOS + "\n", "\nSendMessages "} {
		if !strings.Contains(stdout, s) {
			t.Errorf("no %q in\n%s", s, stdout)
		}
	}
	replaceWays(t, ways[0], ways[3])
	if code, _, stderr := runMain(t, t.Context(), "-duration", "50ms"); code != exitOK {
		t.Errorf("a way that is not on this system: exit code %d, %s", code, stderr)
	}
}

// listenForTest starts -listen and returns its lines, its address and how to
// end it.
func listenForTest(t *testing.T, args ...string) (lines *bufio.Scanner, addr string, end func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	code := make(chan int, 1)
	var stderr bytes.Buffer
	go func() {
		c := run(ctx, append([]string{"-listen", "127.0.0.1:0"}, args...), w, &stderr, &progress{})
		w.Close()
		code <- c
	}()
	t.Cleanup(func() { cancel(); r.Close() })
	lines = bufio.NewScanner(r)
	if !lines.Scan() {
		t.Fatalf("-listen printed nothing; stderr: %s", &stderr)
	}
	fields := strings.FieldsFunc(lines.Text(), func(r rune) bool { return strings.ContainsRune(` ",{}`, r) })
	i := slices.IndexFunc(fields, func(s string) bool { return strings.HasPrefix(strings.TrimPrefix(s, ":"), "127.0.0.1:") })
	if i < 0 {
		t.Fatalf("no address in %q", lines.Text())
	}
	return lines, fields[i], func() int { cancel(); return <-code }
}

func TestToListen(t *testing.T) {
	lines, addr, end := listenForTest(t, "-json")
	out := runJSON(t, t.Context(), exitOK, "-to", addr, "-duration", "100ms", "-senders", "2")
	sent := uint64(0)
	for _, r := range out.Ways {
		if r.Error == "" && (r.Sent == 0 || r.Rate == nil || r.Arrived != nil || r.Damaged != nil) {
			t.Errorf("%s: %+v", r.Way, r)
		}
		sent += r.Sent
	}
	if out.To != addr || out.Loopback {
		t.Errorf("sent to %s, not %s", out.To, addr)
	}
	var seconds, total report
	for lines.Scan() && !total.Total {
		var r report
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			t.Fatalf("%v in %s", err, lines.Text())
		}
		if r.Total {
			total = r
			break
		}
		if seconds.Arrived == 0 {
			go end()
		}
		if r.Rate == nil || r.Gbit == nil || *r.Rate <= 0 {
			t.Errorf("no rate in %s", lines.Text())
		}
		seconds.Arrived += r.Arrived
		seconds.Lost += r.Lost
	}
	if total.Arrived == 0 || total.Damaged+total.Duplicated != 0 || total.Lost < 0 || total.Arrived+uint64(total.Lost) > sent {
		t.Errorf("of %d sent: %+v", sent, total)
	}
	if seconds.Arrived != total.Arrived || seconds.Lost != total.Lost {
		t.Errorf("the seconds %+v do not add up to %+v", seconds, total)
	}
}

// TestListenText also has the listener see a gap, a duplicate and damage.
func TestListenText(t *testing.T) {
	lines, addr, end := listenForTest(t)
	c, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	h := header{run: 7}
	p := make([]byte, 100)
	fixed := h.compose(p)
	for _, sequence := range []uint64{5, 6, 9, 9, 8} {
		stamp(p, fixed, sequence)
		c.Write(p)
	}
	p[50]++
	c.Write(p)
	want := strings.Fields("4 1 2") // arrived, lost (7), damaged and twice
	code := make(chan int, 1)
	var last []string
	seen := 0
	for lines.Scan() {
		f := strings.Fields(lines.Text())
		if len(f) != 6 || f[0] == "second" {
			continue
		}
		if last = f; f[0] == "total" {
			break
		}
		var arrived, wrong int
		fmt.Sscan(f[3], &arrived)
		fmt.Sscan(f[5], &wrong)
		if seen += arrived + wrong; seen == 6 {
			go func() { code <- end() }()
		}
	}
	if len(last) != 6 || !slices.Equal(last[3:], want) {
		t.Errorf("last line %q, want it to end with %q", last, want)
	}
	part := false
	for lines.Scan() {
		part = part || strings.Contains(lines.Text(), "80.0% arrived.")
	}
	if !part {
		t.Error("no line says what part arrived")
	}
	if code := <-code; code != exitFailed {
		t.Errorf("exit code %d after damage", code)
	}
}

func TestListenDuration(t *testing.T) {
	code, stdout, stderr := runMain(t, t.Context(), "-listen", "127.0.0.1:0", "-duration", "10ms")
	if code != exitOK || stderr != "" || !strings.Contains(stdout, "total") {
		t.Errorf("exit code %d, stderr %q, stdout %q", code, stderr, stdout)
	}
	u, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if code, _, stderr := runMain(t, t.Context(), "-listen", u.LocalAddr().String()); code != exitFailed || strings.Count(stderr, "\n") != 1 {
		t.Errorf("a port that is taken: exit code %d, stderr %q", code, stderr)
	}
}

// A parkingConn wakes what waits as a socket does: by its write deadline.
type parkingConn struct {
	*net.UDPConn
	wake chan struct{}
}

func (c *parkingConn) SetWriteDeadline(t time.Time) error {
	if !t.IsZero() {
		close(c.wake)
	}
	return c.UDPConn.SetWriteDeadline(t)
}

// TestParkedSender: a sender that waits for room when its time is over is
// woken, and what it did not send is not counted.
func TestParkedSender(t *testing.T) {
	replaceWays(t, way{"parks", func(u *net.UDPConn) (*socket, error) {
		s, err := openNet(u)
		c := &parkingConn{u, make(chan struct{})}
		s.conn = c
		calls := 0
		return s, errors.Join(err, alter(s, func(send sendFunc, slots []slot) sendFunc {
			return func(from, to int) (int, error) {
				if calls++; calls == 1 {
					return send(from, from+3)
				}
				<-c.wake
				return 0, os.ErrDeadlineExceeded
			}
		}))
	}})
	out := runJSON(t, t.Context(), exitOK, "-duration", "20ms", "-batch", "8")
	if r := out.Ways[0]; r.Sent != 3 || *r.Arrived != 3 || r.Error != "" {
		t.Errorf("%+v", r)
	}
}
