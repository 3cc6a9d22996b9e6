// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

package batchconn

import (
	"bytes"
	"errors"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/batchconn/batchconn/internal/sys"
)

// Segmentation offload.
//
// A run of neighbouring messages of one size to one destination goes to the
// kernel as one message, with a control message that says where to cut it
// (udp(7), UDP_SEGMENT). The planner finds the runs; it is a function of the
// messages and the limits alone. What the socket may do at all is probed, and
// what a destination refused is remembered for a while.

const (
	// maxSegments is UDP_MAX_SEGMENTS. The kernel takes 128 since 2024, but
	// hosts behind virtio still check 64.
	maxSegments = 64

	// maxSegmented bounds the payload of a segmented message: by that of one
	// IPv4 datagram, because the kernel builds it as one before it cuts it.
	maxSegmented = 65507

	// pacedHeaders bounds the bytes before each payload that pacing counts:
	// those of Ethernet, IPv6 and UDP (qdisc_pkt_len_init, net/core/dev.c).
	pacedHeaders = 14 + 40 + 8
)

// segmentLimits are what a run may be.
type segmentLimits struct {
	segments int  // maximum of datagrams; below 2 there are no runs
	tooLarge int  // the smallest size that the destination refused; 0 if none was
	headers  int  // bytes that the kernel counts as if they were payload
	paced    int  // maximum of bytes, headers included, that may leave at once; 0: any
	even6    bool // to IPv6 addresses no shorter last, see sys.RunLimits
}

// run says which of msgs, from the first, can go as one segmented message.
func (l segmentLimits) run(msgs []OutputMessage) run {
	limit := min(l.segments, len(msgs))
	first := &msgs[0]
	if limit < 2 || msgs[1].Addr != first.Addr {
		return run{n: 1}
	}
	size := first.payload()
	if size == 0 || l.tooLarge != 0 && size >= l.tooLarge || !sys.Segmentable(first.Control) {
		return run{n: 1}
	}
	if l.paced != 0 {
		limit = min(limit, l.paced/(size+pacedHeaders))
	}
	left := min(maxSegmented, maxSegments*size-l.headers) - size
	vectors := sys.MaxVectors - len(first.Vectors)
	n := 1
	for ; n < limit; n++ {
		m := &msgs[n]
		last := m.payload()
		left -= last
		vectors -= len(m.Vectors)
		if last == 0 || last > size || left < 0 || vectors < 0 || m.Addr != first.Addr || !sameControl(m.Control, first.Control) {
			break
		}
		if last < size { // the kernel cuts the rest that is shorter only at the end
			if l.even6 && !is4(first.Addr.Addr()) {
				break
			}
			return run{n + 1, size}
		}
	}
	if n == 1 {
		size = 0
	}
	return run{n, size}
}

// is4 reports whether datagrams to an address are IPv4's. The connected peer
// has none here.
func is4(to netip.Addr) bool { return to.Is4() || to.Is4In6() }

func sameControl(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0] || bytes.Equal(a, b))
}

// A gso knows whether a Conn may segment, and if not, why.
type gso struct {
	raw      syscall.RawConn
	mode     GSOMode
	segments int32 // short, for the size of a Conn; Config.MaxSegments, within the kernel's limit
	headers  int32 // see segmentLimits
	refusals refusals

	stale atomic.Bool              // the user was at the socket's options: probe again
	more  atomic.Bool              // the user sent with MSG_MORE: a datagram may be open, and a whole run would be added to it
	state atomic.Pointer[gsoState] // nil while somebody looks

	mu sync.Mutex // held while state is replaced
}

// A gsoState is what the last probe found. disabledReason is empty if
// segmentation is on; else it is on again at retry, unless that is zero.
type gsoState struct {
	disabledReason string
	retry          time.Time
	eioUntil       time.Time // until when eioReason holds, whatever the options are meanwhile
	runs           sys.RunLimits
	errorQueue     bool // see sys.HasErrorQueue
}

func (g *gso) init(raw syscall.RawConn, cfg *Config) {
	g.raw, g.mode, g.segments, g.headers = raw, cfg.GSO, maxSegments, int32(sys.CountedHeaders)
	if cfg.MaxSegments > 0 {
		g.segments = int32(min(maxSegments, cfg.MaxSegments))
	}
	g.stale.Store(true) // what the socket may do is looked at when it first matters: most sockets send no runs
	if sys.HaveBatchCall && g.ownReason() == "" {
		segmentTest.result(true)
	}
}

// probe asks the socket anew, one caller at a time.
func (g *gso) probe() *gsoState {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s := g.current(); s != nil {
		return s
	}
	was := g.state.Load()
	g.state.Store(nil)   // before stale: a caller that comes now waits for what we find
	g.stale.Store(false) // before looking: an option that is changed now makes it stale again
	s := g.look()
	if was != nil {
		s.eioUntil = was.eioUntil
	}
	if s.disabledReason == "" && time.Now().Before(s.eioUntil) {
		s.disabledReason, s.retry = eioReason, s.eioUntil
	}
	g.state.Store(s)
	if s.disabledReason == reasonUntested {
		g.stale.Store(true) // the next send asks again
	}
	return s
}

