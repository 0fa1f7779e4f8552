#define _GNU_SOURCE
#include "transport.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>

enum { READ_SIZE = 1 << 18, FIELD_SIZE = 10, MASK_SIZE = 4, DIGITS = 4 };

static const unsigned char MASK[MASK_SIZE] = {0x8a, 0x17, 0xf3, 0x5c};
int poller;

const char *reason(void)
{
    return errno == EAGAIN ? "no answer in time" : strerror(errno);
}

void allow_files(int connections)
{
    struct rlimit files;
    getrlimit(RLIMIT_NOFILE, &files);
    files.rlim_cur = files.rlim_max;
    setrlimit(RLIMIT_NOFILE, &files);
    if ((rlim_t)connections + 16 > files.rlim_max)
        fail("the limit on open files, %llu, is too low", (unsigned long long)files.rlim_max);
}

void forget(struct group *group)
{
    group->messages = 0;
    memset(&group->latency, 0, sizeof group->latency);
}

void print_span(const struct group *group, uint64_t begin, uint64_t end, uint64_t used)
{
    printf("\"messages\": %llu, \"seconds\": %.6f, \"cpu\": %.6f, \"p50_us\": %.1f, \"p99_us\": %.1f",
           (unsigned long long)group->messages, (double)(end - begin) / SECOND, (double)used / SECOND,
           percentile(&group->latency, 0.5), percentile(&group->latency, 0.99));
}

static size_t put_header(unsigned char *target, size_t size, unsigned char mask_bit)
{
    size_t field = size < 126 ? 0 : size < 65536 ? 2 : 8;
    target[0] = 0x81; /* a whole text message */
    target[1] = mask_bit | (unsigned char)(field == 0 ? size : field == 2 ? 126 : 127);
    for (size_t i = 0; i < field; i++)
        target[2 + i] = (unsigned char)(size >> 8 * (field - 1 - i));
    return 2 + field;
}

/* Each message begins with its number, so that all messages of all connections differ, if they are long enough: four
 * digits for 5 bytes. The digits are printable, and none is a space, which an event stream might remove. */
void make_messages(struct client *client)
{
    size_t size = client->group->size;
    uint64_t messages = client->turn = client->group->in_flight + 1;
    unsigned char field[FIELD_SIZE];
    client->from = client;
    client->echo = put_header(field, size, 0) + size;
    client->frame = client->echo + MASK_SIZE;
    client->out = malloc(2 * messages * client->frame);
    client->in = malloc(2 * messages * client->echo);
    client->since = calloc(messages, sizeof *client->since);
    if (!client->out || !client->in || !client->since)
        fail("no memory for messages");
    for (uint64_t i = 0; i < 2 * messages; i++) {
        unsigned char *out = client->out + i * client->frame, *in = client->in + i * client->echo;
        uint64_t number = (uint64_t)client->number * messages + i % messages;
        in += put_header(in, size, 0);
        out += put_header(out, size, 0x80);
        memcpy(out, MASK, MASK_SIZE);
        for (size_t at = 0; at < size; at++) {
            in[at] = at < DIGITS ? (unsigned char)('!' + number % 94) : (unsigned char)(' ' + at * 7 % 95);
            number /= 94;
            out[MASK_SIZE + at] = in[at] ^ MASK[at % MASK_SIZE];
        }
    }
}

int connect_socket(const struct group *group, int flags, bool *refused)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    struct timeval timeout = {.tv_sec = TIMEOUT};
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0), on = 1;
    if (fd < 0)
        fail("no socket: %s", strerror(errno));
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout);
    address.sin_port = htons((uint16_t)group->port);
    bool pending = flags & SOCK_NONBLOCK;
    *refused = connect(fd, (struct sockaddr *)&address, sizeof address) && !(pending && errno == EINPROGRESS);
    return fd;
}

