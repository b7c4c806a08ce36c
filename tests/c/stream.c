#include "stream.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "trace.h"

enum { CHUNK = 65536 };

/* The folder by its descriptor: an address has room for 107 bytes only. */
static int address_of(const char *path, struct sockaddr_un *address, int *folder)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    char parent[4096] = ".";

    if (slash && snprintf(parent, sizeof parent, "%.*s", (int)(slash - path + 1), path) >= (int)sizeof parent) {
        errno = ENAMETOOLONG;
        return -1;
    }
    *folder = open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (*folder < 0)
        return -1;
    memset(address, 0, sizeof *address);
    address->sun_family = AF_UNIX;
    int length = snprintf(address->sun_path, sizeof address->sun_path, "/proc/self/fd/%d/%s", *folder, name);
    if (length >= (int)sizeof address->sun_path) {
        close(*folder);
        errno = ENAMETOOLONG;
        return -1;
    }
    return 0;
}

int stream_connect(const char *path)
{
    struct sockaddr_un address;
    int folder;

    if (address_of(path, &address, &folder))
        return -1;
    int connection = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int error = errno;
    if (connection >= 0 && connect(connection, (struct sockaddr *)&address, sizeof address)) {
        error = errno;
        close(connection);
        connection = -1;
    }
    close(folder);
    errno = error;
    return connection;
}

int stream_send(int connection, const char *data, size_t length)
{
    while (length) {
        ssize_t sent = send(connection, data, length, MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent < 0)
            return -1;
        data += sent;
        length -= (size_t)sent;
    }
    return 0;
}

ssize_t stream_read(int source, char *data, size_t room)
{
    size_t length = 0;

    while (length < room) {
        ssize_t got = read(source, data + length, room - length);
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return -1;
        if (!got)
            break;
        length += (size_t)got;
    }
    return (ssize_t)length;
}

/* What was read of standard input and not sent yet. */
struct pending {
    char data[CHUNK];
    size_t start, end;
    bool open;
};

static int take_input(struct pending *input, int connection)
{
    ssize_t got = read(STDIN_FILENO, input->data, sizeof input->data);

    if (got < 0)
        return errno == EINTR ? 0 : -1;
    input->start = 0;
    input->end = (size_t)got;
    if (!got) {
        input->open = false;
        shutdown(connection, SHUT_WR);
    }
    return 0;
}

static void pass_input(struct pending *input, int connection)
{
    ssize_t sent =
        send(connection, input->data + input->start, input->end - input->start, MSG_NOSIGNAL | MSG_DONTWAIT);

    if (sent >= 0)
        input->start += (size_t)sent;
    else if (errno == EPIPE || errno == ECONNRESET) {
        input->open = false;
        input->start = input->end;
    }
}

int stream_join(int connection)
{
    static struct pending input;
    char output[CHUNK];
    bool answered = false;

    input = (struct pending){.open = true};
    while (!answered || input.open) {
        bool full = input.start < input.end;
        struct pollfd ends[] = {
            {.fd = connection, .events = (short)((answered ? 0 : POLLIN) | (full ? POLLOUT : 0))},
            {.fd = input.open && !full ? STDIN_FILENO : -1, .events = POLLIN},
        };
        if (poll(ends, 2, -1) < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        if (ends[1].revents && take_input(&input, connection))
            return -1;
        if (ends[0].revents & POLLOUT)
            pass_input(&input, connection);
        if (answered && ends[0].revents & (POLLHUP | POLLERR))
            return 0;
        if (!answered && ends[0].revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t got = read(connection, output, sizeof output);
            if (got < 0 && errno != EINTR)
                return -1;
            if (got > 0)
                trace_bytes("output", NULL, output, (size_t)got);
            answered = !got;
        }
    }
    return 0;
}
