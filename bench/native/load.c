/* A load for WebSocket servers on the loopback interface: one thread, one epoll; it compares every echoed byte.
 *
 * load MODE --port P [--pid P]... [--path PATH] [--connections N] [--in-flight M] [--size S]
 *           [--seconds T] [--warm-up T] [--spin] [--batch] [--beside K] [--beside-path PATH]
 *
 *   echo        keep M text messages of S bytes in flight on each of N connections, and one on each of K more;
 *   handshakes  connect, upgrade and close, one connection after another;
 *   storm       N connect at once; each has one echo, and stays connected until all have been served
 *   idle        hold N WebSockets and K event streams; "echo COUNT" on stdin measures, "quit" ends
 *
 * Prints a JSON object for each measurement, with the processor time of the processes --pid in its span. The first
 * wrong byte, a lost connection, and a server silent for TIMEOUT end it, with a line on stderr and status 1. --spin
 * polls for echoes without blocking, so that only the server must be woken. With --batch a connection sends its next M
 * messages when it has received all M echoes, and not one message for each echo. load_tls is the same load over TLS, for the
 * modes echo and handshakes. */
#define _GNU_SOURCE
#include "transport.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EVENTS = 1024, STORM_TIMEOUT = 30 }; /* seconds */

static const unsigned char CLOSE[] = {0x88, 0x82, 0x8a, 0x17, 0xf3, 0x5c, 0x03 ^ 0x8a, 0xe8 ^ 0x17};
static const unsigned char CLOSED[] = {0x88, 0x02, 0x03, 0xe8}; /* 1000 */

static struct group groups[2] = {
    {.path = "/", .size = 125, .in_flight = 1},
    {.path = "/block", .in_flight = 1},
};
static struct client *clients;
static int connections = 1, beside, all_connections;
static double seconds = 1, warm_up = 0.3;
static bool spin, batch;
static uint64_t polls, events_seen;

static void open_all(void)
{
    char answer[HEAD_SIZE + 1];
    for (int i = 0; i < all_connections; i++)
        open_client(clients + i, answer);
}

/* Return the number of messages that a client sends after receiving this number. */
static uint64_t next_messages(const struct client *client, uint64_t messages)
{
    if (!batch)
        return messages;
    return client->received / client->echo == client->due / client->frame ? client->group->in_flight : 0;
}

/* Keep the messages in flight until this time; with 0, wait for all echoes. */
static uint64_t exchange(uint64_t end)
{
    struct epoll_event events[EVENTS];
    uint64_t time = now(CLOCK_MONOTONIC);
    groups[0].last = groups[1].last = time;
    while (end ? time < end : groups[0].waiting + groups[1].waiting > 0) {
        int ready = epoll_wait(poller, events, EVENTS, spin ? 0 : 1000);
        polls += ready > 0;
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            int64_t messages = events[i].events & ~(uint32_t)EPOLLOUT ? take_messages(client, &time) : 0;
            if (messages < 0 || !put_messages(client, end ? next_messages(client, (uint64_t)messages) : 0, time))
                fail("connection %d to %s is lost", client->number, client->group->path);
            events_seen++;
        }
        time = now(CLOCK_MONOTONIC);
        for (int i = 0; i < 2; i++)
            if (groups[i].waiting && time > groups[i].last + TIMEOUT * SECOND)
                fail("no echo from %s for %d seconds", groups[i].path, TIMEOUT);
    }
    return time;
}

static void echo(void)
{
    int starving = 0;
    open_all();
    for (int i = 0; i < all_connections; i++) {
        fcntl(clients[i].fd, F_SETFL, O_NONBLOCK);
        watch(clients + i, EPOLL_CTL_ADD, EPOLLIN);
    }
    for (int i = 0; i < all_connections; i++)
        if (!put_messages(clients + i, clients[i].group->in_flight, now(CLOCK_MONOTONIC)))
            fail("connection %d is lost", i);
    exchange(after(warm_up));

    forget(groups);
    forget(groups + 1);
    polls = events_seen = 0;
    for (int i = 0; i < all_connections; i++)
        clients[i].starving = true;
    uint64_t used = processor_time(), begin = now(CLOCK_MONOTONIC), end = exchange(after(seconds));
    used = processor_time() - used;
    for (int i = 0; i < all_connections; i++)
        starving += clients[i].starving;

    /* Messages still in flight count only for the latency, because theirs may be the longest. */
    uint64_t messages = groups[0].messages, messages_beside = groups[1].messages;
    double events_per_poll = (double)events_seen / (double)(polls ? polls : 1);
    exchange(0);
    groups[0].messages = messages;
    groups[1].messages = messages_beside;
    printf("{");
    print_span(groups, begin, end, used);
    printf(", \"events_per_poll\": %.2f, \"starving\": %d, \"beside\": {", events_per_poll, starving);
    print_span(groups + 1, begin, end, used);
    printf("}}\n");
}

