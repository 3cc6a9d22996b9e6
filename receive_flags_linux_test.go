// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"github.com/batchconn/batchconn/internal/sys"
)

// flagReads read one message with flags, of so many vectors where a call has
// vectors.
var flagReads = map[string]func(c *Conn, r roomFor, flags int) (gotten, error){
	"ReceiveMessages": func(c *Conn, r roomFor, flags int) (gotten, error) {
		msgs := []InputMessage{{Vectors: r.vectors, Control: r.control}, {Vectors: [][]byte{make([]byte, 100)}}}
		if flags&unix.MSG_PEEK == 0 {
			msgs = msgs[:1]
		}
		_, err := c.ReceiveMessages(nil, msgs, flags)
		return gottenOf(&msgs[0], r), err
	},
	"ReceiveMessage": func(c *Conn, r roomFor, flags int) (gotten, error) {
		m := InputMessage{Vectors: r.vectors, Control: r.control}
		_, err := c.ReceiveMessage(nil, &m, flags)
		return gottenOf(&m, r), err
	},
	"ReadBatch": func(c *Conn, r roomFor, flags int) (gotten, error) {
		ms := []ipv4.Message{{Buffers: r.vectors, OOB: r.control}}
		_, err := c.ReadBatch(ms, flags)
		return gotten{joined(r.vectors, ms[0].N), ms[0].N, r.control[:ms[0].NN], ms[0].Flags, unmapped(addrPort(ms[0].Addr))}, err
	},
}

func gottenOf(m *InputMessage, r roomFor) gotten {
	return gotten{joined(r.vectors, m.BytesReceived), m.BytesReceived, r.control[:m.ControlReceived], m.Flags, m.Addr}
}

// roomInPieces is a room of many vectors.
func roomInPieces(n, size, control int) roomFor {
	return roomFor{pieces(n, size), make([]byte, control)}
}

// TestErrorQueuePastHeld: MSG_ERRQUEUE reads the kernel's queue of errors past
// what is held and past an error that is pending, never waits, and leaves what
// is held; also with more vectors than the kernel takes.
func TestErrorQueuePastHeld(t *testing.T) {
	if sys.MsgErrQueue == 0 {
		t.Skip("no error queue on the portable path")
	}
	inNamespace(t, testErrorQueuePastHeld)
}

func testErrorQueuePastHeld(t *testing.T, _ *loopback) {
	in, out, to := coalescing(t)
	control(t, in, option(unix.SOL_IP, unix.IP_RECVERR, 1))
	lost := netip.MustParseAddrPort("127.0.0.1:9")
	sent, read := 0, 0
	for name, call := range flagReads {
		for _, vectors := range []int{1, sys.MaxVectors + 1} {
			makeDeep(t, in, out, to)
			sendRuns(t, out, to, 1, &sent)
			readRuns(t, readNow(in), 1, &read) // two are held
			sendUnreachable(t, net.UDPAddrFromAddrPort(to), net.UDPAddrFromAddrPort(lost), 3, 0)
			awaitError(t, in.conn())
			got, err := call(in, roomInPieces(vectors, 1500, 200), unix.MSG_ERRQUEUE)
			if err != nil || len(got.payload) != 0 || got.from != lost || got.flags&unix.MSG_ERRQUEUE == 0 || !strings.Contains(string(got.control), string(cmsgErr(unix.ECONNREFUSED))) {
				t.Errorf("%s, %d vectors: %v, %v", name, vectors, got, err)
			}
			if got, err := call(in, roomInPieces(vectors, 1500, 200), unix.MSG_ERRQUEUE); !errors.Is(err, ErrWouldBlock) {
				t.Errorf("%s, %d vectors, empty: %v, %v", name, vectors, got, err)
			}
			readRuns(t, readNow(in), 2, &read)
		}
	}
}

// cmsgErr is the beginning of a struct sock_extended_err.
func cmsgErr(errno unix.Errno) []byte { return append(uint32s(uint32(errno)), unix.SO_EE_ORIGIN_ICMP) }

