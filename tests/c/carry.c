#include "carry.h"

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "stream.h"
#include "trace.h"

enum { MAX_HEADER = 65536, MAX_ANSWER = 4096 };

static const char disposable[] = "@dispvm:";

static bool begins(const char *text, const char *with)
{
    return !strncmp(text, with, strlen(with));
}

/* Where in the folders a service is; NULL where it is not. */
static const char *find_service(const char *folders, const char *name)
{
    static char path[4096];
    struct stat found;

    for (const char *folder = folders; folder; folder = strchr(folder, ':') ? strchr(folder, ':') + 1 : NULL) {
        int length = snprintf(path, sizeof path, "%.*s/%s", (int)strcspn(folder, ":"), folder, name);
        if (length < (int)sizeof path && !stat(path, &found))
            return path;
    }
    return NULL;
}

/* With its argument it may be another service than without. */
static const char *find_called(const char *folders, const char *called)
{
    const char *path = strchr(called, '/') ? NULL : find_service(folders, called);
    char *plain = strndup(called, strcspn(called, "+"));

    if (!plain)
        abort();
    if (!path && !strchr(plain, '/'))
        path = find_service(folders, plain);
    free(plain);
    return path;
}

static int call_dom0(const struct places *places, const char *called, const char *source, const char *target)
{
    static char header[MAX_HEADER];
    const char *path = find_called(places->services, called);
    struct stat found;

    if (!path)
        return NOT_FOUND;
    if (stat(path, &found) || !S_ISSOCK(found.st_mode))
        return FAILED;
    int length = snprintf(header, sizeof header, "%s%s %s %s %s", called, strchr(called, '+') ? "" : "+", source,
                          *target == '@' ? "keyword" : "name", *target == '@' ? target + 1 : target);
    if (length >= (int)sizeof header)
        return FAILED;
    trace("service", header, NULL);
    int connection = stream_connect(path);
    if (connection < 0)
        return FAILED;
    pause_for(places->silence);
    int failed = stream_send(connection, header, (size_t)length + 1) || stream_join(connection);
    close(connection);
    return failed ? FAILED : 0;
}

/* A call of dom0's own. Returns the length of its answer, which ends with a NUL that is not counted. */
static ssize_t call_qubesd(const struct places *places, const char *service, const char *target,
                           const char *payload, char answer[MAX_ANSWER + 1])
{
    char header[512];
    ssize_t got = -1;

    int length = snprintf(header, sizeof header, "%s+ dom0 name %s", service, target);
    if (length >= (int)sizeof header)
        return -1;
    trace("admin", header, payload, NULL);
    int connection = stream_connect(places->qubesd);
    if (connection < 0)
        return -1;
    if (!stream_send(connection, header, (size_t)length + 1) &&
        !stream_send(connection, payload, strlen(payload)) && !shutdown(connection, SHUT_WR))
        got = stream_read(connection, answer, MAX_ANSWER);
    close(connection);
    answer[got < 0 ? 0 : got] = '\0';
    trace_bytes("answer", NULL, answer, got < 0 ? 0 : (size_t)got);
    return got;
}

static bool start(const struct places *places, const char *target)
{
    static const char running[] = "2\0QubesVMNotHaltedError";
    char answer[MAX_ANSWER + 1];
    ssize_t length = call_qubesd(places, "admin.vm.Start", target, "", answer);

    return (length >= 2 && !memcmp(answer, "0", 2)) ||
           (length > (ssize_t)sizeof running && !memcmp(answer, running, sizeof running));
}

/* The new qube's name, or its uuid if the template came with one; NULL where there is none. */
static const char *create(const struct places *places, const char *template)
{
    static char answer[MAX_ANSWER + 1];
    bool by_uuid = begins(template, "uuid:");
    ssize_t length =
        call_qubesd(places, "admin.vm.CreateDisposable", template, by_uuid ? "uuid" : "", answer);

    if (length < 3 || memcmp(answer, "0", 2) || strlen(answer + 2) != (size_t)length - 2)
        return NULL;
    return by_uuid && !begins(answer + 2, "uuid:") ? NULL : answer + 2;
}

static int call_qube(const struct places *places, const char *target, const char *user, const char *called,
                     const char *source)
{
    static char command[MAX_HEADER];
    int status;

    if (snprintf(command, sizeof command, "%s:QUBESRPC %s %s", user, called, source) >= (int)sizeof command)
        return FAILED;
    trace("called", target, command, NULL);
    if (!places->client)
        return 0;
    pid_t child = fork();
    if (child < 0)
        abort();
    if (!child) {
        execl(places->client, places->client, target, command, (char *)NULL);
        _exit(FAILED);
    }
    while (waitpid(child, &status, 0) < 0)
        if (errno != EINTR)
            abort();
    return WIFEXITED(status) ? WEXITSTATUS(status) : FAILED;
}

int carry_out(const struct places *places, const struct question *question, const struct reply *reply)
{
    const char *const *values = reply->values;
    const char *called = values[SERVICE] ? values[SERVICE] : question->service;
    const char *source = values[POLICY_SOURCE] ? values[POLICY_SOURCE] : question->source;
    const char *target = values[TARGET_UUID] ? values[TARGET_UUID] : values[TARGET];
    char answer[MAX_ANSWER + 1];

    if (!strcmp(values[TARGET], "dom0"))
        return call_dom0(places, called, source, values[REQUESTED_TARGET]);
    bool own = begins(target, disposable);
    if (own && !(target = create(places, target + strlen(disposable))))
        return FAILED;
    bool to_start = own || !strcmp(values[AUTOSTART], "True");
    int status = to_start && !start(places, target)
                     ? FAILED
                     : call_qube(places, target, values[USER], called, source);
    if (own)
        call_qubesd(places, "admin.vm.Kill", target, "", answer);
    return status;
}
