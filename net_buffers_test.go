// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/ipv4"

	"github.com/batchconn/batchconn/internal/sys"
)

// What net does not export reaches no socket of ours: an embedded type of
// net's would bring methods along that are found by its own interfaces.

// TestNothingOfNetIsPromoted: no type of ours embeds one of net's, and none has
// lost a method of *net.UDPConn by that.
func TestNothingOfNetIsPromoted(t *testing.T) {
	for _, ours := range []reflect.Type{reflect.TypeFor[Conn](), reflect.TypeFor[Writer]()} {
		checkEmbedded(t, ours, ours.Name())
		udp, ptr := reflect.TypeFor[*net.UDPConn](), reflect.PointerTo(ours)
		for i := range udp.NumMethod() {
			want := udp.Method(i)
			got, ok := ptr.MethodByName(want.Name)
			if !ok || signature(got.Type) != signature(want.Type) {
				t.Errorf("%v.%s: %v, want %v", ptr, want.Name, got.Type, want.Type)
			}
		}
	}
}

func checkEmbedded(t *testing.T, typ reflect.Type, path string) {
	for i := range typ.NumField() {
		f := typ.Field(i)
		inner := f.Type
		if inner.Kind() == reflect.Pointer {
			inner = inner.Elem()
		}
		if !f.Anonymous {
			continue
		}
		if inner.PkgPath() == "net" {
			t.Errorf("%s embeds %v", path, f.Type)
		}
		if inner.Kind() == reflect.Struct {
			checkEmbedded(t, inner, path+"."+f.Name)
		}
	}
}

// signature is a method's type without its receiver.
func signature(m reflect.Type) string {
	var b bytes.Buffer
	for i := 1; i < m.NumIn(); i++ {
		b.WriteString(m.In(i).String() + ",")
	}
	for i := range m.NumOut() {
		b.WriteString(" " + m.Out(i).String())
	}
	return b.String()
}

// TestNoShortCuts: Conn and Writer have no interface that net, io or os look
// for to write past Write.
func TestNoShortCuts(t *testing.T) {
	world := plainKind.world(t, 1, nil)
	for _, c := range []any{world.conn, NewWriter(world.conn, nil)} {
		if _, ok := c.(io.ReaderFrom); ok {
			t.Errorf("%T is an io.ReaderFrom", c)
		}
		if _, ok := c.(io.WriterTo); ok {
			t.Errorf("%T is an io.WriterTo", c)
		}
		if _, ok := c.(io.StringWriter); ok {
			t.Errorf("%T is an io.StringWriter", c)
		}
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := reflect.TypeOf(raw).MethodByName("PollFD"); ok { // which os.File.WriteTo looks for
			t.Errorf("SyscallConn of %T shows its descriptor to os", c)
		}
	}
}

// TestBuffersInOrder: net.Buffers, io.Copy and os.File.WriteTo write by Write:
// to a Writer in the order of writing, by its deadline, and after Close not at
// all.
func TestBuffersInOrder(t *testing.T) {
	world := connectedKind.world(t, 1, nil)
	w := NewWriter(world.conn, &WriterConfig{MaxDelay: -1})
	file, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	file.WriteString("file")
	file.Seek(0, io.SeekStart)
	w.Write([]byte("first"))
	buffers := net.Buffers{[]byte("second"), []byte("third")}
	if n, err := buffers.WriteTo(w); n != 11 || err != nil {
		t.Errorf("Buffers.WriteTo = %d, %v", n, err)
	}
	if n, err := io.Copy(w, &net.Buffers{[]byte("copied")}); n != 6 || err != nil {
		t.Errorf("io.Copy = %d, %v", n, err)
	}
	if n, err := file.WriteTo(w); n != 4 || err != nil {
		t.Errorf("File.WriteTo = %d, %v", n, err)
	}
	w.Write([]byte("last"))
	if s := world.conn.Stats(); s.Messages != 0 {
		t.Errorf("%d left before Flush", s.Messages)
	}
	if err := w.Flush(nil); err != nil {
		t.Fatal(err)
	}
	var want [][]byte
	for _, s := range []string{"first", "second", "third", "copied", "file", "last"} {
		want = append(want, []byte(s))
	}
	world.inboxes[0].expect(t, want)
	w.Close()
	buffers = net.Buffers{[]byte("late")}
	_, err = buffers.WriteTo(w)
	checkError(t, err, net.ErrClosed)
}

// TestBuffersOnConn: what a Conn's Write may not do, net.Buffers may not
// either.
func TestBuffersOnConn(t *testing.T) {
	world := connectedKind.world(t, 1, &Config{NonBlocking: true, GSO: GSOOff})
	k := follow(world.conn, nil)
	k.play = func(_ int, ms []ipv4.Message) (int, error) {
		return 0, os.NewSyscallError("sendmmsg", sys.EWOULDBLOCK)
	}
	buffers := net.Buffers{[]byte("x")}
	n, err := buffers.WriteTo(world.conn)
	if checkError(t, err, ErrWouldBlock); n != 0 {
		t.Errorf("Buffers.WriteTo = %d", n)
	}
	world.conn.SetWriteDeadline(time.Now().Add(-time.Second))
	buffers = net.Buffers{slices.Repeat([]byte("x"), 10)}
	_, err = buffers.WriteTo(world.conn)
	checkError(t, err, os.ErrDeadlineExceeded)
}
