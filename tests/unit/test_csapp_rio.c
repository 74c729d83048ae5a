/* test_csapp_rio.c - rio, of csapp.c, on pipes that give and take little at a time. */
#include "csapp.h"

#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/uio.h>

#include "csapp_common.h"

#define BIG (300 * 1000)        /* bytes, more than a pipe holds */

/* ---- Faults on demand ---- */

/* This one stands before the C library's, to make a rare failure happen. */
static bool write_takes_nothing;

ssize_t write(int fd, const void *buf, size_t n)
{
	struct iovec all = {(void *)(uintptr_t)buf, n};

	return write_takes_nothing ? 0 : writev(fd, &all, 1);
}

/* ---- Helpers ---- */

/* A byte that tells its place, with a period prime to all buffer sizes. */
static char pattern(size_t at)
{
	return (char)(at % 251);
}

static bool is_pattern(const char *buf, size_t n, size_t at)
{
	for (size_t i = 0; i < n; i++)
		if (buf[i] != pattern(at + i))
			return false;
	return true;
}

static void fill_pattern(char *buf, size_t n)
{
	for (size_t i = 0; i < n; i++)
		buf[i] = pattern(i);
}

static char big[BIG], back[BIG];

/* Writes a piece and waits until the reader has taken it. */
static void put_piece(int fd, const char *piece, size_t n)
{
	int unread = 1;

	if (write(fd, piece, n) != (ssize_t)n)
		_exit(2);
	while (ioctl(fd, FIONREAD, &unread) == 0 && unread > 0)
		sched_yield();
}

/* A pipe into which a child writes the pieces, up to a NULL; result: the end to read. */
static int pieces_from_child(const char *const piece[], pid_t *child)
{
	int end[2];

	unit_pipe(end);
	*child = unit_fork();
	if (*child == 0) {
		close(end[0]);
		for (size_t i = 0; piece[i] != NULL; i++)
			put_piece(end[1], piece[i], strlen(piece[i]));
		_exit(0);
	}
	close(end[1]);
	return end[0];
}

/* A pipe that holds the n bytes at s and ends after them. */
static int pipe_with(const void *s, size_t n)
{
	int end[2];

	unit_pipe(end);
	if (write(end[1], s, n) != (ssize_t)n)
		abort();
	close(end[1]);
	return end[0];
}

/* ---- Deeds of the ticking clock ---- */

static void write_a_byte(void)  /* a, then b, c and so on */
{
	char letter = (char)('a' + ticks / 5 - 1);

	if (ticks % 5 == 0 && write(deed_fd[1], &letter, 1) < 0)
		_exit(2);
}

static size_t drained;
static bool drained_well;

static void drain(void)         /* what is left of a pipe; its reading end must not block */
{
	static char buf[10000];
	ssize_t n = read(deed_fd[0], buf, sizeof buf);

	if (n > 0) {
		drained_well = drained_well && is_pattern(buf, (size_t)n, drained);
		drained += (size_t)n;
	}
}

/* ---- Without a buffer ---- */

static void test_readn_pieces(void)
{
	static const char *const piece[] = {"a", "bcd", "efghijklmn", "o", NULL};
	char buf[32];
	pid_t child;
	int fd = pieces_from_child(piece, &child);

	CHECK(rio_readn(fd, buf, 0) == 0);
	CHECK(rio_readn(fd, buf, 9) == 9 && memcmp(buf, "abcdefghi", 9) == 0);
	CHECK(rio_readn(fd, buf, sizeof buf) == 6 && memcmp(buf, "jklmno", 6) == 0);
	CHECK(rio_readn(fd, buf, sizeof buf) == 0);
	close(fd);
	CHECK(unit_wait(child) == 0);
}

static void test_readn_big(void)
{
	int end[2];
	pid_t child;

	unit_pipe(end);
	fill_pattern(big, BIG);
	child = unit_fork();
	if (child == 0) {
		close(end[0]);
		_exit(rio_writen(end[1], big, BIG) != BIG);
	}
	close(end[1]);
	memset(back, 0, BIG);
	CHECK(rio_readn(end[0], back, BIG) == BIG);
	CHECK(memcmp(big, back, BIG) == 0);
	CHECK(rio_readn(end[0], back, 1) == 0);
	close(end[0]);
	CHECK(unit_wait(child) == 0);
}

static void test_readn_interrupted(void)
{
	char buf[3] = "";

	unit_pipe(deed_fd);
	start_ticks(write_a_byte, 0);
	CHECK(rio_readn(deed_fd[0], buf, 3) == 3);
	stop_ticks();
	CHECK(ticks >= 15);
	CHECK(memcmp(buf, "abc", 3) == 0);
	close_both(deed_fd);
}

static void test_readnb_interrupted(void)
{
	char buf[3] = "";
	rio_t rio;

	unit_pipe(deed_fd);
	rio_readinitb(&rio, deed_fd[0]);
	start_ticks(write_a_byte, 0);
	CHECK(rio_readnb(&rio, buf, 3) == 3);
	stop_ticks();
	CHECK(ticks >= 15);
	CHECK(memcmp(buf, "abc", 3) == 0);
	close_both(deed_fd);
}

