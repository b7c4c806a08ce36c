#include "words.h"

#include <stdbool.h>
#include <string.h>

/* By hand: what isalnum() says depends on the locale. */
static bool is_plain(char byte)
{
    return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z') || (byte >= '0' && byte <= '9') ||
           byte == '_' || byte == '-' || byte == '.';
}

static void clean(char *untrusted_word, const char *also)
{
    for (char *byte = untrusted_word; *byte; byte++)
        if (!is_plain(*byte) && !strchr(also, *byte))
            *byte = '_';
}

void clean_qube(char *untrusted_name)
{
    if (strlen(untrusted_name) > MAX_NAME)
        untrusted_name[MAX_NAME] = '\0';
    /* The old way to write a keyword, from shells that had no quotes around it. */
    for (char *byte = untrusted_name; *byte; byte++)
        if (*byte == '$')
            *byte = '@';
    clean(untrusted_name, "@:");
}

void clean_service(char *untrusted_service)
{
    if (strlen(untrusted_service) > MAX_SERVICE)
        untrusted_service[MAX_SERVICE] = '\0';
    clean(untrusted_service, "+");
}
