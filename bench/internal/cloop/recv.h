// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

// The ways of receiving in C. Each datagram ends in a buffer of its own.
enum with { with_recvfrom, with_recvmmsg, with_gro, with_glib };

struct recv {
	enum with with;
	int fd, count, size;
	char *buffers;	      // count, of size bytes each
	int *lengths;	      // of what was received
	struct mmsghdr *ms;   // recvmmsg's, one for each buffer
	struct iovec *iov;
	struct sockaddr_in *from;
	char *runs;	      // what the kernel has coalesced
	struct glib_recv *glib;
};

// recv_new receives from a duplicate of fd, which does not block. NULL: it failed.
struct recv *recv_new(int fd, enum with with, int count, int size);
void recv_free(struct recv *r);

// recv_some receives what is there into the buffers from i on, 64 datagrams or 8
// runs in a call of the kernel. Where there is nothing it waits for some, up to
// ms milliseconds. It returns how many datagrams that were, or less than 0: an
// errno, EAGAIN if there were none.
int recv_some(struct recv *r, int i, int ms);

struct glib_recv *recv_glib_new(struct recv *r);
void recv_glib_free(struct glib_recv *g);
int recv_glib_some(struct recv *r, int i, int n);
