// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// Package sys is everything of batchconn that differs by system: system calls,
// the layout of options and control messages, readiness, duplicates of
// descriptors and the version of the kernel. All build tags stand here.
//
// A file is named by a capability and by where it is there:
//
//	_mmsg     Linux, with its batch calls (sendmmsg) and offloads
//	_linux    Linux
//	_unix     systems with the sockets of golang.org/x/sys/unix
//	_windows  Windows
//	_none     the systems that lack the capability
//	_SYSTEM   one other system by its GOOS: _darwin, _freebsd, _solaris, ...
//	_bsd      the BSDs and AIX, which share IPv4's control messages
//	_MEANS    systems that share one means, named after it: _dontfrag
//	          (IP_DONTFRAG), _mapped (that on an IPv6 socket too), _pktinfo
//	          (IP_PKTINFO as macOS and Solaris have it), _sendsrcaddr
//	          (IP_SENDSRCADDR), _timeval (SO_TIMESTAMP with a struct timeval)
//
// A file without a suffix is for every system.
//
// Android's seccomp filters refuse what Linux has, so it is taken for a system
// without batch calls. So is Linux under the build tag
// batchconn_portable, which runs the path of the other systems there.
package sys
