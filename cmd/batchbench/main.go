// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Batchbench measures what sending UDP datagrams costs in each available way,
// and checks every datagram that arrives.
//
//	go run ./cmd/batchbench
//
// opens receivers on loopback, sends for a few seconds each way and prints one
// table. The ways take turns in short rounds, so that what else the machine
// does meanwhile falls on all of them; a rate is the median of its rounds. The
// receivers look for datagrams instead of being woken, because on loopback the
// sender would pay for that.
//
//	go run ./cmd/batchbench -listen :9000            on one machine
//	go run ./cmd/batchbench -to that.machine:9000    on another
//
// sends over a real network, where the receiving end prints what arrives.
//
// # Columns
//
//   - datagrams/s: datagrams that the sends counted as sent, by wall-clock time,
//     all senders together. Nothing paces them.
//   - Gbit/s: the same in bits of payload, without headers.
//   - ns: wall-clock time per datagram, the inverse of the rate.
//   - CPU-ns: user and system time per datagram. On Linux it is that of the
//     process but for the receivers' threads; on loopback the sender does the
//     kernel's work up to the receiver's queue too. On other Unix systems it is
//     that of the whole process, receivers included. Elsewhere it is "-".
//   - calls: system calls per datagram that carried datagrams to the kernel.
//     "-" where a way does not count them.
//   - arrived: datagrams that arrived once and intact, of those counted as sent.
//     Loopback drops what finds the receiver's buffer full and does not slow the
//     sender down, and a drop costs the sender less than a delivery.
//   - damaged: datagrams that arrived with another content or length, twice, at
//     the wrong receiver, or without having been counted as sent. It is to be 0.
//   - ratio: median of each round's rate divided by that of the first row in the
//     same round.
//
// # Exit status
//
// 0; 1 if a datagram was damaged in any of these senses, or a way failed; 2 for
// wrong flags; 130 if it was interrupted. -listen ends with 0 when interrupted.
// (go run makes 1 of all but 0.)
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strings"
	"time"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 128 + 2 // as shells say it of SIGINT
)

// Bounds of the flags.
const (
	maxBatch     = 16384
	maxReceivers = 1024
	maxSenders   = 256
	maxFlows     = 16384   // senders times receivers
	maxMemory    = 1 << 30 // of all datagrams held
	minDuration  = time.Millisecond
)

type options struct {
	size      int
	batch     int
	receivers int
	senders   int
	duration  time.Duration
	json      bool
	to        string
	listen    string

	addr *net.UDPAddr    // of to or listen
	set  map[string]bool // the flags that were given
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	context.AfterFunc(ctx, stop) // a second Ctrl-C kills
	show := isTerminal(os.Stdout) && isTerminal(os.Stderr)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr, show))
}

func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// run is main: it returns the exit code, and shows progress on stderr if asked.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, showProgress bool) int {
	opt, err := parseFlags(args)
	if errors.Is(err, flag.ErrHelp) {
		usage(stdout)
		return exitOK
	}
	if err != nil {
		fmt.Fprintf(stderr, "batchbench: %v\n", err)
		return exitUsage
	}
	var code int
	if opt.listen != "" {
		code, err = listen(ctx, opt, stdout)
	} else {
		p := &progress{}
		if showProgress {
			p.w = stderr
		}
		code, err = measure(ctx, opt, stdout, p)
	}
	if err != nil {
		fmt.Fprintf(stderr, "batchbench: %v\n", err)
		return max(code, exitFailed)
	}
	return code
}

