/* The limit for a server: one thread, one epoll; a read, a loop over its frames, a write.
 *
 * limit PORT
 *
 * It echoes the messages of a WebSocket. Messages of a WebSocket to "/publish" are sent to all other WebSockets and to
 * the event streams from "/events", those of one read in one write each. It accepts frames cut anywhere and many in a
 * read, unmasks them in place, and validates nothing. */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BUFFER_SIZE = 1 << 18, EVENTS = 1024, MASK_SIZE = 4 };

/* Every client sends the key of RFC 6455 section 1.3, so the answer is constant. */
static const char ANSWER[] = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                             "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
static const char STREAM_ANSWER[] = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n";

struct peer {
    int fd;
    enum { UNKNOWN, WEBSOCKET, STREAM, PUBLISHER } kind;
    bool closing;
    struct peer *next, **link; /* the list of receivers, and the pointer to this one */
    unsigned char *kept;   /* an incomplete frame */
    unsigned char *unsent; /* bytes that the socket did not take; no reading until it has */
    size_t kept_size, unsent_size;
};

static int poller;
static unsigned char shared[BUFFER_SIZE], text[16 * BUFFER_SIZE]; /* an event is less than 16 times its frame */
static struct peer *receivers;

static void watch(struct peer *peer, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = peer};
    epoll_ctl(poller, EPOLL_CTL_MOD, peer->fd, &event);
}

static void drop(struct peer *peer)
{
    close(peer->fd);
    if (peer->link)
        *peer->link = peer->next;
    if (peer->link && peer->next)
        peer->next->link = peer->link;
    free(peer->kept);
    free(peer->unsent);
    free(peer);
}

/* XOR to a target before the source: each vector is read before it is overwritten. */
static void unmask(unsigned char *target, const unsigned char *source, size_t size, uint32_t key)
{
    typedef uint32_t vector __attribute__((vector_size(64)));
    vector keys = (vector){0} + key, v;
    uint64_t pair = (uint64_t)key << 32 | key, word;
    size_t i = 0;
    for (; i + sizeof v <= size; i += sizeof v) {
        memcpy(&v, source + i, sizeof v);
        v ^= keys;
        memcpy(target + i, &v, sizeof v);
    }
    for (; i + sizeof word <= size; i += sizeof word) {
        memcpy(&word, source + i, sizeof word);
        word ^= pair;
        memcpy(target + i, &word, sizeof word);
    }
    for (; i < size; i++)
        target[i] = source[i] ^ ((unsigned char *)&key)[i % MASK_SIZE];
}

/* Turn the whole frames of `size` bytes into their echoes at the beginning of the buffer; return the echoes' size. */
static size_t echo_frames(unsigned char *data, size_t size, size_t *used, bool *closing)
{
    size_t at = *used, out = 0;
    while (!*closing && size - at >= 2 + MASK_SIZE) {
        unsigned char *frame = data + at, opcode = frame[0] & 15;
        size_t length = frame[1] & 127, field = length < 126 ? 0 : length == 126 ? 2 : 8, head = 2 + field;
        uint32_t key;
        if (size - at < head + MASK_SIZE)
            break;
        if (field)
            length = 0;
        for (size_t i = 0; i < field; i++)
            length = length << 8 | frame[2 + i];
        if (size - at - head - MASK_SIZE < length)
            break;
        memcpy(&key, frame + head, MASK_SIZE);
        memmove(data + out, frame, head);
        data[out + 1] &= 127;
        unmask(data + out + head, frame + head + MASK_SIZE, length, key);
        at += head + MASK_SIZE + length;
        out += head + length;
        *closing = opcode == 8;
    }
    *used = at;
    return out;
}

