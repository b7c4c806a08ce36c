#include "reply.h"

#include <string.h>

static const char *const names[REPLY_KEYS] = {
    [RESULT] = "result",
    [USER] = "user",
    [TARGET] = "target",
    [REQUESTED_TARGET] = "requested_target",
    [AUTOSTART] = "autostart",
    [TARGET_UUID] = "target_uuid",
    [SERVICE] = "service",
    [POLICY_SOURCE] = "policy_source",
};

/* All of an allow, none of a deny. */
static const enum reply_key of_allow[] = {USER, TARGET, REQUESTED_TARGET, AUTOSTART};

/* Other keys are passed over; values are not looked at here. */
static const char *take_line(struct reply *reply, char *line)
{
    char *equals = strchr(line, '=');

    if (!*line)
        return "a blank line";
    if (!equals)
        return "a line without '='";
    *equals = '\0';
    for (enum reply_key key = 0; key < REPLY_KEYS; key++) {
        if (strcmp(line, names[key]))
            continue;
        if (reply->values[key])
            return "a key twice";
        reply->values[key] = equals + 1;
    }
    return NULL;
}

static const char *check(const struct reply *reply)
{
    const char *result = reply->values[RESULT];

    if (!result)
        return "no result";
    if (!strcmp(result, "deny")) {
        for (size_t i = 0; i < sizeof of_allow / sizeof *of_allow; i++)
            if (reply->values[of_allow[i]])
                return "a deny with a key of an allow";
        return NULL;
    }
    if (strcmp(result, "allow"))
        return "neither allow nor deny";
    for (size_t i = 0; i < sizeof of_allow / sizeof *of_allow; i++)
        if (!reply->values[of_allow[i]])
            return "an allow without one of its keys";
    if (strcmp(reply->values[AUTOSTART], "True") && strcmp(reply->values[AUTOSTART], "False"))
        return "autostart is neither True nor False";
    return NULL;
}

const char *reply_parse(struct reply *reply, size_t length)
{
    memset(reply->values, 0, sizeof reply->values);
    if (!length)
        return "empty";
    if (length > MAX_REPLY)
        return "too long";
    if (memchr(reply->text, '\0', length))
        return "a NUL";
    if (reply->text[length - 1] == '\n')
        length--;
    reply->text[length] = '\0';
    for (char *line = reply->text, *next; line; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        const char *wrong = take_line(reply, line);
        if (wrong)
            return wrong;
    }
    return check(reply);
}

bool reply_allows(const struct reply *reply)
{
    return !strcmp(reply->values[RESULT], "allow");
}