func flags(opt *options) *flag.FlagSet {
	f := flag.NewFlagSet("batchbench", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.Usage = func() {}
	f.IntVar(&opt.size, "size", 1200, "payload of each datagram in `bytes`")
	f.IntVar(&opt.batch, "batch", 64, "`datagrams` in each call, 1 to each receiver in turn")
	f.IntVar(&opt.receivers, "receivers", 1, "`sockets` on loopback that receive")
	f.IntVar(&opt.senders, "senders", 1, "`goroutines` that send at once, all through one socket")
	f.DurationVar(&opt.duration, "duration", 3*time.Second, "`time` to send each way, or to listen, which else goes on until interrupted")
	f.BoolVar(&opt.json, "json", false, "print JSON, with -listen one object a line")
	f.StringVar(&opt.to, "to", "", "send to `host:port`, where batchbench -listen runs, instead of loopback")
	f.StringVar(&opt.listen, "listen", "", "be the receiving end at `address` and print what arrives each second")
	return f
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Usage: batchbench [flags]\n\nSends UDP datagrams in each available way, checks what arrives and prints a table.\n\n")
	f := flags(new(options))
	f.SetOutput(w)
	f.PrintDefaults()
}

func parseFlags(args []string) (*options, error) {
	opt := &options{set: make(map[string]bool)}
	f := flags(opt)
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if f.NArg() > 0 {
		return nil, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	f.Visit(func(g *flag.Flag) { opt.set[g.Name] = true })
	return opt, opt.validate()
}

func (opt *options) validate() error {
	for _, b := range []struct {
		name          string
		value, lo, hi int
	}{
		{"size", opt.size, minSize, maxSize},
		{"batch", opt.batch, 1, maxBatch},
		{"receivers", opt.receivers, 1, maxReceivers},
		{"senders", opt.senders, 1, maxSenders},
	} {
		if b.value < b.lo || b.value > b.hi {
			return fmt.Errorf("-%s is %d, not %d to %d", b.name, b.value, b.lo, b.hi)
		}
	}
	if opt.duration < minDuration {
		return fmt.Errorf("-duration is %v, less than %v", opt.duration, minDuration)
	}
	if opt.senders*opt.receivers > maxFlows {
		return fmt.Errorf("-senders %d times -receivers %d is more than %d", opt.senders, opt.receivers, maxFlows)
	}
	held := int64(opt.senders*slotCount(opt) + opt.receivers*readCount(opt.size+1))
	if bytes := held * int64(opt.size); bytes > maxMemory { // may be more than an int has where it has 32 bits
		return fmt.Errorf("-size %d, -batch %d, -senders %d and -receivers %d take %d MiB of buffers, more than %d",
			opt.size, opt.batch, opt.senders, opt.receivers, bytes>>20, maxMemory>>20)
	}
	if err := opt.exclude(); err != nil {
		return err
	}
	return opt.resolve()
}

// resolve finds the address of -to or -listen.
func (opt *options) resolve() (err error) {
	mode, name := "listen", opt.listen
	if opt.to != "" {
		mode, name = "to", opt.to
	}
	if name == "" {
		return nil
	}
	if opt.addr, err = net.ResolveUDPAddr("udp", name); err != nil {
		return fmt.Errorf("-%s %s: %w", mode, name, err)
	}
	if mode == "to" && (opt.addr.Port == 0 || opt.addr.IP == nil) {
		return fmt.Errorf("-to %s is no host and port", name)
	}
	return nil
}

// exclude refuses the flags that mean nothing beside -to or -listen.
func (opt *options) exclude() error {
	var mode string
	var others []string
	switch {
	case opt.set["listen"]:
		mode, others = "listen", []string{"to", "size", "batch", "receivers", "senders"}
	case opt.set["to"]:
		mode, others = "to", []string{"receivers"}
	default:
		return nil
	}
	if opt.to == "" && opt.listen == "" {
		return fmt.Errorf("-%s needs an address", mode)
	}
	for _, name := range others {
		if opt.set[name] {
			return fmt.Errorf("-%s and -%s cannot be used together", mode, name)
		}
	}
	return nil
}

// A progress shows one line that is written over and over; with no w, nothing.
type progress struct {
	w    io.Writer
	last int
}

func (p *progress) show(format string, args ...any) {
	if p.w == nil {
		return
	}
	line := fmt.Sprintf(format, args...)
	fmt.Fprint(p.w, "\r", line, strings.Repeat(" ", max(p.last-len(line), 0)))
	p.last = len(line)
}

func (p *progress) clear() {
	if p.w != nil && p.last > 0 {
		p.show("")
		fmt.Fprint(p.w, "\r")
	}
}