static void test_writen_slow_reader(void)
{
	int end[2];
	pid_t child;

	unit_pipe(end);
	fill_pattern(big, BIG);
	child = unit_fork();
	if (child == 0) {
		struct pollfd room = {.fd = end[1], .events = POLLOUT};
		size_t at = 0;
		ssize_t n;

		while (poll(&room, 1, 0) == 1) /* until the pipe is full */
			sched_yield();
		close(end[1]);
		while ((n = read(end[0], back, 777)) > 0) {
			if (!is_pattern(back, (size_t)n, at))
				_exit(1);
			at += (size_t)n;
		}
		_exit(at != BIG);
	}
	close(end[0]);
	CHECK(rio_writen(end[1], big, BIG) == BIG);
	close(end[1]);
	CHECK(unit_wait(child) == 0);
}

static void test_writen_interrupted(void)
{
	unit_pipe(deed_fd);
	fcntl(deed_fd[0], F_SETFL, O_NONBLOCK);
	fill_pattern(big, BIG);
	drained = 0;
	drained_well = true;
	start_ticks(drain, 0);
	CHECK(rio_writen(deed_fd[1], big, BIG) == BIG);
	stop_ticks();
	CHECK(ticks > 5);
	for (size_t before = BIG; drained != before;) {
		before = drained;
		drain();
	}
	CHECK(drained == BIG && drained_well);
	close_both(deed_fd);
}

static void test_writen_fails(void)
{
	int end[2];

	unit_pipe(end);
	CHECK(rio_writen(end[1], "x", 0) == 0);
	write_takes_nothing = true;
	errno = EINTR; /* must not be taken for the reason */
	CHECK(rio_writen(end[1], "x", 1) == -1 && errno == EIO);
	write_takes_nothing = false;
	close(end[0]);
	signal(SIGPIPE, SIG_IGN);
	CHECK(rio_writen(end[1], "x", 1) == -1 && errno == EPIPE);
	signal(SIGPIPE, SIG_DFL);
	close(end[1]);
}

static void test_bad_arguments(void)
{
	char c = 0;
	rio_t rio;

	CHECK(rio_readn(-1, &c, 1) == -1 && errno == EBADF);
	CHECK(rio_writen(-1, &c, 1) == -1 && errno == EBADF);
	rio_readinitb(&rio, -1);
	CHECK(rio_readnb(&rio, &c, 1) == -1 && errno == EBADF);
	CHECK(rio_readlineb(&rio, back, 10) == -1 && errno == EBADF);
	CHECK(rio_readn(-1, &c, (size_t)SSIZE_MAX + 1) == -1 && errno == EINVAL);
	CHECK(rio_writen(-1, &c, (size_t)SSIZE_MAX + 1) == -1 && errno == EINVAL);
	CHECK(rio_readnb(&rio, &c, (size_t)SSIZE_MAX + 1) == -1 && errno == EINVAL);
}

/* ---- With a buffer ---- */

/* Whether the next line of rio, asked for with maxlen, is exactly the n bytes at want. */
static bool line_is(rio_t *rio, size_t maxlen, const char *want, size_t n)
{
	char buf[64];

	memset(buf, '#', sizeof buf);
	return rio_readlineb(rio, buf, maxlen) == (ssize_t)n && memcmp(buf, want, n) == 0
	       && buf[n] == '\0' && buf[n + 1] == '#';
}

#define LINE_IS(rio, maxlen, want) line_is((rio), (maxlen), (want), sizeof want - 1)

static void test_lines_split(void)
{
	static const char *const piece[] = {"on", "e\ntw", "o\n", "\nthree\nfo", "ur", NULL};
	pid_t child;
	rio_t rio;

	rio_readinitb(&rio, pieces_from_child(piece, &child));
	CHECK(LINE_IS(&rio, 32, "one\n"));
	CHECK(LINE_IS(&rio, 32, "two\n"));
	CHECK(LINE_IS(&rio, 32, "\n"));
	CHECK(LINE_IS(&rio, 32, "three\n"));
	CHECK(LINE_IS(&rio, 32, "four"));
	CHECK(LINE_IS(&rio, 32, ""));
	CHECK(LINE_IS(&rio, 32, ""));
	close(rio.rio_fd);
	CHECK(unit_wait(child) == 0);
}

static void test_lines_longer_than_maxlen(void)
{
	static const char text[] = "0123456789abcdefghijKLMN\nx\n";
	rio_t rio;

	rio_readinitb(&rio, pipe_with(text, sizeof text - 1));
	CHECK(LINE_IS(&rio, 11, "0123456789"));
	CHECK(LINE_IS(&rio, 11, "abcdefghij"));
	CHECK(LINE_IS(&rio, 5, "KLMN"));        /* the newline finds no room */
	CHECK(LINE_IS(&rio, 5, "\n"));
	CHECK(LINE_IS(&rio, 3, "x\n"));         /* just fits */
	CHECK(LINE_IS(&rio, 3, ""));
	close(rio.rio_fd);
}

