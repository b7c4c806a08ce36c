/* Carrying out a call that was allowed (spec/qrexec-daemon.md, "What qubesd.sock sees", "Services in dom0"). */
#ifndef CARRY_H
#define CARRY_H

#include "policy.h"

enum {
    REFUSED = 126,
    NOT_FOUND = 127,
    FAILED = 125,
};

struct places {
    const char *qubesd;   /* where the daemon's own calls go */
    const char *services; /* folders with dom0's services, separated by ':' */
    const char *client;   /* what reaches a qube: CLIENT TARGET USER:QUBESRPC SERVICE SOURCE */
    unsigned silence;     /* milliseconds between connecting to a service and its header */
};

/* Returns the exit status of the call. */
int carry_out(const struct places *places, const struct question *question, const struct reply *reply);

#endif
