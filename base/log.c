/* log.c - messages, one write each. Used by every process of every program. */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_SIZE 2048	/* bytes; a longer message is cut */

/* Set at start-up, and by log_role after a fork. */
static const char *program = "cascade";
static const char *role;
static enum log_level level = LOG_NORMAL;
static bool transient_line;

void log_program(const char *name)
{
	int fd;

	program = name;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}

void log_role(const char *name)
{
	role = name;
}

void log_set_level(enum log_level new_level)
{
	level = new_level;
}

enum log_level log_get_level(void)
{
	return level;
}

void log_transient_line(bool drawn)
{
	transient_line = drawn;
}

/* Adds to the line what fits; returns the new length, which leaves room for
 * the newline. */
LOG_FORMAT_AT(3, 0)
static size_t append(char line[LINE_SIZE], size_t used, const char *format, va_list args)
{
	int n = vsnprintf(line + used, LINE_SIZE - 1 - used, format, args);

	if (n < 0)
		return used;
	return used + (size_t)n < LINE_SIZE - 2 ? used + (size_t)n : LINE_SIZE - 2;
}

LOG_FORMAT_AT(3, 4)
static size_t append_text(char line[LINE_SIZE], size_t used, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	used = append(line, used, format, args);
	va_end(args);
	return used;
}

/* error: an errno whose text ends the line, or 0. */
LOG_FORMAT_AT(2, 0)
static void say(int error, const char *format, va_list args)
{
	char line[LINE_SIZE];
	size_t used = 0;
	int saved = errno;

	if (transient_line)
		used = append_text(line, used, "\r\033[K");
	used = append_text(line, used, "%s: ", program);
	if (role != NULL)
		used = append_text(line, used, "%s[%ld]: ", role, (long)getpid());
	size_t text = used;
	used = append(line, used, format, args);
	log_clean(line + text);		/* file names, too, come from anywhere */
	if (error != 0)
		used = append_text(line, used, ": %s", strerror(error));
	line[used++] = '\n';
	transient_line = false;
	/* Where standard error is gone there is nobody left to tell. */
	(void)!write(STDERR_FILENO, line, used);
	errno = saved;
}

void log_warn(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(errno, format, args);
	va_end(args);
}

void log_warnx(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(0, format, args);
	va_end(args);
}

void log_info(const char *format, ...)
{
	va_list args;

	if (level < LOG_NORMAL)
		return;
	va_start(args, format);
	say(0, format, args);
	va_end(args);
}

void log_status(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(0, format, args);
	va_end(args);
}

void log_debug(const char *format, ...)
{
	va_list args;

	if (level < LOG_VERBOSE)
		return;
	va_start(args, format);
	say(0, format, args);
	va_end(args);
}

void fatal(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(errno, format, args);
	va_end(args);
	exit(EXIT_FAILURE);
}

void fatalx(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(0, format, args);
	va_end(args);
	exit(EXIT_FAILURE);
}

/* How many bytes the UTF-8 character at p has; 0 if it is none, or a control
 * character. */
static size_t printable_length(const unsigned char *p)
{
	size_t length = *p < 0x80 ? 1 : *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf5 ? 4 : 0;

	if (*p < ' ' || *p == 0x7f || (p[0] == 0xc2 && p[1] < 0xa0))	/* U+0080 to U+009F */
		return 0;
	for (size_t i = 1; i < length; i++)
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	return length;
}

void log_clean(char *text)
{
	for (unsigned char *p = (unsigned char *)text; *p != '\0'; ) {
		size_t length = printable_length(p);
		if (length == 0)
			*p = '?';
		p += length == 0 ? 1 : length;
	}
}
