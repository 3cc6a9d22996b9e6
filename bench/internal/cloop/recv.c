// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// The loops that one would write by hand in C: what recvmmsg(2) and UDP_GRO can
// give.

#define _GNU_SOURCE
#include "recv.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/udp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

enum {
	max_messages = 64, // in a call of recvmmsg
	max_runs = 8,
	run_size = 65535,
	control_size = 128,
};

static int allocate(struct recv *r)
{
	int n = r->with == with_gro ? max_runs : r->count;
	r->buffers = calloc(r->count, r->size);
	r->lengths = calloc(r->count, sizeof *r->lengths);
	r->ms = calloc(n, sizeof *r->ms);
	r->iov = calloc(n, sizeof *r->iov);
	r->from = calloc(n, sizeof *r->from);
	r->runs = r->with == with_gro ? malloc(max_runs * (run_size + control_size)) : NULL;
	return r->buffers && r->lengths && r->ms && r->iov && r->from && (r->runs || r->with != with_gro);
}

// prepare lays out what recvmmsg receives into.
static void prepare(struct recv *r)
{
	int n = r->with == with_gro ? max_runs : r->count;
	for (int i = 0; i < n; i++) {
		r->iov[i] = (struct iovec){r->buffers + (long)i * r->size, r->size};
		if (r->with == with_gro)
			r->iov[i] = (struct iovec){r->runs + (long)i * run_size, run_size};
		r->ms[i].msg_hdr = (struct msghdr){
			.msg_name = &r->from[i],
			.msg_namelen = sizeof r->from[i],
			.msg_iov = &r->iov[i],
			.msg_iovlen = 1,
		};
		if (r->with == with_gro)
			r->ms[i].msg_hdr.msg_control = r->runs + (long)max_runs * run_size + (long)i * control_size;
	}
}

struct recv *recv_new(int fd, enum with with, int count, int size)
{
	struct recv *r = calloc(1, sizeof *r);
	if (!r)
		return NULL;
	*r = (struct recv){.with = with, .fd = fcntl(fd, F_DUPFD_CLOEXEC, 0), .count = count, .size = size};
	int on = 1;
	int ok = r->fd >= 0 && allocate(r);
	if (ok && with == with_gro)
		ok = setsockopt(r->fd, IPPROTO_UDP, UDP_GRO, &on, sizeof on) == 0;
	if (ok)
		prepare(r);
	if (ok && with == with_glib)
		ok = (r->glib = recv_glib_new(r)) != NULL;
	if (ok)
		return r;
	recv_free(r);
	return NULL;
}

void recv_free(struct recv *r)
{
	if (r->glib)
		recv_glib_free(r->glib);
	if (r->fd >= 0)
		close(r->fd);
	free(r->buffers);
	free(r->lengths);
	free(r->ms);
	free(r->iov);
	free(r->from);
	free(r->runs);
	free(r);
}

// some_recvfrom takes as many as a batch is, by a call each.
static int some_recvfrom(struct recv *r, int i, int max)
{
	for (int n = 0; n < max; n++) {
		socklen_t length = sizeof r->from[0];
		ssize_t got = recvfrom(r->fd, r->buffers + (long)(i + n) * r->size, r->size, MSG_DONTWAIT,
				       (struct sockaddr *)&r->from[i + n], &length);
		if (got < 0)
			return n > 0 ? n : -errno;
		r->lengths[i + n] = got;
	}
	return max;
}

static int some_recvmmsg(struct recv *r, int i, int max)
{
	int n = recvmmsg(r->fd, r->ms + i, max, MSG_DONTWAIT, NULL);
	if (n < 0)
		return -errno;
	for (int k = i; k < i + n; k++) {
		r->lengths[k] = r->ms[k].msg_len;
		r->ms[k].msg_hdr.msg_namelen = sizeof r->from[0];
	}
	return n;
}

// stride is the size of the datagrams of a run, which the last may be below.
static int stride(struct msghdr *h, int length)
{
	for (struct cmsghdr *c = CMSG_FIRSTHDR(h); c; c = CMSG_NXTHDR(h, c)) {
		int size;
		if (c->cmsg_level != IPPROTO_UDP || c->cmsg_type != UDP_GRO)
			continue;
		memcpy(&size, CMSG_DATA(c), sizeof size);
		if (size > 0 && size < length)
			return size;
	}
	return length;
}

// cut copies the datagrams of a run out, and returns where the next goes.
static int cut(struct recv *r, int run, int i)
{
	const char *p = r->iov[run].iov_base;
	int length = r->ms[run].msg_len, each = stride(&r->ms[run].msg_hdr, length);
	do {
		int n = length < each ? length : each;
		if (i == r->count)
			return -EOVERFLOW; // more than were sent
		r->lengths[i] = n < r->size ? n : r->size;
		memcpy(r->buffers + (long)i * r->size, p, r->lengths[i]);
		i++;
		p += n;
		length -= n;
	} while (length > 0);
	return i;
}

static int some_gro(struct recv *r, int i)
{
	for (int k = 0; k < max_runs; k++) {
		r->ms[k].msg_hdr.msg_namelen = sizeof r->from[0];
		r->ms[k].msg_hdr.msg_controllen = control_size;
	}
	int n = recvmmsg(r->fd, r->ms, max_runs, MSG_DONTWAIT, NULL), at = i;
	if (n < 0)
		return -errno;
	for (int k = 0; k < n; k++) {
		at = cut(r, k, at);
		if (at < 0)
			return at;
	}
	return at - i;
}

static int some(struct recv *r, int i)
{
	int max = r->count - i < max_messages ? r->count - i : max_messages;
	switch (r->with) {
	case with_recvfrom:
		return some_recvfrom(r, i, max);
	case with_recvmmsg:
		return some_recvmmsg(r, i, max);
	case with_gro:
		return some_gro(r, i);
	case with_glib:
		return recv_glib_some(r, i, max);
	}
	return -EINVAL;
}

int recv_some(struct recv *r, int i, int ms)
{
	int n = some(r, i);
	if (n != -EAGAIN)
		return n;
	struct pollfd p = {.fd = r->fd, .events = POLLIN};
	poll(&p, 1, ms);
	return some(r, i);
}
