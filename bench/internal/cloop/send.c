// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// The loops that one would write by hand in C: what sendmmsg(2) and UDP_SEGMENT
// can give.

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

enum { max_segments = 64, max_payload = 65507 };

long job_begin(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000L + t.tv_nsec;
}

int job_running(const struct job *j, long begin)
{
	return job_begin() - begin < j->ns;
}

const struct sockaddr_in *job_destination(const struct job *j, int datagram)
{
	return &j->to[datagram / j->burst % j->destinations];
}

int send_sendto(const struct job *j, struct done *d)
{
	long begin = job_begin();
	do {
		for (int k = 0; k < j->batches; k++) {
			for (int i = 0; i < j->count; i++) {
				if (sendto(j->fd, j->payload + (long)i * j->size, j->size, 0,
					   (const struct sockaddr *)job_destination(j, i), sizeof *j->to) < 0)
					return errno;
			}
			d->datagrams += j->count;
		}
	} while (job_running(j, begin));
	return 0;
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

// A plan is n messages, made before the clock runs.
struct plan {
	int n;
	struct mmsghdr *ms;
	struct iovec *iov;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(uint16_t))];
	} *control;
};

static int new_plan(struct plan *p, int count)
{
	*p = (struct plan){
		.ms = calloc(count, sizeof *p->ms),
		.iov = calloc(count, sizeof *p->iov),
		.control = calloc(count, sizeof *p->control),
	};
	return p->ms && p->iov && p->control ? 0 : ENOMEM;
}

// carry_out sends a plan over and over, and frees it.
static int carry_out(const struct job *j, struct done *d, struct plan *p)
{
	int err = 0;
	long begin = job_begin();
	do {
		for (int k = 0; k < j->batches && !err; k++) {
			err = send_all(j->fd, p->ms, p->n);
			if (!err)
				d->datagrams += j->count;
		}
	} while (!err && job_running(j, begin));
	free(p->ms);
	free(p->iov);
	free(p->control);
	return err;
}

static struct msghdr *add_message(struct plan *p, const struct job *j, int datagram, int vectors)
{
	struct msghdr *h = &p->ms[p->n++].msg_hdr;
	h->msg_name = (void *)job_destination(j, datagram);
	h->msg_namelen = sizeof *j->to;
	h->msg_iov = &p->iov[datagram];
	h->msg_iovlen = vectors;
	for (int v = 0; v < vectors; v++)
		h->msg_iov[v] = (struct iovec){j->payload + (long)(datagram + v) * j->size, j->size};
	return h;
}

int send_sendmmsg(const struct job *j, struct done *d)
{
	struct plan p;
	int err = new_plan(&p, j->count);
	for (int i = 0; i < j->count && !err; i++)
		add_message(&p, j, i, 1);
	return err ? err : carry_out(j, d, &p);
}

// As many datagrams as go in one segmented message, from datagram i on.
static int segments(const struct job *j, int i)
{
	int n = j->destinations == 1 ? j->count : j->burst - i % j->burst;
	if (n > j->count - i)
		n = j->count - i;
	if (n > max_segments)
		n = max_segments;
	if (n > max_payload / j->size)
		n = max_payload / j->size;
	return n;
}

static void add_control(struct msghdr *h, struct plan *p, uint16_t size)
{
	h->msg_control = &p->control[p->n - 1];
	h->msg_controllen = sizeof *p->control;
	struct cmsghdr *c = CMSG_FIRSTHDR(h);
	c->cmsg_level = IPPROTO_UDP;
	c->cmsg_type = UDP_SEGMENT;
	c->cmsg_len = CMSG_LEN(sizeof size);
	memcpy(CMSG_DATA(c), &size, sizeof size);
}

static int segmented(const struct job *j, struct done *d, int vectors)
{
	struct plan p;
	int err = new_plan(&p, j->count);
	for (int i = 0, k; i < j->count && !err; i += k) {
		k = segments(j, i);
		struct msghdr *h = add_message(&p, j, i, vectors ? k : 1);
		h->msg_iov[0].iov_len = (vectors ? 1 : k) * (size_t)j->size;
		if (k > 1)
			add_control(h, &p, j->size);
	}
	return err ? err : carry_out(j, d, &p);
}

int send_segmented(const struct job *j, struct done *d)
{
	return segmented(j, d, 0);
}

int send_segmented_vectors(const struct job *j, struct done *d)
{
	return segmented(j, d, 1);
}
