/* A load for servers that broadcast one client's messages: one thread, one epoll; it compares every byte.
 *
 * broadcast --port P [--pid P]... [--streams] [--connections N] [--in-flight M] [--size S] [--rate R]
 *           [--seconds T] [--warm-up T]
 *
 * N WebSockets to "/", or with --streams event streams from "/events", must receive, once and in order, all text
 * messages of S bytes that a WebSocket sends to "/publish". The next message is published when the slowest client has
 * received the oldest, so that M are in flight. With --rate, R messages a second are published, and no client may be
 * more than M behind.
 *
 * A client is ready for messages when its own first message is echoed (WebSocket) or the head arrives (event stream).
 * The load prints a JSON object, and holds the connections until its stdin ends. An error ends it, with a line on
 * stderr and status 1. */
#define _GNU_SOURCE
#include "stream.h"

#include <fcntl.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

enum { EVENTS = 256, MILLISECOND = 1000000 };

static struct group receiving = {.path = "/", .size = 125}, publishing = {.path = "/publish", .in_flight = 1};
static struct client publisher, *clients;
static int connections = 1;
static double seconds = 1, warm_up = 0.3, rate;
static uint64_t *missing; /* for each message of the turn, the clients that lack it */
static uint64_t reads;

static void publish(uint64_t messages, uint64_t time)
{
    uint64_t first = publisher.due / publisher.frame;
    for (uint64_t i = 0; i < messages; i++) {
        uint64_t *others = missing + (first + i) % publisher.turn;
        if (*others)
            fail("a client is %llu messages behind", (unsigned long long)publisher.turn);
        *others = (uint64_t)connections;
    }
    receiving.waiting += messages * (uint64_t)connections;
    if (!put_messages(&publisher, messages, time))
        fail("the connection that publishes is lost");
}

/* Read once; return the number of messages that are now complete at all clients. */
static uint64_t receive(struct client *client, uint64_t *time)
{
    int64_t messages = client->stream ? take_events(client, time) : take_messages(client, time);
    if (messages < 0)
        fail("connection %d to %s is lost", client->number, receiving.path);
    uint64_t end = client->received / publisher.echo, complete = 0;
    for (uint64_t i = end - (uint64_t)messages; i < end; i++)
        complete += !--missing[i % publisher.turn];
    reads += messages > 0;
    return complete;
}

/* Publish until this time; with 0, only wait until all clients have received all messages. */
static uint64_t exchange(uint64_t end)
{
    struct epoll_event events[EVENTS];
    uint64_t time = now(CLOCK_MONOTONIC), next = time;
    receiving.last = time;
    if (end && !rate)
        publish(publishing.in_flight, time);
    while (end ? time < end : receiving.waiting > 0) {
        int pause = end && rate ? (int)((next > time ? next - time : 0) / MILLISECOND) : 1000;
        int ready = epoll_wait(poller, events, EVENTS, pause);
        for (int i = 0; i < ready; i++) {
            struct client *client = events[i].data.ptr;
            if (client == &publisher && events[i].events != EPOLLOUT)
                fail("the connection that publishes is lost");
            uint64_t complete = client == &publisher ? 0 : receive(client, &time);
            if (client == &publisher || (end && !rate && complete))
                publish(complete, time);
        }
        time = now(CLOCK_MONOTONIC);
        for (; rate && next <= time && next < end; next += (uint64_t)(SECOND / rate))
            publish(1, next);
        if (receiving.waiting && time > receiving.last + TIMEOUT * SECOND)
            fail("%llu messages are missing, and none was received for %d seconds",
                 (unsigned long long)receiving.waiting, TIMEOUT);
    }
    return time;
}

/* Open a WebSocket, and wait for the echo of its first message. */
static void open_receiver(struct client *client)
{
    char answer[HEAD_SIZE + 1];
    size_t size = publisher.echo, got = 0;
    unsigned char *echo = malloc(size);
    open_client(client, answer);
    if (send(client->fd, publisher.out, publisher.frame, MSG_NOSIGNAL) != (ssize_t)publisher.frame)
        fail("connection %d cannot send: %s", client->number, reason());
    for (ssize_t here; got < size; got += (size_t)here)
        if ((here = recv(client->fd, echo + got, size - got, 0)) <= 0)
            fail("connection %d has no echo: %s", client->number, here ? reason() : "the server has closed it");
    if (memcmp(echo, publisher.in, size))
        fail("connection %d received bytes that are not its echo", client->number);
    free(echo);
}

