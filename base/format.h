/* format.h - numbers as people read them. */
#ifndef FORMAT_H
#define FORMAT_H

#include <stdint.h>

#define FORMAT_BYTES_SIZE 16	/* of the text, its end included */
#define FORMAT_DURATION_SIZE 24
#define FORMAT_TIME_SIZE 24

/* Writes a number in decimal, with zeros before it if it has fewer digits than `least`; at
 * most 20 characters, and no NUL. Returns where it ends. A signal handler may call it. */
char *format_digits(char *text, uint64_t n, unsigned least);

/* Writes a number of bytes into text, like "1.5 GiB". Returns text. A signal handler may
 * call it. */
const char *format_bytes(double bytes, char text[FORMAT_BYTES_SIZE]);

/* Writes a time into text, like "2:05" or "1:02:05"; 100 hours and more are written
 * as 99:59:59. Returns text. */
const char *format_duration(double seconds, char text[FORMAT_DURATION_SIZE]);

/* Writes a moment, in seconds since 1970, as "2026-11-25T13:17:09Z". Returns text. A signal
 * handler may call it. */
const char *format_time(int64_t seconds, char text[FORMAT_TIME_SIZE]);

/* The ending of a noun after its number: "1 client", "2 clients". */
#define FORMAT_S(number) ((number) == 1 ? "" : "s")

#endif