/* Open and close one connection; the server must answer the close frame and close (RFC 6455 section 7.1.1). */
static void shake_hands(void)
{
    unsigned char answer[sizeof CLOSED + 1];
    char head[HEAD_SIZE + 1];
    size_t size = 0;
    struct client client = {.group = groups};
    open_client(&client, head);
    ssize_t got = put_bytes(&client, CLOSE, sizeof CLOSE);
    while (size < sizeof answer && (got = take_bytes(&client, answer + size, sizeof answer - size)) > 0)
        size += (size_t)got;
    if (got || size != sizeof CLOSED || memcmp(answer, CLOSED, size))
        fail("wrong closing handshake: %s", got < 0 ? reason() : "other bytes were received");
    close_socket(&client);
}

static void handshakes(void)
{
    uint64_t end = after(warm_up);
    while (now(CLOCK_MONOTONIC) < end)
        shake_hands();
    uint64_t used = processor_time(), begin = now(CLOCK_MONOTONIC), time = begin;
    for (end = after(seconds); time < end; groups[0].messages++) {
        uint64_t before = time;
        shake_hands();
        time = now(CLOCK_MONOTONIC);
        count(&groups[0].latency, time - before);
    }
    printf("{");
    print_span(groups, begin, time, processor_time() - used);
    printf("}\n");
}

/* Advance one client of a storm as far as possible without blocking. */
static enum state advance(struct client *client, uint64_t begin, uint64_t *time)
{
    char answer[HEAD_SIZE + 1];
    if (client->state == CONNECTING) {
        if (!send_request(client))
            return errno == ECONNREFUSED ? REFUSED : LOST;
        watch(client, EPOLL_CTL_MOD, EPOLLIN);
        return UPGRADING;
    }
    if (client->state == UPGRADING) {
        ssize_t got = recv(client->fd, answer, HEAD_SIZE, MSG_PEEK);
        int verdict = got > 0 ? judge_answer(client->group, answer, (size_t)got) : -1;
        if (!verdict)
            return UPGRADING;
        recv(client->fd, answer, HEAD_SIZE, 0);
        return verdict > 0 && put_messages(client, 1, begin) ? OPEN : LOST;
    }
    int64_t messages = take_messages(client, time);
    return messages < 0 ? LOST : messages ? SERVED : client->state;
}

static void storm(void)
{
    struct epoll_event events[EVENTS];
    int number_of[LOST + 1] = {0};
    uint64_t used = processor_time(), begin = now(CLOCK_MONOTONIC), time = begin, last = begin;
    for (int i = 0; i < all_connections; i++) {
        bool refused;
        clients[i].fd = connect_socket(groups, SOCK_NONBLOCK, &refused);
        clients[i].state = refused ? REFUSED : CONNECTING;
        number_of[clients[i].state]++;
        if (!refused)
            watch(clients + i, EPOLL_CTL_ADD, EPOLLOUT);
    }
    uint64_t connected = now(CLOCK_MONOTONIC);
    while (number_of[CONNECTING] + number_of[UPGRADING] + number_of[OPEN] && time < begin + STORM_TIMEOUT * SECOND) {
        int ready = epoll_wait(poller, events, EVENTS, 1000);
        time = now(CLOCK_MONOTONIC);
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            enum state state = advance(client, begin, &time);
            number_of[client->state]--;
            number_of[state]++;
            if (state == SERVED && client->state == OPEN)
                last = time;
            if (state == REFUSED || state == LOST)
                close(client->fd);
            client->state = state;
        }
    }
    printf("{");
    print_span(groups, begin, last, processor_time() - used);
    printf(", \"connecting\": %.6f, \"served\": %d, \"refused\": %d, \"failed\": %d}\n",
           (double)(connected - begin) / SECOND, number_of[SERVED], number_of[REFUSED],
           all_connections - number_of[SERVED] - number_of[REFUSED]);
}