static bool put(struct peer *peer, const unsigned char *data, size_t size)
{
    ssize_t sent = send(peer->fd, data, size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        return false;
    if (sent < (ssize_t)size) {
        size_t rest = sent < 0 ? size : size - (size_t)sent;
        if (!peer->unsent)
            peer->unsent = malloc(BUFFER_SIZE);
        memmove(peer->unsent, data + size - rest, rest);
        if (!peer->unsent_size)
            watch(peer, EPOLLOUT);
        peer->unsent_size = rest;
    } else if (peer->unsent_size) {
        peer->unsent_size = 0;
        watch(peer, EPOLLIN);
    }
    return true;
}

/* Write the events for whole frames of a server; return their size. */
static size_t put_events(const unsigned char *frames, size_t size)
{
    static unsigned long long number;
    size_t out = 0;
    for (const unsigned char *end = frames + size; frames < end; frames += size) {
        size_t field = frames[1] < 126 ? 0 : frames[1] == 126 ? 2 : 8;
        size = field ? 0 : frames[1];
        for (size_t i = 0; i < field; i++)
            size = size << 8 | frames[2 + i];
        frames += 2 + field;
        out += (size_t)sprintf((char *)text + out, "id: %llu\ndata: ", ++number);
        memcpy(text + out, frames, size);
        out += size;
        memcpy(text + out, "\n\n", 2);
        out += 2;
    }
    return out;
}

/* Send to all receivers; disconnect a receiver whose socket does not take all at once. */
static void publish(const unsigned char *frames, size_t size)
{
    size_t text_size = 0;
    for (struct peer *peer = receivers; peer; peer = peer->next) {
        if (peer->kind == STREAM && !text_size)
            text_size = put_events(frames, size);
        bool done = peer->kind == STREAM ? put(peer, text, text_size) : put(peer, frames, size);
        if (!done || peer->unsent_size)
            shutdown(peer->fd, SHUT_RDWR);
    }
}

/* Answer a complete request. */
static bool welcome(struct peer *peer, const char *request)
{
    bool publisher = !strncmp(request, "GET /publish ", 13), stream = !strncmp(request, "GET /events ", 12);
    peer->kind = publisher ? PUBLISHER : stream ? STREAM : WEBSOCKET;
    if (!publisher) {
        peer->link = &receivers;
        peer->next = receivers;
        if (receivers)
            receivers->link = &peer->next;
        receivers = peer;
    }
    const char *answer = stream ? STREAM_ANSWER : ANSWER;
    return send(peer->fd, answer, strlen(answer), MSG_NOSIGNAL) == (ssize_t)strlen(answer);
}

/* Read once and answer; return false if the connection has ended. */
static bool serve(struct peer *peer)
{
    unsigned char *data = peer->kept_size ? peer->kept : shared;
    ssize_t got = recv(peer->fd, data + peer->kept_size, BUFFER_SIZE - peer->kept_size, 0);
    if (got <= 0)
        return got < 0 && errno == EAGAIN;
    size_t size = peer->kept_size + (size_t)got, used = 0;
    if (peer->kind == UNKNOWN) {
        unsigned char *end = memmem(data, size, "\r\n\r\n", 4);
        if (end) {
            used = (size_t)(end - data) + 4;
            if (!welcome(peer, (char *)data))
                return false;
        }
    }
    size_t out = peer->kind == UNKNOWN ? 0 : echo_frames(data, size, &used, &peer->closing);
    if (peer->kind == PUBLISHER && out && !peer->closing)
        publish(data, out);
    else if (out && !put(peer, data, out))
        return false;
    peer->kept_size = size - used;
    if (peer->kept_size == BUFFER_SIZE)
        return false; /* a frame larger than the buffer */
    if (peer->kept_size) {
        if (!peer->kept)
            peer->kept = malloc(BUFFER_SIZE);
        memmove(peer->kept, data + used, peer->kept_size);
    }
    return !peer->closing || peer->unsent_size;
}

static void greet(int listener)
{
    int fd, on = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        struct peer *peer = calloc(1, sizeof *peer);
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = peer};
        peer->fd = fd;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        epoll_ctl(poller, EPOLL_CTL_ADD, fd, &event);
    }
}

int main(int count, char **arguments)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct epoll_event events[EVENTS], event = {.events = EPOLLIN, .data.ptr = NULL};
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0), on = 1;

    address.sin_port = htons((uint16_t)(count == 2 ? atoi(arguments[1]) : 0));
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (bind(listener, (struct sockaddr *)&address, sizeof address) || listen(listener, SOMAXCONN)) {
        perror("cannot listen");
        return 1;
    }
    poller = epoll_create1(0);
    epoll_ctl(poller, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int ready = epoll_wait(poller, events, EVENTS, -1);
        for (int i = 0; i < ready; i++) {
            struct peer *peer = events[i].data.ptr;
            if (!peer)
                greet(listener);
            else if (peer->unsent_size
                         ? !put(peer, peer->unsent, peer->unsent_size) || (peer->closing && !peer->unsent_size)
                         : !serve(peer))
                drop(peer);
        }
    }
}
