/* What comes on an event stream: decoded, and compared with what was published. */
#ifndef BENCH_STREAM_H
#define BENCH_STREAM_H

#include "client.h"

/* Open a client's stream, and look at what comes with the head. */
void open_stream(struct client *client);

/* Read once and compare; return how many events are complete now. -1: the connection is lost. */
int64_t take_events(struct client *client, uint64_t *time);

#endif