static void test_line_without_room(void)
{
	char buf[2] = "##";
	rio_t rio;

	rio_readinitb(&rio, pipe_with("ab\n", 3));
	errno = 0;
	CHECK(rio_readlineb(&rio, buf, 0) == -1 && errno == EINVAL);
	CHECK(buf[0] == '#');
	CHECK(rio_readlineb(&rio, buf, 1) == 0);
	CHECK(buf[0] == '\0' && buf[1] == '#');
	CHECK(LINE_IS(&rio, 2, "a"));
	CHECK(LINE_IS(&rio, 32, "b\n"));
	close(rio.rio_fd);
}

static void test_line_with_nul(void)
{
	static const char text[] = "a\0b\n\0\nc";
	rio_t rio;

	rio_readinitb(&rio, pipe_with(text, sizeof text - 1));
	CHECK(LINE_IS(&rio, 32, "a\0b\n"));
	CHECK(LINE_IS(&rio, 32, "\0\n"));
	CHECK(LINE_IS(&rio, 32, "c"));
	close(rio.rio_fd);
}

static void test_line_longer_than_buffer(void)
{
	enum { LONG = 3 * RIO_BUFSIZE + 100 };
	rio_t rio;

	memset(big, 'y', LONG);
	big[LONG - 1] = '\n';
	rio_readinitb(&rio, pipe_with(big, LONG));
	CHECK(rio_readlineb(&rio, back, BIG) == LONG);
	CHECK(memcmp(big, back, LONG) == 0 && back[LONG] == '\0');
	CHECK(rio_readlineb(&rio, back, BIG) == 0);
	close(rio.rio_fd);
}

static void test_lines_and_bytes_mixed(void)
{
	static const char *const piece[] = {"head\nbo", "dy", "!tail\nend", NULL};
	char buf[8];
	pid_t child;
	rio_t rio;

	rio_readinitb(&rio, pieces_from_child(piece, &child));
	CHECK(LINE_IS(&rio, 32, "head\n"));
	CHECK(rio_readnb(&rio, buf, 0) == 0);
	CHECK(rio_readnb(&rio, buf, 5) == 5 && memcmp(buf, "body!", 5) == 0);
	CHECK(LINE_IS(&rio, 32, "tail\n"));
	CHECK(rio_readnb(&rio, buf, 8) == 3 && memcmp(buf, "end", 3) == 0);
	CHECK(rio_readnb(&rio, buf, 8) == 0);
	close(rio.rio_fd);
	CHECK(unit_wait(child) == 0);
}

/* What is asked for is there: to wait for more could be for ever. EAGAIN would tell. */
static void test_no_needless_read(void)
{
	char buf[2];
	int end[2];
	rio_t rio;

	unit_pipe(end);
	fcntl(end[0], F_SETFL, O_NONBLOCK);
	CHECK(write(end[1], "a\nbcde", 6) == 6);
	rio_readinitb(&rio, end[0]);
	CHECK(LINE_IS(&rio, 32, "a\n"));
	CHECK(LINE_IS(&rio, 3, "bc"));
	CHECK(rio_readnb(&rio, buf, 2) == 2 && memcmp(buf, "de", 2) == 0);
	CHECK(rio_readnb(&rio, buf, 0) == 0);
	CHECK(write(end[1], "fg", 2) == 2);
	CHECK(LINE_IS(&rio, 3, "fg"));
	CHECK(rio_readlineb(&rio, buf, 1) == 0);
	CHECK(rio_readlineb(&rio, buf, 2) == -1 && errno == EAGAIN);
	close_both(end);
}

static void test_readinitb_again(void)
{
	int first = pipe_with("old line\nrest", 13);
	int second = pipe_with("new\n", 4);
	rio_t rio;

	rio_readinitb(&rio, first);
	CHECK(LINE_IS(&rio, 32, "old line\n"));
	rio_readinitb(&rio, second);
	CHECK(rio.rio_fd == second);
	CHECK(LINE_IS(&rio, 32, "new\n"));
	CHECK(LINE_IS(&rio, 32, ""));
	close(first);
	close(second);
}

static int run_all(void)
{
	RUN(test_readn_pieces);
	RUN(test_readn_big);
	RUN(test_readn_interrupted);
	RUN(test_readnb_interrupted);
	RUN(test_writen_slow_reader);
	RUN(test_writen_interrupted);
	RUN(test_writen_fails);
	RUN(test_bad_arguments);
	RUN(test_lines_split);
	RUN(test_lines_longer_than_maxlen);
	RUN(test_line_without_room);
	RUN(test_line_with_nul);
	RUN(test_line_longer_than_buffer);
	RUN(test_lines_and_bytes_mixed);
	RUN(test_no_needless_read);
	RUN(test_readinitb_again);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