// current is what the last probe found, or nil if it is time for another.
func (g *gso) current() *gsoState {
	if g.stale.Load() { // before state, which is nil once stale is not
		return nil
	}
	s := g.state.Load()
	if s != nil && !s.retry.IsZero() && !time.Now().Before(s.retry) {
		return nil
	}
	return s
}

// found is what a probe finds now.
func (g *gso) found() *gsoState {
	if s := g.current(); s != nil {
		return s
	}
	return g.probe()
}

// paced is how many bytes may leave at once: a millisecond of
// SO_MAX_PACING_RATE, as large as the kernel makes TCP's segmented messages
// (tcp_tso_autosize, net/ipv4/tcp_output.c).
func (s *gsoState) paced() int {
	return int(min(s.runs.PacingRate/1000, 1<<30))
}

// look looks at the socket's options, and finds out whether segmentation is on.
func (g *gso) look() *gsoState {
	s := new(gsoState)
	err := g.raw.Control(func(fd uintptr) {
		s.disabledReason = sys.NoSegmentsReason(fd)
		s.runs, s.errorQueue = sys.RunLimitsOf(fd), sys.HasErrorQueue(fd)
	})
	switch own := g.ownReason(); {
	case own != "":
		s.disabledReason = own
	case err != nil:
		s.disabledReason = err.Error()
	case s.disabledReason != "":
	case s.runs.PacingRate != 0 && s.paced() < 2*(1+pacedHeaders):
		s.disabledReason = "SO_MAX_PACING_RATE is below two datagrams a millisecond"
	default:
		s.disabledReason = untestedReason()
	}
	return s
}

// ownReason says why segmentation is off whatever the socket's options are, or
// nothing.
func (g *gso) ownReason() string {
	switch {
	case g.mode == GSOOff:
		return "Config.GSO is GSOOff"
	case g.segments < 2:
		return "Config.MaxSegments is 1"
	case g.more.Load():
		return "MSG_MORE was used"
	case os.Getenv("BATCHCONN_GSO") == "off":
		return "BATCHCONN_GSO=off in the environment"
	case g.mode == GSOOn:
		return ""
	}
	return damagedRelease()
}

var damagedRelease = sys.DamagedRelease // replaced by tests: this kernel may be a good one

// disabledReason is why segmentation is off now, or empty.
func (g *gso) disabledReason() string { return g.found().disabledReason }

// limits are those of runs sent with flags.
func (g *gso) limits(flags int) segmentLimits {
	if flags&^sys.HarmlessFlags != 0 {
		if flags&sys.MsgMore != 0 && !g.more.Swap(true) {
			g.stale.Store(true)
		}
		return segmentLimits{}
	}
	s := g.found()
	if s.disabledReason != "" {
		return segmentLimits{}
	}
	return segmentLimits{segments: int(g.segments), headers: int(g.headers), paced: s.paced(), even6: s.runs.Even6}
}

// remember notes that a destination refused a run and took its datagrams
// plainly.
func (g *gso) remember(r refusal) {
	now := time.Now()
	if g.refusals.table().add(r, now) {
		g.disable(now.Add(eioRetry))
	}
}

const eioReason = "EIO from several destinations: their device cannot segment"

// disable turns segmentation off because of EIO.
func (g *gso) disable(until time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := new(gsoState)
	if was := g.state.Load(); was != nil {
		*s = *was
	}
	s.disabledReason, s.retry, s.eioUntil = eioReason, until, until
	g.state.Store(s)
}

// isRefusal reports whether err, of a segmented message, may be about the
// segmentation, and nothing of the message has left, so that its datagrams can
// go plainly. In the kernel all checks but those named are made before the
// message is cut (udp_send_skb in net/ipv4/udp.c, udp_v6_send_skb in
// net/ipv6/udp.c; the filters of OUTPUT and POSTROUTING, and those of cgroups,
// see it whole):
//
//   - EINVAL: too many segments, SO_NO_CHECK, and before 6.14 segments longer
//     than the path MTU.
//   - EMSGSIZE: longer than the path MTU. Behind a filter that reroutes it, the
//     message is cut before each segment is compared with the new MTU. IPv4
//     with DF refuses all of them, whatever their length (ip_fragment,
//     net/ipv4/ip_output.c), IPsec stops at the first (xfrm_output_gso,
//     net/xfrm/xfrm_output.c), and IPv6 those that are too long: therefore
//     sys.RunLimits.Even6. Without DF they are fragmented and there is no
//     error.
//   - EIO: IPsec, a device without checksums, UDP-Lite.
//   - EPERM: a filter's verdict on the whole message.
//
// ENOBUFS and ENOMEM are none: a queue may have taken some segments. Two cases
// cannot be told from a refusal, though a part has left. Both are of a filter
// that reroutes runs into IPsec: a security association whose limit of bytes or
// packets ends within a run gives EINVAL, and a filter that drops some of the
// encrypted packets gives EPERM.
func isRefusal(err error) bool {
	return errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.EMSGSIZE) ||
		errors.Is(err, syscall.EIO) || errors.Is(err, syscall.EPERM)
}
