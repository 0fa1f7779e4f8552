#include "transport.h"

#include <sys/socket.h>
#include <unistd.h>

const bool over_tls = false;

bool secure(struct client *client)
{
    (void)client;
    return true;
}

ssize_t put_bytes(struct client *client, const void *data, size_t size)
{
    return send(client->fd, data, size, MSG_NOSIGNAL);
}

ssize_t take_bytes(struct client *client, void *data, size_t size)
{
    return recv(client->fd, data, size, 0);
}

void close_socket(struct client *client)
{
    close(client->fd);
}
