/* The connections of the load: how they open, what they send, and what has to come back. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "measure.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TIMEOUT = 10, HEAD_SIZE = 2048 }; /* seconds, bytes */

/* Connections that do the same. */
struct group {
    int port;
    const char *path;
    bool streams; /* event streams, not WebSockets */
    size_t size;  /* of a message */
    uint64_t in_flight;
    uint64_t waiting, messages, last; /* without an echo yet; echoes that came; when the latest did */
    struct histogram latency;
};

/* A connection. It sends a turn of messages over and over, one more than are in flight, so that an echo that is missing
 * or there twice is found. `out` and `in` hold the turn twice, so any piece of the endless streams is in one piece. */
struct client {
    struct group *group;
    const struct client *from; /* whose messages come back here: its own, or those of one who publishes */
    int number, fd;
    enum state { CONNECTING, UPGRADING, OPEN, SERVED, REFUSED, LOST } state;
    bool blocked, starving;       /* the socket takes no more; no echo came */
    unsigned char *out, *in;
    uint64_t turn;                /* messages */
    size_t frame, echo;           /* their sizes, there and back */
    uint64_t due, sent, received; /* positions in the streams: what is to be sent, what was, what came back */
    uint64_t *since;              /* when each message of the turn was sent */
    struct stream *stream;        /* of a client of an event stream */
};

extern int poller;

const char *reason(void); /* why a call failed that waits */
void allow_files(int connections);

/* What came in a span: begin to count, and say it as the first members of a JSON object. */
void forget(struct group *group);
void print_span(const struct group *group, uint64_t begin, uint64_t end, uint64_t used);

void make_messages(struct client *client);
void watch(struct client *client, int operation, uint32_t events);

/* The steps of opening a connection; and all of them at once, which waits. */
int connect_socket(const struct group *group, int flags, bool *refused);
bool send_request(const struct group *group, int fd);
int judge_answer(const struct group *group, char answer[HEAD_SIZE + 1], size_t size); /* 0: not whole; -1: refused */
int open_socket(const struct group *group, char answer[HEAD_SIZE + 1]);

/* Send what is due as far as the socket takes it, and with it so many more messages. False: the connection is lost. */
bool put_messages(struct client *client, uint64_t messages, uint64_t time);

/* Read once and compare; return how many messages are complete now. -1: the connection is lost. */
int64_t take_messages(struct client *client, uint64_t *time);

/* So many bytes of what was to come have come, and were right; return how many messages they complete. */
int64_t arrived(struct client *client, uint64_t bytes, uint64_t time);

#endif
