// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// The loops that one would write by hand in C: what sendmmsg(2) and UDP_SEGMENT
// can give at most.

#define _GNU_SOURCE
#include <errno.h>
#include <netinet/udp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "send.h"

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

enum { most_datagrams = 1024, most_segments = 64, most_payload = 65507 };

static long now(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

struct stopwatch {
	long wall, cpu;
};

static struct stopwatch start(void)
{
	return (struct stopwatch){now(CLOCK_MONOTONIC), now(CLOCK_THREAD_CPUTIME_ID)};
}

static int running(const struct job *j, const struct stopwatch *s)
{
	return now(CLOCK_MONOTONIC) - s->wall < j->ns;
}

static int stop(const struct stopwatch *s, struct done *d, int err)
{
	d->wall_ns = now(CLOCK_MONOTONIC) - s->wall;
	d->cpu_ns = now(CLOCK_THREAD_CPUTIME_ID) - s->cpu;
	return err;
}

static const struct sockaddr_in *destination(const struct job *j, int datagram)
{
	return &j->to[datagram / j->burst % j->destinations];
}

int send_sendto(const struct job *j, struct done *d)
{
	struct stopwatch s = start();
	do {
		for (int i = 0; i < j->count; i++) {
			if (sendto(j->fd, j->payload + i * j->size, j->size, 0, (const struct sockaddr *)destination(j, i), sizeof *j->to) < 0)
				return stop(&s, d, errno);
		}
		d->datagrams += j->count;
	} while (running(j, &s));
	return stop(&s, d, 0);
}

static int send_all(int fd, struct mmsghdr *ms, int n)
{
	while (n > 0) {
		int sent = sendmmsg(fd, ms, n, 0);
		if (sent < 0)
			return errno;
		ms += sent;
		n -= sent;
	}
	return 0;
}

static int send_over_and_over(const struct job *j, struct done *d, struct mmsghdr *ms, int n)
{
	struct stopwatch s = start();
	do {
		int err = send_all(j->fd, ms, n);
		if (err)
			return stop(&s, d, err);
		d->datagrams += j->count;
	} while (running(j, &s));
	return stop(&s, d, 0);
}

int send_sendmmsg(const struct job *j, struct done *d)
{
	static struct mmsghdr ms[most_datagrams];
	static struct iovec iov[most_datagrams];
	memset(ms, 0, sizeof ms);
	for (int i = 0; i < j->count; i++) {
		iov[i] = (struct iovec){j->payload + i * j->size, j->size};
		ms[i].msg_hdr.msg_name = (void *)destination(j, i);
		ms[i].msg_hdr.msg_namelen = sizeof *j->to;
		ms[i].msg_hdr.msg_iov = &iov[i];
		ms[i].msg_hdr.msg_iovlen = 1;
	}
	return send_over_and_over(j, d, ms, j->count);
}

// As many datagrams as go in one segmented message, from datagram i on.
static int segments(const struct job *j, int i)
{
	int n = j->burst - i % j->burst;
	if (n > j->count - i)
		n = j->count - i;
	if (n > most_segments)
		n = most_segments;
	if (n > most_payload / j->size)
		n = most_payload / j->size;
	return n;
}

static int segmented(const struct job *j, struct done *d, int vectors)
{
	static struct mmsghdr ms[most_datagrams];
	static struct iovec iov[most_datagrams];
	static struct {
		_Alignas(struct cmsghdr) char b[CMSG_SPACE(sizeof(uint16_t))];
	} control[most_datagrams];
	int n = 0;
	memset(ms, 0, sizeof ms);
	for (int i = 0; i < j->count; n++) {
		int k = segments(j, i);
		struct msghdr *h = &ms[n].msg_hdr;
		h->msg_name = (void *)destination(j, i);
		h->msg_namelen = sizeof *j->to;
		h->msg_iov = &iov[i];
		h->msg_iovlen = vectors ? k : 1;
		for (int v = 0; v < k; v++)
			iov[i + v] = (struct iovec){j->payload + (i + v) * j->size, j->size};
		if (!vectors)
			iov[i].iov_len = k * j->size;
		if (k > 1) {
			h->msg_control = control[n].b;
			h->msg_controllen = sizeof control[n].b;
			struct cmsghdr *c = CMSG_FIRSTHDR(h);
			c->cmsg_level = IPPROTO_UDP;
			c->cmsg_type = UDP_SEGMENT;
			c->cmsg_len = CMSG_LEN(sizeof(uint16_t));
			uint16_t size = j->size;
			memcpy(CMSG_DATA(c), &size, sizeof size);
		}
		i += k;
	}
	return send_over_and_over(j, d, ms, n);
}

int send_segmented(const struct job *j, struct done *d)
{
	return segmented(j, d, 0);
}

int send_segmented_vectors(const struct job *j, struct done *d)
{
	return segmented(j, d, 1);
}