// TestErrorQueuePastPending: a pending error of the Conn is not for a read of
// the error queue.
func TestErrorQueuePastPending(t *testing.T) {
	if sys.MsgErrQueue == 0 {
		t.Skip("no error queue on the portable path")
	}
	in, _, _ := readPair(t, nil)
	in.recv.addPending(unix.ENOBUFS)
	for name, call := range flagReads {
		if _, err := call(in, roomInPieces(1, 100, 0), unix.MSG_ERRQUEUE); !errors.Is(err, ErrWouldBlock) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, _, err := in.ReceiveFrom(nil, make([]byte, 10), unix.MSG_ERRQUEUE); !errors.Is(err, ErrWouldBlock) {
		t.Errorf("ReceiveFrom: %v", err)
	}
	if _, err := in.Read(make([]byte, 10)); !errors.Is(err, unix.ENOBUFS) {
		t.Errorf("the next read: %v", err)
	}
}

// TestFlagsManyVectors: MSG_PEEK and MSG_TRUNC, control messages and truncation
// are for a message of more vectors than the kernel takes what they are for one
// of a single vector.
func TestFlagsManyVectors(t *testing.T) {
	for _, k := range readKinds {
		for _, mode := range []GROMode{GROOff, GROOn} {
			t.Run(fmt.Sprint(k.name, mode), func(t *testing.T) {
				w := k.world(t, &Config{GRO: mode})
				defer w.close()
				w.askControl(t, 7, w.conn.recv.isIPv6)
				for name, call := range flagReads {
					for _, flags := range []int{0, unix.MSG_PEEK, unix.MSG_TRUNC, unix.MSG_PEEK | unix.MSG_TRUNC} {
						for _, room := range []int{0, 10, 1199, 1200, 5000} {
							for _, control := range []int{0, 16, 20, 256} {
								w.compareFlags(t, name, call, flags, room, control)
							}
						}
					}
				}
			})
		}
	}
}

// compareFlags sends two datagrams, reads them with flags, and if that peeked
// without.
func (w *readWorld) compareFlags(t *testing.T, name string, call func(*Conn, roomFor, int) (gotten, error), flags, room, control int) {
	t.Helper()
	w.send(t, 0, 2, 1200, 0, 0, tosFor(w.to[0][0].Addr(), 3))
	flagsOf := []int{flags, flags}
	if flags&unix.MSG_PEEK != 0 {
		flagsOf = []int{flags, flags, 0, flags, 0}
	}
	for i, f := range flagsOf {
		got, err := call(w.conn, roomInPieces(sys.MaxVectors+1, room, control), f)
		want := w.recvmsg(t, newRoom([]int{room}, control), f)
		if err != nil || !got.same(want) {
			t.Fatalf("%s, call %d, room %d, control %d, flags %#x:\n%v, %v, want\n%v", name, i, room, control, f, got, err, want)
		}
	}
}

// allPeeks are the reads that can peek.
func allPeeks() map[string]func(c *Conn, r roomFor, flags int) (gotten, error) {
	peeks := maps.Clone(flagReads)
	peeks["ReceiveFrom"] = func(c *Conn, r roomFor, flags int) (gotten, error) {
		r.vectors[0] = make([]byte, 100) // for all of it, which testPeek takes back
		n, from, err := c.ReceiveFrom(nil, r.vectors[0], flags)
		return gotten{joined(r.vectors[:1], n), n, nil, 0, from}, err
	}
	return peeks
}

// TestPeekShowsNext: the next read, by whatever name, gets what MSG_PEEK has
// shown, in the kernel or held.
func TestPeekShowsNext(t *testing.T) {
	for _, mode := range []GROMode{GROAuto, GROOn, GROOff} {
		in, out, to := readPair(t, &Config{GRO: mode})
		for name, peek := range allPeeks() {
			for _, next := range readCalls {
				for held := range 3 { // 0: all in the kernel
					for i := range 3 {
						if _, err := out.SendTo(nil, contents(i, 50+i), to, 0); err != nil {
							t.Fatal(err)
						}
					}
					testPeek(t, in, name, peek, next, held)
				}
			}
		}
		nothingMore(t, in)
	}
}

func testPeek(t *testing.T, in *Conn, name string, peek func(*Conn, roomFor, int) (gotten, error), next readCall, held int) {
	t.Helper()
	what := fmt.Sprintf("%s, then %s, after %d", name, next.name, held)
	in.SetReadDeadline(time.Now().Add(patience)) // if what was shown is gone
	for i := range 3 {
		if i >= held {
			room := roomInPieces(1+i, 100, 64)
			shown, err := peek(in, room, unix.MSG_PEEK)
			if want := contents(i, 50+i); err != nil || string(shown.payload) != string(want) || !shown.from.IsValid() {
				t.Fatalf("%s: datagram %d is shown as %v, %v", what, i, shown, err)
			}
			for _, v := range room.vectors { // which are the caller's again
				clear(v)
			}
		}
		got, err := next.call(in, []roomFor{newRoom([]int{100}, 64)}, 0)
		if err != nil || len(got) != 1 || string(got[0].payload) != string(contents(i, 50+i)) {
			t.Fatalf("%s: datagram %d is read as %v, %v", what, i, got, err)
		}
	}
}
