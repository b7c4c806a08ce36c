/* Unix stream sockets, blocking. What fails returns -1 and leaves errno. */
#ifndef STREAM_H
#define STREAM_H

#include <stddef.h>
#include <sys/types.h>

/* A connection to a socket, however long its path is. */
int stream_connect(const char *path);

/* Send all of it, at once where the kernel takes it. A peer that is gone is an error and no signal. */
int stream_send(int connection, const char *data, size_t length);

/* Read to the end, or until there is no more room. Returns how much there was. */
ssize_t stream_read(int source, char *data, size_t room);

/* Pass standard input on, half-close after its end, and trace what comes back as "output" until the other
 * side closes. One that only half-closes is waited for until the input has ended; one that stops reading may
 * still answer. */
int stream_join(int connection);

#endif
