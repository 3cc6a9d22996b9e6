// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Batchbench measures what sending and reading UDP datagrams costs in each
// available way, and checks every datagram that arrives.
//
//	go run ./cmd/batchbench
//
// opens receivers on loopback, sends for a few seconds each way and prints a
// table. The ways take turns in short rounds, so that what else the machine
// does meanwhile falls on all of them; a rate is the median of its rounds. The
// receivers look for datagrams instead of being woken, because on loopback the
// sender would pay for that.
//
// Then it compares ways of reading, in a second table: in one thread, a burst
// of datagrams is sent, plainly or segmented, and then read, and only the
// reading is timed.
//
//	go run ./cmd/batchbench -listen :9000            on one machine
//	go run ./cmd/batchbench -to that.machine:9000    on another
//
// sends over a real network. The receiving end prints what arrives.
//
// # Columns
//
//   - datagrams/s: datagrams that the sends counted as sent, by wall-clock
//     time, all senders together. Nothing paces them. Of a way of reading:
//     datagrams that were read, by the time that reading took.
//   - Gbit/s: the same in bits of payload, without headers.
//   - ns: wall-clock time per datagram, the inverse of the rate.
//   - CPU-ns: user and system time per datagram sent. On Linux it is that of
//     the process except for the receivers' threads; on loopback the sender
//     does the kernel's work up to the receiver's queue too. On other Unix
//     systems it is that of the whole process, receivers included. Elsewhere it
//     is "-".
//   - rCPU-ns: that of the threads that read, per datagram that arrived. Linux
//     only. It includes looking in vain; what the collector does in other
//     threads is not in it.
//   - calls: system calls per datagram that carried datagrams to the kernel.
//     "-" where a way does not count them.
//   - arrived: datagrams that arrived once and intact, of those counted as
//     sent. Loopback drops what finds the receiver's buffer full and does not
//     slow the sender down, and a drop costs the sender less than a delivery.
//   - damaged: datagrams that arrived with another content or length, twice, at
//     the wrong receiver, or without having been counted as sent. It is to be
//     0.
//   - ratio: how many times as fast as the first row. It is the median of the
//     rounds' own ratios. A way of reading is compared with the first row that
//     has the same sender, by rCPU-ns where that is known. ReadFrom returns a
//     net.Addr and allocates for it, which the first row, ReadFromUDPAddrPort,
//     does not.
//
// # Exit status
//
// 0; 1 if a datagram was damaged in any of these senses, or a way failed; 2 for
// wrong flags; 128 and the signal's number if one ended it, after it printed
// what there was: 130 for SIGINT, 143 for SIGTERM. -listen ends with 0 then. A
// second signal kills. (go run makes 1 of all but 0.)
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"time"
)

// Exit codes.
const (
	exitOK          = 0
	exitFailed      = 1
	exitUsage       = 2
	exitInterrupted = 128 + 2 // and more, as shells say it of SIGINT
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
	read      string
	json      bool
	to        string
	listen    string

	reading *reading        // of read
	addr    *net.UDPAddr    // of to or listen
	set     map[string]bool // the flags that were given
}

func main() {
	ctx, stop := withSignals(context.Background())
	context.AfterFunc(ctx, stop) // a second one kills
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr, progressOn(os.Stdout, os.Stderr)))
}

// run is main: it returns the exit code. p is where progress is shown.
func run(ctx context.Context, args []string, stdout, stderr io.Writer, p *progress) int {
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
		code, err = measure(ctx, opt, stdout, p)
	}
	if err != nil {
		fmt.Fprintf(stderr, "batchbench: %v\n", oneLine(err))
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
	f.DurationVar(&opt.duration, "duration", 2*time.Second, "`time` to send each way; given with -listen, time to listen, which otherwise has no end")
	f.StringVar(&opt.read, "read", "", "`way` in which receivers read: "+prompt.key+", the default, which costs the sender nothing;\nor one of "+
		readingKeys()+"; then the table of reading has that way and net's alone.\n-listen reads with batch unless told otherwise")
	f.BoolVar(&opt.json, "json", false, "print JSON, with -listen one object a line")
	f.StringVar(&opt.to, "to", "", "send to `host:port`, where batchbench -listen runs, instead of loopback")
	f.StringVar(&opt.listen, "listen", "", "be the receiving end at `address` and print what arrives each second")
	return f
}

func usage(w io.Writer) {
	fmt.Fprint(w, "Usage: batchbench [flags]\n\nSends and reads UDP datagrams in each available way, checks what arrives and prints tables.\n\n")
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
	if bytes := opt.memory(); bytes > maxMemory {
		return fmt.Errorf("-size %d, -batch %d, -senders %d and -receivers %d take %d MiB, more than %d",
			opt.size, opt.batch, opt.senders, opt.receivers, bytes>>20, maxMemory>>20)
	}
	if err := opt.exclude(); err != nil {
		return err
	}
	if err := opt.findReading(); err != nil {
		return err
	}
	return opt.resolve()
}

// memory is about what a measurement takes: more than an int has, where it has
// 32 bits.
func (opt *options) memory() int64 {
	const slotBytes = 1 << 10 // what the ways make of a slot, each its own
	const receiverBytes = 4 << 10
	slots := int64(opt.senders) * int64(slotCount(opt))
	flows := int64(opt.senders) * int64(opt.receivers)
	mailbags := int64(opt.receivers) * int64(readCount(opt.size))
	return slots*int64(opt.size+slotBytes) + flows*(windowSize/8) + mailbags*int64(opt.size) + int64(opt.receivers)*receiverBytes
}

// findReading is what -read says.
func (opt *options) findReading() (err error) {
	name := opt.read
	if !opt.set["read"] {
		name = prompt.key
		if opt.set["listen"] {
			name = "batch"
		}
	}
	if opt.set["listen"] && name == prompt.key {
		return fmt.Errorf("-listen waits, and -read %s does not", name)
	}
	opt.reading, err = readingOf(name)
	return err
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

// exclude rejects the flags that mean nothing beside -to or -listen.
func (opt *options) exclude() error {
	var mode string
	var others []string
	switch {
	case opt.set["listen"]:
		mode, others = "listen", []string{"to", "size", "batch", "receivers", "senders"}
	case opt.set["to"]:
		mode, others = "to", []string{"receivers", "read"}
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