/* Measure consecutive echoes, each on a WebSocket chosen at random. */
static void sample(long times)
{
    uint64_t used = processor_time(), begin = now(CLOCK_MONOTONIC), time = begin;
    forget(groups);
    for (; times > 0; times--) {
        struct client *client = clients + rand() % connections;
        uint64_t sent = now(CLOCK_MONOTONIC);
        int64_t messages = put_messages(client, 1, sent) ? 0 : -1;
        while (!messages) {
            messages = take_messages(client, &time);
            if (time > sent + TIMEOUT * SECOND)
                fail("no echo for %d seconds", TIMEOUT);
        }
        if (messages < 0)
            fail("connection %d is lost", client->number);
    }
    printf("{");
    print_span(groups, begin, time, processor_time() - used);
    printf("}\n");
}

static void idle(void)
{
    char line[64], byte;
    groups[1].streams = true;
    open_all();
    printf("ready\n");
    while (!fflush(stdout) && fgets(line, sizeof line, stdin) && strcmp(line, "quit\n")) {
        if (strncmp(line, "echo ", 5))
            fail("unknown command: %s", line);
        sample(atol(line + 5));
    }
    for (int i = 0; i < all_connections; i++) {
        ssize_t got = recv(clients[i].fd, &byte, 1, MSG_DONTWAIT);
        if (got < 0 ? errno != EAGAIN : got == 0 || !clients[i].group->streams)
            fail("connection %d to %s did not stay idle", i, clients[i].group->path);
    }
}

static void read_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"port", required_argument, NULL, 'p'},    {"pid", required_argument, NULL, 'i'},
        {"path", required_argument, NULL, 'a'},    {"connections", required_argument, NULL, 'n'},
        {"beside", required_argument, NULL, 'k'},  {"beside-path", required_argument, NULL, 'b'},
        {"size", required_argument, NULL, 's'},    {"in-flight", required_argument, NULL, 'm'},
        {"seconds", required_argument, NULL, 't'}, {"warm-up", required_argument, NULL, 'w'},
        {"spin", no_argument, NULL, 'x'},          {"batch", no_argument, NULL, 'y'},
        {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (option) {
        case 'p': groups[0].port = groups[1].port = atoi(optarg); break;
        case 'i': add_process(atoi(optarg)); break;
        case 'a': groups[0].path = optarg; break;
        case 'n': connections = atoi(optarg); break;
        case 'k': beside = atoi(optarg); break;
        case 'b': groups[1].path = optarg; break;
        case 's': groups[0].size = strtoul(optarg, NULL, 10); break;
        case 'm': groups[0].in_flight = strtoul(optarg, NULL, 10); break;
        case 't': seconds = atof(optarg); break;
        case 'w': warm_up = atof(optarg); break;
        case 'x': spin = true; break;
        case 'y': batch = true; break;
        default: exit(2);
        }
    if (connections < 1 || beside < 0 || groups[0].in_flight < 1)
        fail("an option is out of range");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
        bool tls; /* runs over TLS, too */
    } modes[] = {{"echo", echo, true}, {"handshakes", handshakes, true}, {"storm", storm, false}, {"idle", idle, false}};

    read_options(argc, argv);
    all_connections = connections + beside;
    allow_files(all_connections);
    groups[1].size = groups[0].size;
    poller = epoll_create1(0);
    clients = calloc((size_t)all_connections, sizeof *clients);
    for (int i = 0; i < all_connections; i++) {
        clients[i].group = groups + (i >= connections);
        clients[i].number = i;
        make_messages(clients + i);
    }
    for (size_t i = 0; optind < argc && i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(argv[optind], modes[i].name)) {
            if (over_tls && !modes[i].tls)
                fail("the mode %s does not run over TLS", modes[i].name);
            modes[i].run();
            return 0;
        }
    fail("a mode is missing: echo, handshakes, storm or idle");
}
