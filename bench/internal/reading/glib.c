// Copyright 2026 The batchconn Authors.
// Use of this source code is governed by a BSD-style
// license that can be found in the LICENSE file.

// GLib is looked for when it is needed, so that this builds and runs without it.
// The types below are those of its stable ABI (gio/giotypes.h, glib/gerror.h).

#include "recv.h"

#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { io_error_would_block = 27 }; // G_IO_ERROR_WOULD_BLOCK

struct error { // GError
	uint32_t domain;
	int code;
	char *message;
};

struct vector { // GInputVector
	void *buffer;
	size_t size;
};

struct message { // GInputMessage
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
	struct message *ms;
	struct vector *vectors;
	void **from;
};

static struct {
	char missing[256];
	void *(*socket_new_from_fd)(int, struct error **);
	void (*socket_set_blocking)(void *, int);
	int (*socket_receive_messages)(void *, struct message *, unsigned, int, void *, struct error **);
	void (*object_unref)(void *);
	void (*error_free)(struct error *);
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
	glib.socket_set_blocking = symbol(library, "g_socket_set_blocking");
	glib.socket_receive_messages = symbol(library, "g_socket_receive_messages");
	glib.object_unref = symbol(library, "g_object_unref");
	glib.error_free = symbol(library, "g_error_free");
}

const char *recv_glib_missing(void)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, load);
	return glib.missing[0] ? glib.missing : NULL;
}

struct glib_recv *recv_glib_new(struct recv *r)
{
	struct glib_recv *g = calloc(1, sizeof *g);
	struct error *e = NULL;
	int own = dup(r->fd); // the GSocket closes it
	if (!g || own < 0)
		return NULL;
	g->ms = calloc(r->count, sizeof *g->ms);
	g->vectors = calloc(r->count, sizeof *g->vectors);
	g->from = calloc(r->count, sizeof *g->from);
	g->socket = glib.socket_new_from_fd(own, &e);
	if (!g->socket || !g->ms || !g->vectors || !g->from) {
		recv_glib_free(g);
		return NULL;
	}
	glib.socket_set_blocking(g->socket, 0);
	for (int i = 0; i < r->count; i++) {
		g->vectors[i] = (struct vector){r->buffers + (long)i * r->size, r->size};
		g->ms[i] = (struct message){.address = &g->from[i], .vectors = &g->vectors[i], .num_vectors = 1};
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

int recv_glib_some(struct recv *r, int i)
{
	struct error *e = NULL;
	struct glib_recv *g = r->glib;
	int n = glib.socket_receive_messages(g->socket, g->ms + i, r->count - i, 0, NULL, &e);
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
