/* log.c - messages for people, one write each. Every process of every program uses
 * it. */
#include "base/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#if defined(__linux__) && !defined(PORTABLE)
#include <sys/syscall.h>
#include <sys/uio.h>
#endif

#include "base/clock.h"
#include "base/exits.h"
#include "base/format.h"

#define LINE_SIZE 2048	/* bytes; a longer message is cut. At most PIPE_BUF, so that pipes keep lines whole */
#define WAIT_MS 1000	/* for a line to be written */
#define ERASE_LINE "\r\033[K"
#define SAID_MS 10000	/* between two messages about what happens often */

/* Set at start-up, and by log_role after a fork. */
static const char *program = "cascade";
static const char *role;
static enum log_level level = LOG_NORMAL;
static bool timestamps;
static volatile sig_atomic_t drawn;	/* a line that is redrawn stands on the terminal, */
static bool beside_drawn;		/* or may stand there, by another process */

/* Where lines go, and whether they can be written. */
static int out = STDERR_FILENO;
static enum { OTHER, PIPE, SOCKET } kind;
static bool never_wait, stuck;		/* stuck: the last line couldn't be written */
static bool cut;			/* a part of the last line was */
static atomic_uint own_lost, *lost = &own_lost;

/* A terminal that is stopped may take a part of a line and block, and poll doesn't
 * tell. So the terminal is opened once more, non-blocking. Setting O_NONBLOCK on
 * standard error itself would change it for all programs that share it. */
static void open_terminal(void)
{
	const char *name = isatty(STDERR_FILENO) ? ttyname(STDERR_FILENO) : NULL;
	int fd = name == NULL ? -1 : open(name, O_WRONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	struct stat opened, wanted;

	if (fd >= 0 && fstat(fd, &opened) == 0 && fstat(STDERR_FILENO, &wanted) == 0 &&
	    opened.st_rdev == wanted.st_rdev && opened.st_ino == wanted.st_ino)
		out = fd;
	else if (fd >= 0)
		close(fd);
}

static void look_at_standard_error(void)
{
	struct stat st;

	if (fstat(STDERR_FILENO, &st) == 0)
		kind = S_ISFIFO(st.st_mode) ? PIPE : S_ISSOCK(st.st_mode) ? SOCKET : OTHER;
	open_terminal();
}

static void tell_at_exit(void)
{
	log_tell_lost();
}

void log_program(const char *name)
{
	int fd;

	program = name;
	do
		fd = open("/dev/null", O_RDWR);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
	look_at_standard_error();
	atexit(tell_at_exit);	/* if this fails, nothing is reported at exit */
}

void log_role(const char *name)
{
	role = name;
	own_lost = 0;	/* the parent reports those from before the fork */
}

void log_never_wait(void)
{
	never_wait = true;
}

void log_share_lost(atomic_uint *counter)
{
	atomic_fetch_add(counter, atomic_exchange(lost, 0));
	lost = counter;
}

void log_set_level(enum log_level new_level)
{
	level = new_level;
}

void log_timestamps(void)
{
	timestamps = true;
}

enum log_level log_get_level(void)
{
	return level;
}

static size_t add(char line[LINE_SIZE], size_t used, const char *text)
{
	size_t length = strlen(text);

	if (length > LINE_SIZE - 2 - used)
		length = LINE_SIZE - 2 - used;
	memcpy(line + used, text, length);
	return used + length;
}

/* Begins a line, in a signal handler too. Returns its length. */
static size_t begin_line(char line[LINE_SIZE], bool erases)
{
	char now[FORMAT_TIME_SIZE];
	size_t used = add(line, 0, erases ? ERASE_LINE : "");

	if (timestamps)
		used = add(line, add(line, used, format_time(time(NULL), now)), " ");
	return add(line, add(line, used, program), ": ");
}

/* Adds to the line what fits. Returns the new length, which leaves space for the
 * newline. */
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

/* Writes without waiting, if the system can promise that. Result as of write(2). */
static ssize_t write_at_once(const char *bytes, size_t size)
{
	if (kind == SOCKET)
		return send(out, bytes, size, MSG_DONTWAIT | MSG_NOSIGNAL);
#if defined(SYS_pwritev2) && defined(RWF_NOWAIT)
	if (kind == PIPE) {
		struct iovec v = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = size};
		long n = syscall(SYS_pwritev2, out, &v, 1L, -1L, -1L, (long)RWF_NOWAIT);
		if (n >= 0 || (errno != EOPNOTSUPP && errno != ENOSYS && errno != EINVAL))
			return (ssize_t)n;
	}
#endif
	/* poll has found space for a line. This waits only if another process fills it
	 * at the same moment. */
	return write(out, bytes, size);
}

/* Writes a whole line, or none of it, or (to a terminal) a part of it, within wait_ms.
 * Returns whether the whole line was written. */
