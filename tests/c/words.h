/* What the words of a qube have become when dom0 sees them (spec/qrexec-daemon.md, "Asking"). */
#ifndef WORDS_H
#define WORDS_H

enum {
    MAX_NAME = 63,       /* bytes of a qube's name; the rest is cut off */
    MAX_SERVICE = 61440, /* bytes of a service and its argument that are sent at most */
};

/* Both change the word in place: what is not allowed in it becomes '_'. */
void clean_qube(char *untrusted_name);
void clean_service(char *untrusted_service);

#endif
