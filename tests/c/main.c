/* Plays the C qrexec daemon of one qube: asks the policy, carries out what it allows, and tells of each step.
 *
 *     stock-daemon [OPTIONS] SOURCE REQUESTED_SOURCE TARGET SERVICE    one call, its payload on standard input
 *     stock-daemon [OPTIONS]     questions only: a line each on standard input, the same words between tabs
 */
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "carry.h"
#include "policy.h"
#include "trace.h"
#include "words.h"

enum {
    PATIENCE = 120, /* seconds after which a test that hangs is ended by SIGALRM */
    USAGE = 2,
    WORDS = 4,
};

static const char usage[] =
    "usage: stock-daemon [-o] [-p POLICY_SOCKET] [-f POLICY_PROGRAM] [-q QUBESD_SOCKET] [-s SERVICE_PATH]\n"
    "           [-c CLIENT] [-w MILLISECONDS] [-x BYTES] [SOURCE REQUESTED_SOURCE TARGET SERVICE]\n"
    "-o  leave requested_source out, as agents of old do\n"
    "-w  stay silent so long after each connecting\n"
    "-x  send so many bytes after the request\n";

/* The source is the daemon's own qube; all else is the caller's words. */
static bool ask(const struct policy *policy, bool old, char *words[WORDS], struct question *question,
                struct reply *reply)
{
    clean_qube(words[1]);
    clean_qube(words[2]);
    clean_service(words[3]);
    *question = (struct question){words[0], old ? NULL : words[1], words[2], words[3]};
    bool allowed = strlen(words[0]) <= MAX_NAME && policy_allows(policy, question, reply);
    trace(allowed ? "allowed" : "refused", NULL);
    return allowed;
}

static int ask_each(const struct policy *policy, bool old)
{
    static struct reply reply;
    struct question question;
    char *line = NULL;
    size_t room = 0;
    ssize_t length;

    while ((length = getline(&line, &room, stdin)) > 0) {
        char *words[WORDS], *rest = line;

        line[length - 1] = '\0';
        for (int i = 0; i < WORDS; i++)
            if (!(words[i] = strsep(&rest, "\t")))
                return USAGE;
        ask(policy, old, words, &question, &reply);
    }
    free(line);
    return 0;
}

int main(int count, char *arguments[])
{
    static struct reply reply;
    struct policy policy = {.socket = "/run/qubes/policy.sock", .program = "/usr/bin/qrexec-policy-exec"};
    struct places places = {.qubesd = "/run/qubesd.sock", .services = "/etc/qubes-rpc"};
    struct question question;
    bool old = false;

    for (int option; (option = getopt(count, arguments, "op:f:q:s:c:w:x:")) != -1;)
        switch (option) {
        case 'o': old = true; break;
        case 'p': policy.socket = optarg; break;
        case 'f': policy.program = optarg; break;
        case 'q': places.qubesd = optarg; break;
        case 's': places.services = optarg; break;
        case 'c': places.client = optarg; break;
        case 'w': policy.silence = places.silence = (unsigned)strtoul(optarg, NULL, 10); break;
        case 'x': policy.trailing = strtoul(optarg, NULL, 10); break;
        default: fputs(usage, stderr); return USAGE;
        }
    alarm(PATIENCE);
    if (optind == count)
        return ask_each(&policy, old);
    if (count - optind != WORDS) {
        fputs(usage, stderr);
        return USAGE;
    }
    if (!ask(&policy, old, arguments + optind, &question, &reply))
        return REFUSED;
    return carry_out(&places, &question, &reply);
}
