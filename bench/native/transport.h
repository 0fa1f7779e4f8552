/* The bytes of a connection: plain.c sends them over TCP, tls.c over TLS. A load is linked with one of the two. */
#ifndef BENCH_TRANSPORT_H
#define BENCH_TRANSPORT_H

#include "client.h"

#include <sys/types.h>

extern const bool over_tls;

/* Do the handshake on a blocking socket, if the transport has one. False: it has failed, and errno is the cause. */
bool secure(struct client *client);

/* As send(2) and recv(2), also in their errors: EAGAIN if the socket is full or empty, 0 at the end. */
ssize_t put_bytes(struct client *client, const void *data, size_t size);
ssize_t take_bytes(struct client *client, void *data, size_t size);

/* Close the socket, after the transport's own message, if it has one. */
void close_socket(struct client *client);

#endif
