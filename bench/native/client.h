/* The connections of the load: opening, sending, and comparing the echoes. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include "measure.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TIMEOUT = 10, HEAD_SIZE = 2048 }; /* seconds, bytes */

/* Connections with the same task. */
struct group {
    int port;
    const char *path;
    bool streams; /* event streams, not WebSockets */
    size_t size;  /* bytes of a message */
    uint64_t in_flight;
    uint64_t waiting, messages, last; /* messages without an echo; echoes; time of the latest */
    struct histogram latency;
};

/* A connection. It repeats a turn of messages, one more than are in flight, so that a missing or doubled echo is found.
 * `out` and `in` hold the turn twice, so any piece of the endless streams is contiguous. */
struct client {
    struct group *group;
    const struct client *from; /* the sender of the received messages: itself or the publisher */
    int number, fd;
    enum state { CONNECTING, UPGRADING, OPEN, SERVED, REFUSED, LOST } state;
    bool blocked, starving;       /* the socket is full; no echo arrived */
    unsigned char *out, *in;
    uint64_t turn;                /* number of messages */
    size_t frame, echo;           /* bytes of a sent and of a received frame */
    uint64_t due, sent, received; /* positions in the streams, in bytes */
    uint64_t *since;              /* send time of each message of the turn */
    struct stream *stream;        /* decoder of an event stream */
    struct ssl_st *tls;           /* the state of OpenSSL, in the load over TLS */
};

extern int poller;

const char *reason(void); /* the cause of a failed blocking call */
void allow_files(int connections);

/* Start counting for a span, and print the counts as the first members of a JSON object. */
void forget(struct group *group);
void print_span(const struct group *group, uint64_t begin, uint64_t end, uint64_t used);

void make_messages(struct client *client);
void watch(struct client *client, int operation, uint32_t events);

/* The steps of opening a connection; open_client does all of them and blocks. */
int connect_socket(const struct group *group, int flags, bool *refused);
bool send_request(struct client *client);
int judge_answer(const struct group *group, char answer[HEAD_SIZE + 1], size_t size); /* 0: incomplete; -1: refused */
void open_client(struct client *client, char answer[HEAD_SIZE + 1]);

/* Make more messages due, and send due bytes as far as the socket takes them. False: the connection is lost. */
bool put_messages(struct client *client, uint64_t messages, uint64_t time);

/* Read once and compare; return the number of completed messages. -1: the connection is lost. */
int64_t take_messages(struct client *client, uint64_t *time);

/* Count expected bytes as received; return the number of messages that they complete. */
int64_t arrived(struct client *client, uint64_t bytes, uint64_t time);

#endif
