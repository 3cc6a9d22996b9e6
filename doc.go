// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Package batchconn sends and receives many UDP datagrams in one call. It puts
// GLib's g_socket_send_messages and g_socket_receive_messages on top of any
// [net.UDPConn], with Go's contexts, deadlines and errors.
//
// [New] makes a [Conn] of a *net.UDPConn. The Conn has all of its methods, so
// it is a [net.PacketConn], a [net.Conn] and a [syscall.Conn] as before. It
// adds:
//
//   - [Conn.SendMessages], which sends messages in order and stops at the first
//     that cannot be sent; [Conn.SendEach], which goes on past it;
//     [Conn.SendMessage] and [Conn.SendTo], which send one.
//   - [Conn.ReceiveMessages], which receives at least one message;
//     [Conn.ReceiveMessage] and [Conn.ReceiveFrom], which receive one.
//   - [Conn.WriteBatch] and [Conn.ReadBatch], which have the shape of
//     golang.org/x/net's PacketConn and take its place.
//   - [Conn.WaitWritable] and [Conn.WaitReadable], which wait for the socket.
//   - [AppendSegments], which makes messages of one long buffer.
//
// A [Writer] makes batches for code that calls WriteTo in a loop. A
// [ControlMessage] is what travels beside a datagram: ECN, TTL, addresses,
// times.
//
// # Counts
//
// A call returns how many messages it has sent or filled, always the first n of
// those given, and an error only if n is 0. (SendEach, below, is the
// exception.) So this loop sends all of them:
//
//	for len(msgs) > 0 {
//		n, err := conn.SendMessages(ctx, msgs, 0)
//		if err != nil {
//			return err
//		}
//		msgs = msgs[n:]
//	}
//
// If what ended a call still stands, the next call says what it is. Messages
// beyond the first n are untouched, BytesSent included.
//
// "Sent" means taken by the kernel, as always with UDP. A send waits for room
// in the socket that it sends from. If the buffer of a receiver is full, the
// datagram is dropped, and nobody is told. [Stats].Dropped counts what this
// socket dropped.
//
// SendEach returns how many messages were dealt with. Each of them was either
// sent or failed for a reason of its own. If any failed, the error is a
// *[BatchError], with any n.
//
// # Waiting
//
// A send blocks until all messages are sent, however many they are. A receive
// blocks until there is at least one datagram, and then returns what there is.
// With the flag [MsgWaitAll] it blocks until all messages are filled. With the
// flag [MsgDontWait], or on a Conn made with Config.NonBlocking, neither waits:
// it does what can be done at once, or returns [ErrWouldBlock].
// Config.NonBlocking holds for the Write family too; the Read family waits all
// the same.
//
// When its context is done, a call ends, and no other call does. It returns n
// if anything was sent or received, else an error that Is ctx.Err(). A nil
// context is never done. The context is looked at before each call to the
// kernel, which carries at most 1024 datagrams, and it wakes a call that waits.
// It does not change the deadlines.
//
// The read deadline, the write deadline and Close work as in package net, and
// they wake calls that wait: [os.ErrDeadlineExceeded], [net.ErrClosed]. Set
// deadlines, and close, through the Conn. A deadline that is set on the
// *net.UDPConn behind it ends no call of this package. Nor should others read
// or write through that: their calls can end with os.ErrDeadlineExceeded while
// a call of the Conn waits.
//
// Before anything is sent a call checks in this order: closed, context done, no
// messages (0, nil), a pending error, the write deadline, the first message.
//
// Senders that wait take turns, in order of arrival. A turn ends when something
// has left. A newcomer that may wait queues behind those that wait already.
// Non-blocking sends do not queue, and could take all the room there is.
// Therefore, once the sender whose turn it is has waited in vain for 30 ms,
// non-blocking sends get ErrWouldBlock until it has sent something. Sending and
// receiving do not wait for each other.
//
// A send that waits is woken when one of net's would be: on Linux, when half of
// the send buffer is free. If another process, or a user of File, always takes
// the room before that, the send waits until its context or deadline ends it.
//
// # Errors
//
// The error of a call is one *[net.OpError], with Op "write" or "read", around
// an *[os.SyscallError], the error of the context, or one of the errors named
// here. It is never nested twice. SendEach puts such errors into its
// *BatchError. Test them with [errors.Is] and [errors.As]. What can be wrong
// with a message:
//
//   - no destination on an unconnected socket: syscall.EDESTADDRREQ
//   - a destination on a connected one: [net.ErrWriteToConnected]
//   - an address of the wrong family: *[net.AddrError]
//   - too long: syscall.EMSGSIZE
//   - in WriteBatch, an Addr that is neither nil nor a *[net.UDPAddr] with an
//     IP: syscall.EINVAL
//   - refused by the kernel: its errno
//
// ErrWouldBlock Is syscall.EAGAIN. Unlike EAGAIN it is not a Timeout, since no
// deadline has passed.
//
// The kernel tells some errors once and then forgets them: those that ICMP
// leaves pending on a connected socket. They are ECONNREFUSED, EHOSTUNREACH and
// ENETUNREACH, on Unix also ENOPROTOOPT, EHOSTDOWN, EPROTO and EACCES, and on
// Linux ENONET. If a call meets such an error when n is above 0, the error
// becomes a pending error of the Conn: the next call, of whatever goroutine and
// in either direction, returns it before it does anything else. EMSGSIZE can be
// pending too (a router asked for shorter datagrams), but is mostly about one
// message. It becomes a pending error only if the message that met it then left
// at a second try; else it may be lost. No message fails for an error of an
// earlier one. SendEach tries the message that met the error again, and if it
// leaves, the call ends with that error.
//
// On a socket that is not connected there are such errors only with an error
// queue (IP_RECVERR, ip(7)). They are of earlier messages, to any destination.
// So the message that meets one is sent again, and the error is left to the
// reader of the queue.
//
// # Flags
//
// Flags go to the kernel as they are (sendmsg(2), recvmsg(2)), with
// MSG_DONTWAIT added. A system call that a signal interrupted is made again. On
// Windows there are no flags except MsgDontWait and MsgWaitAll: others are
// [errors.ErrUnsupported].
//
// # Concurrency and ownership
//
// All methods may be called from any number of goroutines at once. Senders do
// not wait for each other while there is room. The messages of one call keep
// their order; those of two calls may interleave. Two reads never get the same
// datagram.
//
// A slice of messages belongs to one call at a time. Payloads and control
// messages to send are only read, and not after the call has returned, so one
// payload may be in any number of messages and calls at once. With the flag
// MSG_ZEROCOPY they are the kernel's until it says that it is done. The Conn
// owns the *net.UDPConn that New was given.
//
// A call that need not wait starts no goroutine and no timer, with any context.
// Where the system has a batch call it allocates nothing, except that the first
// batch that a Conn sends makes what later ones use.
//
// # Segmentation offload
//
// On Linux a run of neighbouring messages goes to the kernel as one message,
// which cuts it into datagrams after most of its work is done (udp(7),
// UDP_SEGMENT, kernel 4.18 and later). A run has one destination, equal control
// messages, no empty message, and one size, except that the last may be
// shorter. It holds at most 64 datagrams (Config.MaxSegments) and 65507 bytes.
// Nothing has to be changed for it, and nothing is copied: payloads, counts,
// order and errors are those of plain sending. To get long runs, put the
// messages to one destination next to each other, and cut payloads to one size.
//
// It is off where it would change what is sent: with flags or control messages
// that act once for each kernel message, on sockets with options such as
// UDP_CORK, IP_RECVERR, TX timestamps or IP options, and on kernels that do not
// know it or are known to damage it. With SO_MAX_PACING_RATE a run holds no
// more than a millisecond of that rate. [Stats].GSOReason says why it is off.
//
// A segmented message that the kernel refuses, for a path with a small MTU or a
// device that cannot do it, is sent again plainly, and its destination is
// remembered for ten seconds. After EIO from three destinations within a minute
// segmentation is off for the Conn for an hour. Once MSG_MORE was used it is
// off for good. While MSG_MORE leaves a datagram open, what other goroutines
// send is added to that datagram, as with every socket.
//
// What is different: a queue or filter that drops takes the whole run. A
// policer or shaper whose burst is smaller than a run drops all of it: bound
// runs with Config.MaxSegments. Filters and routers on the same machine (veth,
// containers, AF_PACKET, reuseport programs) see the run as one long packet.
// And under the default path MTU discovery segmented datagrams over IPv4 have
// no DF bit, and neighbouring runs have the same identifications. Where a
// router cuts them and loses fragments, parts of different datagrams may be put
// together (RFC 4963), and only the checksum tells. So set Config.DontFragment,
// and keep datagrams to what the path takes (1200 bytes mostly do).
//
// [GSOOff], and BATCHCONN_GSO=off in the environment, turn segmentation off.
// [GSOOn] allows it also on the kernels that are avoided, which is a guess by
// their number.
//
// # Coalescing and reading ahead
//
// On Linux the kernel can hand over a run of datagrams of one sender and size
// as one message (udp(7), UDP_GRO, kernel 5.12 and later). Reads take it apart:
// each datagram has its own sender, length and flags, and the control messages
// of its run. UDP_GRO's own is taken out. A datagram that is longer than the
// buffers of its message is cut, and the rest is lost, as always in UDP; others
// of its run are not touched.
//
// Coalescing is turned on once the queue is found deep, which means that
// several reads in a row did not have to wait. A socket that asks and answers
// stays as it is. While the queue is deep a read may take more from the kernel
// than it was asked for. All reads of the Conn share what was read ahead:
// Receive*, net's Read family and ReadBatch can be mixed. Close drops it, as
// the kernel drops its own queue.
//
// Code that reads the socket itself, through Read of what Conn.SyscallConn
// returned (as x/net's and pion's PacketConn made of a Conn do) or through
// File, turns coalescing and reading ahead off for good before its first read.
// What was read ahead by then is read through the Conn only. If the Conn
// coalesces then, that is everything in the socket's queue. A run that still
// arrives in that moment is seen by such a reader, or by the Conn, as one long
// datagram. A duplicate of the socket that was made before New is not known of,
// nor is another process that has it: if such a one reads, set GROOff. And
// poll(2), and a receive inside Control, do not see what was read ahead;
// WaitReadable does. If the user has set UDP_GRO, reads return what the kernel
// gives, untouched.
//
// [GROOff], and BATCHCONN_GRO=off in the environment, turn it off. [GROOn] has
// it on from New. [Stats].GROReason says why it is off. Before Linux 6.9
// datagrams of different ECN or TTL could be merged, so it is off there on a
// socket that asks for either.
//
// With coalescing the receive buffer holds more datagrams. A full one drops
// whole runs, and Stats.Dropped, like the kernel's own counters, counts a run
// as one.
//
// # Control messages
//
// [Conn.ReceiveControl] chooses what the system adds to the datagrams that a
// socket receives, [ControlMessage] reads it, and makes what travels beside a
// datagram that is sent. Not every system has every field. A dash is a field
// for which ReceiveControl returns [errors.ErrUnsupported], or which Append
// leaves out. "IPv6" means: with IPv6 only.
//
//	receiving  Local  Dst   Interface  TOS   TTL   Time  Dropped
//	Linux      yes    yes   yes        yes   yes   yes   yes
//	macOS      yes    yes   yes        yes   yes   yes   -
//	FreeBSD    yes    yes   yes        yes   yes   yes   -
//	DragonFly  yes    yes   yes        yes   yes   yes   -
//	OpenBSD    yes    yes   yes        IPv6  yes   yes   -
//	NetBSD     yes    yes   yes        IPv6  yes   yes   -
//	Solaris    yes    yes   yes        yes   yes   yes   -
//	AIX        yes    yes   yes        IPv6  yes   -     -
//	Windows    yes    yes   yes        yes   yes   -     -
//
//	sending    Local  Dst   Interface  TOS   TTL   Time  Dropped
//	Linux      yes    -     yes        yes   yes   yes   -
//	macOS      yes    -     yes        yes   IPv6  -     -
//	FreeBSD    yes    -     IPv6       yes   IPv6  -     -
//	DragonFly  yes    -     IPv6       IPv6  IPv6  -     -
//	OpenBSD    yes    -     IPv6       IPv6  IPv6  -     -
//	NetBSD     yes    -     yes        IPv6  IPv6  -     -
//	Solaris    yes    -     yes        yes   IPv6  -     -
//	AIX        IPv6   -     IPv6       IPv6  IPv6  -     -
//	Windows    yes    -     yes        yes   -     -     -
//
// What is not in the tables:
//
//   - On all but Linux and Windows an IPv6 socket adds to an IPv4 datagram only
//     what IPv6's options bring.
//   - macOS sends from Local, or by IfIndex if there is no Local.
//   - FreeBSD and DragonFly send from Local only on a socket that is bound to
//     the wildcard address.
//   - A Windows that does not know IP_RECVTOS gives TOS's ECN bits alone.
//
// Only Linux is tested on the real system. The rest follows the systems'
// headers, documentation and sources as far as they were looked at. Three
// things were not looked up: whether macOS and Solaris take TOS when sending
// over IPv4, how OpenBSD takes Local over IPv4, and what dual-stack sockets do
// on systems other than Linux. Test them on your system before you rely on
// them.
//
// # Limits
//
//   - Congestion control, acknowledgement and retransmission are the user's.
//     One call can send more than the buffer of a receiver holds: enlarge that
//     (SetReadBuffer, up to net.core.rmem_max), and bound what is under way.
//   - Without Config.NonBlocking, Write, WriteTo and similar methods are
//     package net's own. While one of them waits for room, others of them wait
//     behind it, and no context cancels them. The sends of this package do not.
//   - net.Buffers.WriteTo to a Conn makes a datagram of each buffer. To a
//     *net.UDPConn it makes one of all. Use SendMessage.
//   - Where a network card merges (GRO with gro_flush_timeout), the kernel lets
//     empty datagrams overtake those that wait to be merged, on any socket with
//     UDP_GRO, and on no other.
//   - A neighbour that does not answer ARP holds what was sent to it in the
//     send buffer for a few seconds, so a blocking send to others may wait for
//     it.
//   - Buffers are ordinary memory. Where their pages have to be fetched (a
//     mapped file, userfaultfd), the whole process may stand still meanwhile,
//     as when Go code touches them: short receives, and the send of a short
//     lone datagram, do not tell the scheduler of their system call. Where this
//     process is to bring the pages, it may stand still for good.
//   - A zone (fe80::1%eth0) is resolved as package net does it, and an unknown
//     zone is no error.
//   - The options of the socket are read when they first matter. Set them
//     before New, or by Control of what Conn.SyscallConn returned: a change
//     that is made in another way may not be seen.
//   - New costs a few system calls. A socket that asks one question and is then
//     closed does not gain that back: leave it a *net.UDPConn.
//
// # Differences from GLib
//
//   - A bad message ends the batch before it; g_socket_send_messages rejects
//     the whole call if one address cannot be converted.
//   - ReceiveMessages returns as soon as there is one datagram;
//     g_socket_receive_messages of a blocking socket waits until all messages
//     are filled, as MsgWaitAll does.
//   - MsgDontWait makes a call non-blocking on a blocking Conn too; with GLib
//     only g_socket_set_blocking does.
//   - Blocking is chosen at New, and for one call by a flag; it cannot be
//     changed later.
//   - More than 1024 messages are all sent; GLib sends 1024 and returns.
//   - Errors that the kernel tells only once become pending errors of the next
//     call.
//   - A timeout is a point in time, as everywhere in Go, and not a time of
//     inactivity.
//
// # Platforms
//
// On Linux a send is sendmmsg(2), by way of golang.org/x/net, and a receive is
// recvmmsg(2). Where the kernel does not know these calls (ENOSYS), where a
// seccomp filter refuses them (EPERM, EACCES), and on Android, macOS, the BSDs,
// Solaris, illumos and AIX, it is one sendmsg(2) or recvmsg(2) for each
// datagram. On Windows it is one call of package net. Except on Windows, a lone
// datagram of one vector leaves with sendto(2), if it has no control messages,
// flags or zone, and ReceiveFrom, Read and ReadFrom need no more than
// recvfrom(2). Promises are the same everywhere, except for what follows.
//
//   - Windows: a non-blocking call asks WSAPoll first, so it can wait after all
//     if another goroutine takes the room or the datagram in between. For that
//     reason ReceiveMessages and ReadBatch fill one message, or with MsgWaitAll
//     all. Sends wait by polling every millisecond, as they do on AIX.
//   - On the BSDs, macOS and AIX an empty datagram with control messages, and
//     on Solaris and illumos any datagram with them, cannot be sent to an IPv4
//     address from an unconnected IPv6 socket: [errors.ErrUnsupported].
//   - macOS and the BSDs report a full queue of the device as ENOBUFS, which is
//     not a full socket. It is returned at once and not waited for. On Linux it
//     is waited for if the socket has no room, as with a large datagram whose
//     fragments do not all fit.
//   - Linux: on a connected socket, one sendmmsg can meet a pending error after
//     its first datagram. The kernel then forgets that error (sendmmsg(2),
//     BUGS), and the send goes on as if there had been none. To learn of each,
//     set IP_RECVERR and read the error queue.
//
// The package does not build for Plan 9, js and wasip1.
package batchconn
