/* The reply of a policy daemon, and which ones are none (spec/qrexec-daemon.md, "Malformed"). */
#ifndef REPLY_H
#define REPLY_H

#include <stdbool.h>
#include <stddef.h>

enum { MAX_REPLY = 4095 };

enum reply_key {
    RESULT,
    USER,
    TARGET,
    REQUESTED_TARGET,
    AUTOSTART,
    TARGET_UUID,
    SERVICE,
    POLICY_SOURCE,
    REPLY_KEYS,
};

struct reply {
    char text[MAX_REPLY + 1]; /* one more byte than may come, to see that it came */
    const char *values[REPLY_KEYS]; /* in the text; NULL for a key that is not there */
};

/* Read the text, of this length, into the values. Returns NULL, or what is wrong with it; the values that
 * come before what is wrong are there even so. */
const char *reply_parse(struct reply *reply, size_t length);

bool reply_allows(const struct reply *reply);

#endif
