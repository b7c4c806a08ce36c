/* A question to the policy: to the daemon's socket, and where that gives no good reply, to the program. */
#ifndef POLICY_H
#define POLICY_H

#include <stdbool.h>
#include <stddef.h>

#include "reply.h"

struct question {
    const char *source;
    const char *requested_source; /* NULL for an agent of old, which leaves it out */
    const char *target;
    const char *service;
};

struct policy {
    const char *socket;
    const char *program;   /* asked as PROGRAM -- SOURCE TARGET SERVICE */
    unsigned silence;      /* milliseconds between connecting and asking */
    size_t trailing;       /* bytes sent after the request, which no qrexec daemon does */
};

/* Whether the call is allowed; the reply then says how. Traces "reply", "lost", "malformed", "fallback". */
bool policy_allows(const struct policy *policy, const struct question *question, struct reply *reply);

void pause_for(unsigned milliseconds);

#endif
