/* What was done, for whoever tests: a line for each step, its words separated by tabs. A backslash and all
 * that is not printable ASCII is written \xNN. */
#ifndef TRACE_H
#define TRACE_H

#include <stddef.h>

/* A step and its words, the last argument being NULL. */
void trace(const char *step, ...) __attribute__((sentinel));

/* A step, a word and bytes; without the word if it is NULL. */
void trace_bytes(const char *step, const char *word, const char *data, size_t length);

#endif
