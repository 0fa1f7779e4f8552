/* Event streams: decoding, and comparison with the published messages. */
#ifndef BENCH_STREAM_H
#define BENCH_STREAM_H

#include "client.h"

/* Open a client's stream, and check the bytes received with the head. */
void open_stream(struct client *client);

/* Read once and compare; return the number of completed events. -1: the connection is lost. */
int64_t take_events(struct client *client, uint64_t *time);

#endif
