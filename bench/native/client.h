/* The connections of the load: how they open, what they send, and what has to come back. */
#ifndef BENCH_CLIENT_H
#define BENCH_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define SECOND 1000000000ull
enum { TIMEOUT = 10, HEAD_SIZE = 2048, CELLS = 64 * 32 }; /* seconds, bytes */

/* Counts of latencies: 32 cells for each power of two, so a cell is 3 % wide at most. */
struct histogram {
    uint64_t count, cells[CELLS];
};

/* Connections that do the same. */
struct group {
    int port;
    const char *path;
    bool streams; /* event streams, which are only held */
    size_t size;  /* of a message */
    uint64_t in_flight;
    uint64_t waiting, messages, last; /* without an echo yet; echoes that came; when the latest did */
    struct histogram latency;
};

/* A connection. It sends a turn of messages over and over, one more than are in flight, so that an echo that is missing
 * or there twice is found. `out` and `in` hold the turn twice, so any piece of the endless streams is in one piece. */
struct client {
    struct group *group;
    int number, fd;
    enum state { CONNECTING, UPGRADING, OPEN, SERVED, REFUSED, LOST } state;
    bool blocked, starving;       /* the socket takes no more; no echo came */
    unsigned char *out, *in;
    uint64_t turn;                /* messages */
    size_t frame, echo;           /* their sizes, there and back */
    uint64_t due, sent, received; /* positions in the streams: what is to be sent, what was, what came back */
    uint64_t *since;              /* when each message of the turn was sent */
};

extern int poller;

const char *reason(void); /* why a call failed that waits */
_Noreturn void fail(const char *format, ...) __attribute__((format(printf, 1, 2)));
uint64_t now(clockid_t clock);
void count(struct histogram *histogram, uint64_t time);
double percentile(const struct histogram *histogram, double share);

void make_messages(struct client *client);
void watch(struct client *client, int operation, uint32_t events);

/* The steps of opening a connection; and all of them at once, which waits. */
int connect_socket(const struct group *group, int flags, bool *refused);
bool send_request(const struct group *group, int fd);
int judge_answer(const struct group *group, char answer[HEAD_SIZE + 1], size_t size); /* 0: not whole; -1: refused */
int open_socket(const struct group *group);

/* Send what is due as far as the socket takes it, and with it so many more messages. False: the connection is lost. */
bool put_messages(struct client *client, uint64_t messages, uint64_t time);

/* Read once and compare; return how many messages are complete now. -1: the connection is lost. */
int64_t take_messages(struct client *client, uint64_t *time);

#endif
