#define _GNU_SOURCE
#include "stream.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { READ_SIZE = 1 << 18, LINE_SIZE = 512 };

/* The decoder's state between two reads. */
struct stream {
    bool chunked;
    enum { LENGTH, LENGTH_LF, CHUNK, CHUNK_CR, CHUNK_LF } part; /* RFC 9112 section 7.1 */
    size_t length;                                              /* of the rest of the chunk */
    bool has_data;                                              /* the current event has data */
    size_t kept;
    unsigned char line[LINE_SIZE]; /* an incomplete line */
};

/* The incomplete line of the last read is placed before the bytes of this read. */
static unsigned char space[LINE_SIZE + READ_SIZE], *const data = space + LINE_SIZE;

/* Reduce the data to the content of its chunks; return their size. */
static size_t join_chunks(struct client *client, size_t size)
{
    struct stream *stream = client->stream;
    size_t out = 0;
    for (size_t at = 0; at < size;) {
        if (stream->part == CHUNK) {
            size_t here = stream->length < size - at ? stream->length : size - at;
            memmove(data + out, data + at, here);
            at += here;
            out += here;
            stream->length -= here;
            if (!stream->length)
                stream->part = CHUNK_CR;
            continue;
        }
        int c = data[at++];
        if (stream->part == LENGTH && isxdigit(c))
            stream->length = stream->length * 16 + (size_t)(isdigit(c) ? c - '0' : tolower(c) - 'a' + 10);
        else if (stream->part == LENGTH && c == '\r' && stream->length)
            stream->part = LENGTH_LF;
        else if (stream->part == LENGTH_LF && c == '\n')
            stream->part = CHUNK;
        else if (stream->part == CHUNK_CR && c == '\r')
            stream->part = CHUNK_LF;
        else if (stream->part == CHUNK_LF && c == '\n')
            stream->part = LENGTH;
        else
            fail("stream %d ended or has an invalid chunk", client->number);
    }
    return out;
}

/* Return true if the line is this field, and reduce the line to its value. */
static bool is_field(const char *name, const unsigned char **line, size_t *size)
{
    size_t length = strlen(name);
    if (*size < length || memcmp(*line, name, length))
        return false;
    *line += length;
    *size -= length;
    return true;
}

/* Read a line (WHATWG HTML section 9.2.6). Every event has one line of data, which must be the published message. Ids,
 * retry times and comments may occur anywhere, and nothing else. Return true at the end of an event. */
static bool read_line(struct client *client, const unsigned char *line, size_t size)
{
    const struct client *from = client->from;
    const unsigned char *whole = line;
    int whole_size = (int)size;
    struct stream *stream = client->stream;
    if (!size) {
        bool event = stream->has_data;
        stream->has_data = false;
        return event;
    }
    if (is_field("data: ", &line, &size)) {
        size_t length = client->group->size;
        if (client->received / from->echo == from->due / from->frame)
            fail("stream %d received more than was published", client->number);
        const unsigned char *echo = from->in + client->received % (from->turn * from->echo);
        if (stream->has_data || size != length || memcmp(line, echo + from->echo - length, length))
            fail("stream %d received event %llu with the wrong data", client->number,
                 (unsigned long long)(client->received / from->echo));
        stream->has_data = true;
    } else if (!is_field(":", &line, &size) && !is_field("id: ", &line, &size)) {
        if (!is_field("retry: ", &line, &size) || !size || strspn((const char *)line, "0123456789") < size)
            fail("stream %d received an unexpected line: %.*s", client->number, whole_size, (const char *)whole);
    }
    return false;
}

static int64_t read_lines(struct client *client, size_t size, uint64_t time)
{
    struct stream *stream = client->stream;
    int64_t events = 0;
    if (stream->chunked)
        size = join_chunks(client, size);
    unsigned char *line = data - stream->kept, *end = data + size, *next;
    memcpy(line, stream->line, stream->kept);
    for (; (next = memchr(line, '\n', (size_t)(end - line))); line = next + 1) {
        size_t length = (size_t)(next - line);
        if (length && next[-1] == '\r')
            length--;
        if (memchr(line, '\r', length) || memchr(line, 0, length))
            fail("stream %d received a CR or a NUL within a line", client->number);
        if (read_line(client, line, length))
            events += arrived(client, client->from->echo, time);
    }
    stream->kept = (size_t)(end - line);
    if (stream->kept > LINE_SIZE)
        fail("stream %d received a line longer than %d bytes", client->number, LINE_SIZE);
    memcpy(stream->line, line, stream->kept);
    return events;
}

void open_stream(struct client *client)
{
    char answer[HEAD_SIZE + 1];
    client->stream = calloc(1, sizeof *client->stream);
    if (!client->stream)
        fail("no memory for streams");
    if (client->group->size > LINE_SIZE / 2)
        fail("an event has at most %d bytes", LINE_SIZE / 2);
    open_client(client, answer);
    char *end = strstr(answer, "\r\n\r\n"), *chunked = strcasestr(answer, "\r\nTransfer-Encoding: chunked\r\n");
    client->stream->chunked = chunked && chunked < end;
    size_t size = strlen(end + 4);
    memcpy(data, end + 4, size);
    read_lines(client, size, now(CLOCK_MONOTONIC));
}

int64_t take_events(struct client *client, uint64_t *time)
{
    ssize_t got = recv(client->fd, data, READ_SIZE, 0);
    *time = now(CLOCK_MONOTONIC);
    if (got <= 0)
        return got < 0 && errno == EAGAIN ? 0 : -1;
    return read_lines(client, (size_t)got, *time);
}