bool send_request(struct client *client)
{
    const struct group *group = client->group;
    char request[512];
    const char *fields = group->streams ? "Accept: text/event-stream\r\n"
                                        : "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
                                          "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    int size = snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n%s\r\n", group->path,
                        group->port, fields);
    return put_bytes(client, request, (size_t)size) == size;
}

int judge_answer(const struct group *group, char answer[HEAD_SIZE + 1], size_t size)
{
    const char *status = group->streams ? "HTTP/1.1 200 " : "HTTP/1.1 101 ";
    answer[size] = 0;
    char *end = strstr(answer, "\r\n\r\n");
    if (!end)
        return size < HEAD_SIZE ? 0 : -1;
    if (strncmp(answer, status, strlen(status)))
        return -1;
    if (!group->streams && (end[4] || !strstr(answer, ": s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n")))
        return -1; /* the answer to the key in RFC 6455 section 1.3 */
    return 1;
}

void open_client(struct client *client, char answer[HEAD_SIZE + 1])
{
    const struct group *group = client->group;
    size_t size = 0;
    bool refused;
    int verdict;
    client->fd = connect_socket(group, 0, &refused);
    if (refused || !secure(client) || !send_request(client))
        fail("cannot connect: %s", reason());
    do {
        ssize_t got = take_bytes(client, answer + size, HEAD_SIZE - size);
        if (got <= 0)
            fail("no answer to a request for %s: %s", group->path, got ? reason() : "the server has closed it");
        size += (size_t)got;
    } while (!(verdict = judge_answer(group, answer, size)));
    if (verdict < 0)
        fail("wrong answer to a request for %s: %.*s", group->path, (int)strcspn(answer, "\r"), answer);
}

void watch(struct client *client, int operation, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.ptr = client};
    if (epoll_ctl(poller, operation, client->fd, &event))
        fail("epoll: %s", strerror(errno));
}

bool put_messages(struct client *client, uint64_t messages, uint64_t time)
{
    struct group *group = client->group;
    bool blocked = false;
    group->waiting += messages;
    for (; messages; messages--, client->due += client->frame)
        client->since[client->due / client->frame % client->turn] = time;
    while (client->sent < client->due && !blocked) {
        const unsigned char *rest = client->out + client->sent % (client->turn * client->frame);
        ssize_t sent = put_bytes(client, rest, client->due - client->sent);
        if (sent < 0 && errno != EAGAIN)
            return false;
        blocked = sent < 0;
        client->sent += blocked ? 0 : (uint64_t)sent;
    }
    if (blocked != client->blocked)
        watch(client, EPOLL_CTL_MOD, blocked ? EPOLLIN | EPOLLOUT : EPOLLIN);
    client->blocked = blocked;
    return true;
}

int64_t take_messages(struct client *client, uint64_t *time)
{
    static unsigned char data[READ_SIZE];
    const struct client *from = client->from;
    ssize_t got = take_bytes(client, data, READ_SIZE);
    *time = now(CLOCK_MONOTONIC);
    if (got <= 0)
        return got < 0 && errno == EAGAIN ? 0 : -1;
    if (client->received + (uint64_t)got > from->due / from->frame * from->echo)
        fail("connection %d received more than it sent", client->number);
    if (memcmp(data, from->in + client->received % (from->turn * from->echo), (size_t)got))
        fail("connection %d received an echo that differs from its message", client->number);
    return arrived(client, (uint64_t)got, *time);
}

int64_t arrived(struct client *client, uint64_t bytes, uint64_t time)
{
    const struct client *from = client->from;
    struct group *group = client->group;
    uint64_t first = client->received / from->echo;
    client->received += bytes;
    uint64_t messages = client->received / from->echo - first;
    for (uint64_t i = 0; i < messages; i++)
        count(&group->latency, time - from->since[(first + i) % from->turn]);
    if (messages) {
        client->starving = false;
        group->waiting -= messages;
        group->messages += messages;
        group->last = time;
    }
    return (int64_t)messages;
}