static void open_all(void)
{
    char answer[HEAD_SIZE + 1];
    for (int i = 0; i < connections; i++) {
        struct client *client = clients + i;
        *client = (struct client){.group = &receiving, .from = &publisher, .number = i};
        (receiving.streams ? open_stream : open_receiver)(client);
        fcntl(client->fd, F_SETFL, O_NONBLOCK);
        watch(client, EPOLL_CTL_ADD, EPOLLIN);
    }
    open_client(&publisher, answer);
    fcntl(publisher.fd, F_SETFL, O_NONBLOCK);
    watch(&publisher, EPOLL_CTL_ADD, EPOLLIN);
}

static void measure(void)
{
    exchange(after(warm_up));
    exchange(0);

    forget(&receiving);
    reads = 0;
    uint64_t before = publisher.due;
    uint64_t load = now(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t used = processor_time(), begin = now(CLOCK_MONOTONIC), end = exchange(after(seconds));
    used = processor_time() - used;
    load = now(CLOCK_PROCESS_CPUTIME_ID) - load;

    /* Messages still in flight count only for the latency, because theirs may be the longest. One more message to all
     * clients shows that they received nothing unexpected before it. */
    uint64_t messages = receiving.messages, published = (publisher.due - before) / publisher.frame;
    double per_read = (double)messages / (double)(reads ? reads : 1);
    exchange(0);
    publish(1, now(CLOCK_MONOTONIC));
    exchange(0);
    receiving.messages = messages;
    printf("{");
    print_span(&receiving, begin, end, used);
    printf(", \"p999_us\": %.1f, \"longest_us\": %.1f", percentile(&receiving.latency, 0.999),
           (double)receiving.latency.longest / 1000);
    printf(", \"published\": %llu, \"per_read\": %.2f, \"load_cpu\": %.6f}\n", (unsigned long long)published, per_read,
           (double)load / SECOND);
}

static void read_options(int argc, char **argv)
{
    static const struct option known[] = {
        {"port", required_argument, NULL, 'p'},        {"pid", required_argument, NULL, 'i'},
        {"connections", required_argument, NULL, 'n'}, {"in-flight", required_argument, NULL, 'm'},
        {"size", required_argument, NULL, 's'},        {"rate", required_argument, NULL, 'r'},
        {"seconds", required_argument, NULL, 't'},     {"warm-up", required_argument, NULL, 'w'},
        {"streams", no_argument, NULL, 'e'},           {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", known, NULL)) != -1;)
        switch (option) {
        case 'p': receiving.port = publishing.port = atoi(optarg); break;
        case 'i': add_process(atoi(optarg)); break;
        case 'n': connections = atoi(optarg); break;
        case 'm': publishing.in_flight = strtoul(optarg, NULL, 10); break;
        case 's': receiving.size = strtoul(optarg, NULL, 10); break;
        case 'r': rate = atof(optarg); break;
        case 't': seconds = atof(optarg); break;
        case 'w': warm_up = atof(optarg); break;
        case 'e': receiving.streams = true; break;
        default: exit(2);
        }
    if (connections < 1 || publishing.in_flight < 1 || rate < 0)
        fail("an option is out of range");
}

int main(int argc, char **argv)
{
    read_options(argc, argv);
    allow_files(connections);
    if (receiving.streams)
        receiving.path = "/events";
    publishing.size = receiving.size;
    publisher.group = &publishing;
    publisher.number = connections;
    make_messages(&publisher);
    missing = calloc(publisher.turn, sizeof *missing);
    clients = calloc((size_t)connections, sizeof *clients);
    if (!missing || !clients)
        fail("no memory");
    poller = epoll_create1(0);
    open_all();
    measure();
    fflush(stdout);
    while (getchar() != EOF)
        ;
}
