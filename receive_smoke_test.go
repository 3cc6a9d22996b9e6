package batchconn

import (
	"fmt"
	"net"
	"testing"
	"time"
)

func TestSmokeReceive(t *testing.T) {
	for _, mode := range []GROMode{GROAuto, GROOff, GROOn} {
		in := listen(t, "udp4", "127.0.0.1")
		growBuffer(in)
		c, err := New(in, &Config{GRO: mode})
		if err != nil {
			t.Fatal(err)
		}
		out, _ := New(listen(t, "udp4", "127.0.0.1"), nil)
		buf := make([]byte, 100*1200)
		total := 0
		for round := range 30 {
			msgs := AppendSegments(nil, addrPortOf(in), buf[:64*1200-round*7], 1200, nil)
			if _, err := out.SendMessages(nil, msgs, 0); err != nil {
				t.Fatal(err)
			}
			p := make([]byte, 2000)
			for i := range 64 {
				c.SetReadDeadline(time.Now().Add(time.Second))
				var n int
				var err error
				if i%3 == 0 {
					n, _, err = c.ReadFrom(p)
				} else if i%3 == 1 {
					ms := []InputMessage{{Vectors: [][]byte{p}}}
					_, err = c.ReceiveMessages(nil, ms, 0)
					n = ms[0].BytesReceived
				} else {
					n, _, err = c.ReceiveFrom(t.Context(), p, 0)
				}
				want := 1200
				if i == 63 {
					want -= round * 7
				}
				if err != nil || n != want {
					t.Fatal(mode, round, i, n, err)
				}
				total++
			}
		}
		fmt.Printf("%+v\n", c.Stats())
		var _ net.PacketConn = c
	}
}
