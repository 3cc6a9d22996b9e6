// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Package batchconn sends many UDP datagrams in one call: GLib's
// g_socket_send_messages on top of any [net.UDPConn], with Go's contexts,
// deadlines and errors.
//
// A [Conn] is made of a *net.UDPConn with [New] and has all its methods, so it
// is a [net.PacketConn], a [net.Conn] and a [syscall.Conn] as before. To these
// it adds sends that take a slice of messages:
//
//   - [Conn.SendMessages] sends them in order and stops at the first that
//     cannot be sent.
//   - [Conn.SendEach] goes on past such a message: for a fan-out.
//   - [Conn.SendMessage] and [Conn.SendTo] send one.
//   - [Conn.WriteBatch] and [Conn.ReadBatch] have the shape of
//     golang.org/x/net's PacketConn and take its place.
//   - [AppendSegments] makes the messages of one long buffer.
//   - [Conn.WaitWritable] waits for room in the socket.
//
// A [Writer] makes batches for code that calls WriteTo in a loop.
//
// A message is an [OutputMessage]: a destination, and vectors that are gathered
// into one datagram. Payloads are not copied on the way to the kernel, but for
// messages of more vectors than the kernel takes, and on Windows.
//
// # Counts
//
// All sends but SendEach return how many messages were sent, always the first n
// of those given, and an error only if n is 0. So a loop that sends the rest is
// complete:
//
//	for len(msgs) > 0 {
//		n, err := conn.SendMessages(ctx, msgs, 0)
//		if err != nil {
//			return err
//		}
//		msgs = msgs[n:]
//	}
//
// If what stopped a call still stands, the next call says what it is. The
// kernel reports some errors only once, those that ICMP leaves pending on a
// connected socket: ECONNREFUSED, EHOSTUNREACH, ENETUNREACH, and on Unix
// ENOPROTOOPT, EHOSTDOWN, EPROTO, EACCES and Linux's ENONET. Such an error, when met after n > 0,
// is kept, and the next send, of whatever goroutine, returns it before sending
// anything; of several, each. EMSGSIZE can be pending too (a router asked for
// shorter datagrams), but mostly is of one message, and stands; it is kept only if
// it met a message that then left at a second try, and else may be lost.
//
// On a socket that is not connected there are such errors only if it has an error
// queue (IP_RECVERR, ip(7)). They are of earlier messages, to any destination, so the
// message that meets one is sent again, and the error is left to those who read the
// queue.
//
// "Sent" means taken by the kernel, as always with UDP: a send waits for room in
// the socket it sends from, and what finds a receiver's buffer full is dropped
// without an error.
//
// SendEach returns how many messages were dealt with, each either sent or failed
// for a reason of its own, and a *[BatchError] if any failed. It may return an
// error with any n. What was pending on a connected socket is told as what ended
// the call, never as a message's.
//
// OutputMessage.BytesSent is set for each message that was sent, to its payload
// bytes. Of those that were not sent it is untouched, so a call costs what it
// sends, however long its slice is. n, or the BatchError, says which were sent.
//
// # Blocking, cancelling, deadlines
//
// A send blocks until all messages are sent, however many they are, unless its
// flags hold [MsgDontWait] or the Conn was made with Config.NonBlocking. Then it
// sends what fits at once, or returns [ErrWouldBlock]; it never waits behind a
// sender that waits for room. Under Config.NonBlocking that holds for Write,
// WriteTo and their kin too; else these are package net's own.
//
// When ctx is done, that call ends, and no other: with n, if anything was sent,
// else with an error that Is ctx.Err(). A nil ctx is never done. The context is
// looked at before each call to the kernel, which carries at most 1024
// datagrams, and wakes a send that waits. It does not touch the write deadline.
//
// The write deadline and Close work as in package net and wake those who wait:
// [os.ErrDeadlineExceeded], [net.ErrClosed]. Set deadlines and close through the
// Conn; a deadline set on the *net.UDPConn behind it is not seen.
//
// Before anything is sent a call checks in this order: closed, context done, no
// messages (0, nil), an error that was kept, the write deadline, the first message.
//
// Senders that wait take turns, in order of arrival, and each turn ends when
// something has left. Newcomers that may wait queue behind them. Non-blocking
// sends do not queue, so they could take all the room there is; therefore, when
// the sender whose turn it is has waited for about 30 ms in vain, non-blocking
// sends are answered ErrWouldBlock until it has sent something.
//
// # Errors
//
// An error of a send is one *[net.OpError] with Op "write" around an
// *[os.SyscallError], the context's error, or one of the errors named here, and
// never nested twice; SendEach puts such into its *BatchError. Test it with
// [errors.Is] and [errors.As]. What can be wrong with a message:
//
//   - no destination on an unconnected socket: syscall.EDESTADDRREQ
//   - a destination on a connected one: [net.ErrWriteToConnected]
//   - an address of the wrong family: *[net.AddrError]
//   - too long: syscall.EMSGSIZE
//   - in WriteBatch, an Addr that is neither nil nor a *[net.UDPAddr] with an
//     IP: syscall.EINVAL
//   - refused by the kernel: its errno
//
// ErrWouldBlock Is syscall.EAGAIN, and unlike that is no Timeout: no deadline has
// passed.
//
// # Flags
//
// Flags go to the kernel as they are (sendmsg(2)), with MSG_DONTWAIT added. A
// system call that a signal interrupted is made again. On Windows there are no
// flags but MsgDontWait: others are [errors.ErrUnsupported].
//
// # Concurrency and ownership
//
// All methods may be called from any number of goroutines at once. Senders do
// not wait for each other while there is room. The messages of one call keep
// their order; those of two calls may interleave.
//
// Payloads and control messages are only read, and not after the call returned
// (but with the flag MSG_ZEROCOPY, with which they are the kernel's until it says
// that it is done); so one payload may be in any number of messages and calls at once. A slice of
// messages belongs to one call at a time, since BytesSent is written. The Conn
// owns the *net.UDPConn that New was given.
//
// A call that sends everything without waiting starts no goroutine and no timer,
// with any context; where the system has a batch call it allocates nothing.
//
// # Segmentation offload
//
// On Linux a run of neighbouring messages goes to the kernel as one message,
// which cuts it into datagrams after most of its work is done (udp(7),
// UDP_SEGMENT, kernel 4.18 and later). A run has one destination, equal control
// messages, no empty message, and one size but for the last, which may be
// shorter. It holds at most 64 datagrams (Config.MaxSegments) and 65507 bytes.
// Nothing has to be changed for it, and nothing is copied: payloads, counts,
// order and errors are those of plain sending. To get long runs, put the
// messages to one destination next to each other and cut payloads to one size.
//
// It is off where it would change what is sent: with flags or control messages
// that act once for each kernel message, on sockets with options such as
// UDP_CORK, IP_RECVERR, TX timestamps or IP options, and on kernels that do not
// know it or are known to damage it. With SO_MAX_PACING_RATE a run holds no more
// than a millisecond of that rate. [Stats].GSOReason says why it is off. The
// socket's options are read in New, and again after Control of the RawConn that
// Conn.SyscallConn returned. A segmented message that the kernel refuses, for a
// path with a small MTU or a device that cannot do it, is sent again plainly,
// and its destination is remembered for ten seconds. After EIO from three
// destinations within a minute it is off for the Conn for an hour; once MSG_MORE
// was used, for good. A run ends where its vectors or control messages are more
// than one message may have.
//
// What is different: a queue or filter that drops takes the whole run; a run
// leaves as one burst; and under the default path MTU discovery the DF bit is not
// set on segmented datagrams over IPv4. A router with a smaller MTU then cuts them
// into fragments, and since the kernel numbers the datagrams of each run from where
// the socket's counter stands, those of neighbouring runs have the same
// identifications: where fragments are lost, those of different datagrams may be put
// together (RFC 4963), and only the checksum tells. So set Config.DontFragment and
// keep datagrams to what the path takes (1200 bytes mostly do). [GSOOff], and BATCHCONN_GSO=off in the environment,
// turn it off; [GSOOn] allows it also on the kernels that are avoided, which is
// a guess by their number.
//
// # Differences from GLib
//
//   - A bad message ends the batch before it; g_socket_send_messages refuses the
//     whole call if one address cannot be converted.
//   - MsgDontWait makes a call non-blocking on a blocking Conn too; with GLib
//     only g_socket_set_blocking does.
//   - Blocking is chosen at New, and for one call by MsgDontWait; it cannot be
//     changed later.
//   - More than 1024 messages are all sent; GLib sends 1024 and returns.
//   - Errors that the kernel reports only once are kept for the next send.
//   - A timeout is a point in time, as everywhere in Go, and not a time of
//     inactivity.
//
// # Platforms
//
// On Linux a call is sendmmsg(2), by way of golang.org/x/net. Where the kernel
// answers ENOSYS to that, or a seccomp filter refuses it (EPERM, EACCES), on Android, macOS, the BSDs, Solaris, illumos and AIX,
// it is one sendmsg(2) for each datagram, and on Windows one write of package
// net. On all but Windows a datagram by itself, of one vector and without control
// messages, flags or a zone, leaves with sendto(2) instead, unless WriteBatch
// sends it. Promises are the same everywhere but for what follows.
//
//   - Windows: a non-blocking send asks WSAPoll for room and then writes, so it
//     can wait after all if another sender takes the room in between. Waiting is
//     polling every millisecond; so it is on AIX.
//   - On the BSDs, macOS and AIX an empty datagram with control messages, and on
//     Solaris and illumos any datagram with them, cannot be sent to an IPv4
//     address from an unconnected IPv6 socket: [errors.ErrUnsupported].
//   - macOS and the BSDs report a full queue of the device as ENOBUFS, which is
//     not a full socket: it is returned at once, not waited for. On Linux it is
//     waited for if the socket has no room, as of a large datagram whose fragments
//     do not all fit.
//   - Linux: on a connected socket, one sendmmsg can meet a pending error (of a
//     peer that is gone) after its first datagram. The kernel then forgets that
//     error, and the send goes on as if there had been none. Who must know of each
//     sets IP_RECVERR and reads the error queue.
//
// The package does not build for Plan 9, js and wasip1.
package batchconn
