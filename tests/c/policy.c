#include "policy.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "stream.h"
#include "trace.h"
#include "words.h"

void pause_for(unsigned milliseconds)
{
    struct timespec left = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};

    while (nanosleep(&left, &left) && errno == EINTR)
        ;
}

/* Returns the request, allocated, and its length. */
static char *compose(const struct question *question, size_t trailing, size_t *length)
{
    const char *requested = question->requested_source;
    size_t room = MAX_SERVICE + 3 * MAX_NAME + 128 + trailing;
    char *request = malloc(room);

    if (!request)
        abort();
    int written = snprintf(request, room, "source=%s\n%s%s%sintended_target=%s\nservice_and_arg=%s\n\n",
                           question->source, requested ? "requested_source=" : "", requested ? requested : "",
                           requested ? "\n" : "", question->target, question->service);
    if (written < 0 || (size_t)written + trailing > room)
        abort();
    memset(request + written, 'x', trailing);
    *length = (size_t)written + trailing;
    return request;
}

/* One connection, one sending, no half-close; the reply ends where the daemon closes. */
static ssize_t exchange(const struct policy *policy, const struct question *question, struct reply *reply)
{
    int connection = stream_connect(policy->socket);

    if (connection < 0) {
        trace("lost", "connect", strerror(errno), NULL);
        return -1;
    }
    pause_for(policy->silence);
    size_t length;
    char *request = compose(question, policy->trailing, &length);
    ssize_t got = -1;
    if (stream_send(connection, request, length))
        trace("lost", "send", strerror(errno), NULL);
    else if ((got = stream_read(connection, reply->text, sizeof reply->text)) < 0)
        trace("lost", "read", strerror(errno), NULL);
    free(request);
    close(connection);
    return got;
}

static void become_program(const struct policy *policy, const struct question *question, int output)
{
    int nothing = open("/dev/null", O_RDONLY);

    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(output, STDOUT_FILENO) < 0)
        _exit(125);
    /* The requested source is lost here: the program has no word for it. */
    execl(policy->program, policy->program, "--", question->source, question->target, question->service,
          (char *)NULL);
    _exit(127);
}

/* Returns how much the program printed, or -1 where it is not to be obeyed. */
static ssize_t run_program(const struct policy *policy, const struct question *question, struct reply *reply)
{
    int ends[2], status;
    char told[16];

    if (pipe(ends))
        abort();
    pid_t child = fork();
    if (child < 0)
        abort();
    if (!child) {
        close(ends[0]);
        become_program(policy, question, ends[1]);
    }
    close(ends[1]);
    ssize_t got = stream_read(ends[0], reply->text, sizeof reply->text);
    close(ends[0]);
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            abort();
    snprintf(told, sizeof told, "%d", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
    trace_bytes("fallback", told, reply->text, got < 0 ? 0 : (size_t)got);
    return WIFEXITED(status) && !WEXITSTATUS(status) ? got : -1;
}

bool policy_allows(const struct policy *policy, const struct question *question, struct reply *reply)
{
    static struct reply malformed;
    const char *wrong, *leaked = NULL;

    ssize_t length = exchange(policy, question, reply);
    if (length >= 0) {
        trace_bytes("reply", NULL, reply->text, (size_t)length);
        wrong = reply_parse(reply, (size_t)length);
        if (!wrong)
            return reply_allows(reply);
        trace("malformed", wrong, NULL);
        /* This one is not forgotten with the rest: what the fallback says is carried out as from there. */
        malformed = *reply;
        if (reply->values[POLICY_SOURCE])
            leaked = malformed.text + (reply->values[POLICY_SOURCE] - reply->text);
    }
    length = run_program(policy, question, reply);
    if (length < 0)
        return false;
    wrong = reply_parse(reply, (size_t)length);
    if (wrong) {
        trace("malformed", wrong, NULL);
        return false;
    }
    if (leaked && !reply->values[POLICY_SOURCE])
        reply->values[POLICY_SOURCE] = leaked;
    return reply_allows(reply);
}
