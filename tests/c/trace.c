#include "trace.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static void write_escaped(const char *data, size_t length)
{
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)data[i];
        if (byte < 0x20 || byte > 0x7e || byte == '\\')
            printf("\\x%02x", byte);
        else
            putchar(byte);
    }
}

/* Whoever reads along sees each step when it is done. */
static void end_line(void)
{
    putchar('\n');
    fflush(stdout);
}

void trace(const char *step, ...)
{
    va_list words;
    const char *word;

    fputs(step, stdout);
    va_start(words, step);
    while ((word = va_arg(words, const char *))) {
        putchar('\t');
        write_escaped(word, strlen(word));
    }
    va_end(words);
    end_line();
}

void trace_bytes(const char *step, const char *word, const char *data, size_t length)
{
    fputs(step, stdout);
    if (word) {
        putchar('\t');
        write_escaped(word, strlen(word));
    }
    putchar('\t');
    write_escaped(data, length);
    end_line();
}
