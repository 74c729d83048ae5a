/* format.h - numbers as people read them. */
#ifndef FORMAT_H
#define FORMAT_H

#define FORMAT_BYTES_SIZE 16	/* of the text, its end included */
#define FORMAT_DURATION_SIZE 24

/* Writes a number of bytes into text, like "1.5 GiB"; returns text. */
const char *format_bytes(double bytes, char text[FORMAT_BYTES_SIZE]);

/* Writes a time of less than 100 hours into text, like "2:05" or "1:02:05" (of a
 * longer one, 99:59:59); returns text. */
const char *format_duration(double seconds, char text[FORMAT_DURATION_SIZE]);

/* What a noun has behind its number: "1 client", "2 clients". */
#define FORMAT_S(number) ((number) == 1 ? "" : "s")

#endif
