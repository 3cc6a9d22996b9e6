// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// GLib is looked for when it is needed, so that this builds and runs without it.
// The types below are those of its stable ABI (gio/giotypes.h, glib/gerror.h).

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "recv.h"
#include "send.h"

enum { io_error_would_block = 27 }; // G_IO_ERROR_WOULD_BLOCK

struct error { // GError
	uint32_t domain;
	int code;
	char *message;
};

struct vector { // GOutputVector and GInputVector
	void *buffer;
	size_t size;
};

struct output { // GOutputMessage
	void *address;
	struct vector *vectors;
	unsigned num_vectors;
	unsigned bytes_sent;
	void **control_messages;
	unsigned num_control_messages;
};

struct input { // GInputMessage
	void **address;
	struct vector *vectors;
	unsigned num_vectors;
	size_t bytes_received;
	int flags;
	void ***control_messages;
	unsigned *num_control_messages;
};

struct glib_recv {
	void *socket;
	struct input *ms;
	struct vector *vectors;
	void **from;
};

static struct {
	char missing[256];
	void *(*socket_new_from_fd)(int, struct error **);
	void *(*socket_address_new_from_native)(void *, size_t);
	int (*socket_send_messages)(void *, struct output *, unsigned, int, void *, struct error **);
	void (*socket_set_blocking)(void *, int);
	int (*socket_receive_messages)(void *, struct input *, unsigned, int, void *, struct error **);
	void (*object_unref)(void *);
	void (*error_free)(struct error *);
	const unsigned *version[3];
} glib;

static void *symbol(void *library, const char *name)
{
	void *p = dlsym(library, name); // its dependencies' too
	if (!p)
		snprintf(glib.missing, sizeof glib.missing, "libgio-2.0 has no %s", name);
	return p;
}

static void load(void)
{
	void *library = dlopen("libgio-2.0.so.0", RTLD_NOW | RTLD_LOCAL);
	if (!library) {
		snprintf(glib.missing, sizeof glib.missing, "%s", dlerror());
		return;
	}
	glib.socket_new_from_fd = symbol(library, "g_socket_new_from_fd");
	glib.socket_address_new_from_native = symbol(library, "g_socket_address_new_from_native");
	glib.socket_send_messages = symbol(library, "g_socket_send_messages");
	glib.socket_set_blocking = symbol(library, "g_socket_set_blocking");
	glib.socket_receive_messages = symbol(library, "g_socket_receive_messages");
	glib.object_unref = symbol(library, "g_object_unref");
	glib.error_free = symbol(library, "g_error_free");
	glib.version[0] = symbol(library, "glib_major_version");
	glib.version[1] = symbol(library, "glib_minor_version");
	glib.version[2] = symbol(library, "glib_micro_version");
}

const char *glib_missing(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, load);
	return glib.missing[0] ? glib.missing : NULL;
}

void glib_version(unsigned version[3])
{
	for (int i = 0; i < 3; i++)
		version[i] = *glib.version[i];
}

static int failed(struct error *e, struct done *d)
{
	snprintf(d->what, sizeof d->what, "%s", e->message);
	glib.error_free(e);
	return EIO;
}

static int send_all(void *socket, struct output *ms, int n, struct done *d)
{
	while (n > 0) {
		struct error *e = NULL;
		int sent = glib.socket_send_messages(socket, ms, n, 0, NULL, &e);
		if (sent < 0)
			return failed(e, d);
		ms += sent;
		n -= sent;
	}
	return 0;
}

static int send_over_and_over(const struct job *j, struct done *d, void *socket, struct output *ms)
{
	long begin = job_begin();
	do {
		for (int k = 0; k < j->batches; k++) {
			int err = send_all(socket, ms, j->count, d);
			if (err)
				return err;
			d->datagrams += j->count;
		}
	} while (job_running(j, begin));
	return 0;
}

static void *new_socket(int fd, struct done *d)
{
	struct error *e = NULL;
	int own = dup(fd); // the GSocket closes it
	if (own < 0)
		return NULL;
	void *socket = glib.socket_new_from_fd(own, &e);
	if (!socket) {
		failed(e, d);
		close(own);
	}
	return socket;
}

int send_glib(const struct job *j, struct done *d)
{
	void **to = calloc(j->destinations, sizeof *to);
	struct output *ms = calloc(j->count, sizeof *ms);
	struct vector *vectors = calloc(j->count, sizeof *vectors);
	void *socket = new_socket(j->fd, d);
	int err = to && ms && vectors && socket ? 0 : EIO;
	for (int i = 0; i < j->destinations && !err; i++)
		to[i] = glib.socket_address_new_from_native((void *)&j->to[i], sizeof j->to[i]);
	for (int i = 0; i < j->count && !err; i++) {
		vectors[i] = (struct vector){j->payload + (long)i * j->size, j->size};
		ms[i].address = to[job_destination(j, i) - j->to];
		ms[i].vectors = &vectors[i];
		ms[i].num_vectors = 1;
	}
	if (!err)
		err = send_over_and_over(j, d, socket, ms);
	for (int i = 0; to && i < j->destinations; i++) {
		if (to[i])
			glib.object_unref(to[i]);
	}
	if (socket)
		glib.object_unref(socket);
	free(vectors);
	free(ms);
	free(to);
	return err;
}

struct glib_recv *recv_glib_new(struct recv *r)
{
	struct glib_recv *g = calloc(1, sizeof *g);
	struct done d;
	if (!g)
		return NULL;
	g->ms = calloc(r->count, sizeof *g->ms);
	g->vectors = calloc(r->count, sizeof *g->vectors);
	g->from = calloc(r->count, sizeof *g->from);
	g->socket = new_socket(r->fd, &d);
	if (!g->socket || !g->ms || !g->vectors || !g->from) {
		recv_glib_free(g);
		return NULL;
	}
	glib.socket_set_blocking(g->socket, 0);
	for (int i = 0; i < r->count; i++) {
		g->vectors[i] = (struct vector){r->buffers + (long)i * r->size, r->size};
		g->ms[i] = (struct input){.address = &g->from[i], .vectors = &g->vectors[i], .num_vectors = 1};
	}
	return g;
}

void recv_glib_free(struct glib_recv *g)
{
	if (g->socket)
		glib.object_unref(g->socket);
	free(g->ms);
	free(g->vectors);
	free(g->from);
	free(g);
}

int recv_glib_some(struct recv *r, int i, int n)
{
	struct error *e = NULL;
	struct glib_recv *g = r->glib;
	n = glib.socket_receive_messages(g->socket, g->ms + i, n, 0, NULL, &e);
	if (n < 0) {
		int code = e->code == io_error_would_block ? EAGAIN : EIO;
		glib.error_free(e);
		return -code;
	}
	for (int k = i; k < i + n; k++) {
		r->lengths[k] = g->ms[k].bytes_received;
		glib.object_unref(g->from[k]);
	}
	return n;
}