static bool put(const char *bytes, size_t size, int wait_ms)
{
	struct pollfd p = {.fd = out, .events = POLLOUT};
	int64_t deadline_ms = clock_ms() + wait_ms;
	ssize_t n;

	do {
		int ready = poll(&p, 1, wait_ms == 0 ? 0 : clock_poll_timeout(deadline_ms));
		if (ready == 0)
			return false;
		n = -1;
		if (ready < 0 && errno == EINTR)
			continue;
		/* poll fails for want of memory, too. Then the line is written all the same: it
		 * may be the one that says so. */
		if (cut && write_at_once("\n", 1) == 1)
			cut = false;
		n = write_at_once(bytes, size);
	} while (n < 0 && (errno == EINTR || errno == EAGAIN) && clock_ms() < deadline_ms);
	if (n > 0)
		cut = (size_t)n < size;
	return n == (ssize_t)size;
}

/* Returns whether nothing is left to be reported. */
static bool tell_lost(int wait_ms)
{
	char line[LINE_SIZE];
	unsigned count = atomic_exchange(lost, 0);

	if (count == 0)
		return true;
	size_t used = append_text(line, begin_line(line, false),
				  "lines that could not be written and are lost: %u", count);
	line[used++] = '\n';
	if (put(line, used, wait_ms))
		return true;
	atomic_fetch_add(lost, count);
	return false;
}

bool log_tell_lost(void)
{
	return !tell_lost(0);
}

/* Writes a whole line, or counts it as lost. */
static void put_line(const char *line, size_t size, bool last)
{
	int wait_ms = last || !(never_wait || stuck) ? WAIT_MS : 0;

	stuck = !tell_lost(wait_ms) || !put(line, size, wait_ms);
	if (stuck)
		atomic_fetch_add(lost, 1);
}

/* error: an errno whose text ends the line, or 0. last: the process exits after it. */
LOG_FORMAT_AT(3, 0)
static void say(bool last, int error, const char *format, va_list args)
{
	char line[LINE_SIZE];
	int saved = errno;
	size_t used = begin_line(line, drawn || beside_drawn);

	if (role != NULL)
		used = append_text(line, used, "%s[%ld]: ", role, (long)getpid());
	size_t text = used;
	used = append(line, used, format, args);
	log_clean(line + text);		/* file names can hold anything, too */
	if (error != 0)
		used = append_text(line, used, ": %s", strerror(error));
	line[used++] = '\n';
	drawn = false;
	put_line(line, used, last);
	errno = saved;
}

void log_warn(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(false, errno, format, args);
	va_end(args);
}

void log_warnx(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(false, 0, format, args);
	va_end(args);
}

bool log_may_say(int64_t *said_ms)
{
	int64_t now_ms = clock_ms();

	if (*said_ms != 0 && now_ms - *said_ms < SAID_MS)
		return false;
	*said_ms = now_ms;
	return true;
}

void log_info(const char *format, ...)
{
	va_list args;

	if (level < LOG_NORMAL)
		return;
	va_start(args, format);
	say(false, 0, format, args);
	va_end(args);
}

void log_in_handler(const char *text)
{
	char line[LINE_SIZE];

	if (level < LOG_NORMAL)
		return;
	size_t used = add(line, begin_line(line, drawn || beside_drawn), text);
	line[used++] = '\n';
	drawn = false;
	put(line, used, 0);
}

void log_status(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(false, 0, format, args);
	va_end(args);
}

void log_debug(const char *format, ...)
{
	va_list args;

	if (level < LOG_VERBOSE)
		return;
	va_start(args, format);
	say(false, 0, format, args);
	va_end(args);
}

void fatal(const char *format, ...)
{
	va_list args;
	int status = exits_for(errno);

	va_start(args, format);
	say(true, errno, format, args);
	va_end(args);
	exit(status);
}

void fatalx(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	say(true, 0, format, args);
	va_end(args);
	exit(EXIT_UNABLE);
}

bool log_on_terminal(void)
{
	const char *term = getenv("TERM");

	return term != NULL && *term != '\0' && strcmp(term, "dumb") != 0 && isatty(STDERR_FILENO) == 1;
}

void log_draw(const char *text, size_t size)
{
	drawn = true;	/* first: a signal may come between */
	put(text, size, 0);
}

void log_erase(void)
{
	static const char erase[] = ERASE_LINE;

	if (drawn || beside_drawn)
		put(erase, sizeof erase - 1, 0);
	drawn = false;
}

void log_beside_drawn(bool drawn_beside)
{
	beside_drawn = drawn_beside && level != LOG_QUIET && log_on_terminal();
}

/* The number of bytes of the UTF-8 character at p; 0 if there is none, or if it is a
 * control character. */
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
