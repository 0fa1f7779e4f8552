/* TLS 1.3 by OpenSSL, with X25519 and AES-256-GCM, without resumption. The certificate is not verified, because that is
 * work of the client alone. */
#include "transport.h"

#include <errno.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <signal.h>
#include <unistd.h>

enum { READ_AHEAD = 1 << 16 };

const bool over_tls = true;

static SSL_CTX *make_context(void)
{
    SSL_CTX *context = SSL_CTX_new(TLS_client_method());
    if (!context || !SSL_CTX_set_min_proto_version(context, TLS1_3_VERSION) ||
        !SSL_CTX_set_ciphersuites(context, "TLS_AES_256_GCM_SHA384") || !SSL_CTX_set1_groups_list(context, "X25519"))
        fail("OpenSSL has no TLS 1.3 with X25519 and AES-256-GCM");
    SSL_CTX_set_mode(context, SSL_MODE_ENABLE_PARTIAL_WRITE | SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_options(context, SSL_OP_IGNORE_UNEXPECTED_EOF); /* the end of the socket is the end of the stream */
    SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_read_ahead(context, 1);
    SSL_CTX_set_default_read_buffer_len(context, READ_AHEAD);
    signal(SIGPIPE, SIG_IGN); /* OpenSSL writes without MSG_NOSIGNAL */
    return context;
}

/* Forget earlier errors, because the next call only adds its own. */
static void clear_errors(void)
{
    ERR_clear_error();
    errno = 0;
}

/* Return the result of a call as recv(2) and send(2) do. */
static ssize_t result_of(struct client *client, int result)
{
    if (result > 0)
        return result;
    int cause = errno, error = SSL_get_error(client->tls, result);
    errno = cause;
    if (error == SSL_ERROR_ZERO_RETURN)
        return 0;
    if (error == SSL_ERROR_WANT_READ || error == SSL_ERROR_WANT_WRITE)
        errno = EAGAIN;
    else if (error != SSL_ERROR_SYSCALL)
        errno = EPROTO;
    return -1;
}

bool secure(struct client *client)
{
    static SSL_CTX *context;
    if (!context)
        context = make_context();
    client->tls = SSL_new(context);
    if (!client->tls || !SSL_set_fd(client->tls, client->fd))
        fail("no memory for TLS");
    clear_errors();
    return result_of(client, SSL_connect(client->tls)) > 0;
}

ssize_t put_bytes(struct client *client, const void *data, size_t size)
{
    clear_errors();
    return result_of(client, SSL_write(client->tls, data, (int)size));
}

/* Read all records that the socket and OpenSSL have, because the poller does not see records that OpenSSL has read. */
ssize_t take_bytes(struct client *client, void *data, size_t size)
{
    size_t got = 0;
    do {
        clear_errors();
        ssize_t here = result_of(client, SSL_read(client->tls, (char *)data + got, (int)(size - got)));
        if (here <= 0)
            return got ? (ssize_t)got : here;
        got += (size_t)here;
    } while (got < size && SSL_has_pending(client->tls));
    if (SSL_has_pending(client->tls) && got == size)
        fail("connection %d received more than %zu bytes at once", client->number, size);
    return (ssize_t)got;
}

void close_socket(struct client *client)
{
    SSL_shutdown(client->tls);
    SSL_free(client->tls);
    close(client->fd);
}
