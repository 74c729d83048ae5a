/* test_csapp.c - csapp.c on real pipes, sockets, files and signals.
 *
 * Nothing here sleeps to let another process go first: children and parent wait for what the
 * kernel tells them, and a timer signal that interrupts a blocked call also ends its wait. A
 * test that hangs is ended by SIGALRM or by the limit in tick(), and counts as failed. */
#include "../../csapp.h"

#include <limits.h>
#include <poll.h>
#include <sched.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "unit.h"

#define BIG (300 * 1000)        /* bytes, more than a pipe holds */

/* ---- Faults on demand ---- */

/* These two stand before the C library's, to make rare failures happen. */
static bool write_takes_nothing;
static bool ipv6_only;          /* as on systems without dual-stack sockets */

ssize_t write(int fd, const void *buf, size_t n)
{
	struct iovec all = {(void *)(uintptr_t)buf, n};

	return write_takes_nothing ? 0 : writev(fd, &all, 1);
}

#ifdef SYS_setsockopt
int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
	if (ipv6_only && level == IPPROTO_IPV6 && name == IPV6_V6ONLY) {
		errno = EINVAL;
		return -1;
	}
	return (int)syscall(SYS_setsockopt, fd, level, name, value, len);
}
#endif

/* The address sanitizer does not let malloc return NULL. */
#if defined __SANITIZE_ADDRESS__
#define MALLOC_MAY_FAIL false
#elif defined __has_feature
#if __has_feature(address_sanitizer)
#define MALLOC_MAY_FAIL false
#endif
#endif
#ifndef MALLOC_MAY_FAIL
#define MALLOC_MAY_FAIL true
#endif

/* ---- Helpers ---- */

static void close_both(int end[2])
{
	close(end[0]);
	close(end[1]);
}

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

/* Starts f in a child, which has the second end of the pair as its descriptor fd. */
static pid_t start_with(int end[2], int fd, void (*f)(void))
{
	pid_t pid = unit_fork();

	if (pid == 0) {
		dup2(end[1], fd);
		close_both(end);
		f();
		_exit(0);
	}
	return pid;
}

/* What f writes to fd 1, run in a child: stored in text; result: as of unit_wait(). */
static int output_of(void (*f)(void), char *text, size_t size)
{
	int end[2];
	size_t len;
	pid_t pid;

	unit_pipe(end);
	pid = start_with(end, 1, f);
	close(end[1]);
	len = unit_read(end[0], text, size - 1);
	text[len] = '\0';
	close(end[0]);
	return unit_wait(pid);
}

/* ---- The ticking clock ---- */

/* SIGALRM each millisecond, without SA_RESTART: whatever call the process is blocked in is
 * interrupted. From the fifth tick on each runs the deed that lets the call end well. */
static volatile sig_atomic_t ticks;
static void (*deed)(void);

static void tick(int signum)
{
	int saved = errno;

	(void)signum;
	ticks++;
	if (ticks > UNIT_TIME_LIMIT * 1000)
		_exit(3);
	if (ticks >= 5)
		deed();
	errno = saved;
}

static void start_ticks(void (*f)(void), int flags)
{
	const struct itimerval each_ms = {{0, 1000}, {0, 1000}};
	struct sigaction action = {.sa_handler = tick, .sa_flags = flags};

	sigemptyset(&action.sa_mask);
	deed = f;
	ticks = 0;
	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &each_ms, NULL);
}

static void stop_ticks(void)
{
	const struct itimerval never = {{0, 0}, {0, 0}};

	setitimer(ITIMER_REAL, &never, NULL);
	signal(SIGALRM, SIG_DFL);
	alarm(UNIT_TIME_LIMIT);
}

static int deed_fd[2];          /* what the deeds below work on */
static size_t drained;
static bool drained_well;
static struct sockaddr_storage deed_addr;
static socklen_t deed_addrlen;
static sem_t deed_sem;
static char deed_path[UNIT_PATH_SIZE];

static void write_a_byte(void)  /* a, then b, c and so on */
{
	char letter = (char)('a' + ticks / 5 - 1);

	if (ticks % 5 == 0 && write(deed_fd[1], &letter, 1) < 0)
		_exit(2);
}

static void write_once(void)
{
	if (ticks == 5 && write(deed_fd[1], "x", 1) < 0)
		_exit(2);
}

static void drain(void)         /* what is left of a pipe; its reading end must not block */
{
	static char buf[10000];
	ssize_t n = read(deed_fd[0], buf, sizeof buf);

	if (n > 0) {
		drained_well = drained_well && is_pattern(buf, (size_t)n, drained);
		drained += (size_t)n;
	}
}

static void close_write_end(void)
{
	if (ticks == 5)
		close(deed_fd[1]);
}

static void connect_once(void)
{
	if (ticks == 5) {
		int fd = socket(deed_addr.ss_family, SOCK_STREAM, 0);

		if (connect(fd, (SA *)&deed_addr, deed_addrlen) < 0)
			_exit(2);
	}
}

static void accept_once(void)
{
	if (ticks == 5 && accept(deed_fd[0], NULL, NULL) < 0)
		_exit(2);
}

static void post_once(void)
{
	if (ticks == 5)
		sem_post(&deed_sem);
}

static void open_fifo(void)
{
	if (ticks == 5)
		deed_fd[1] = open(deed_path, O_RDWR | O_NONBLOCK);
}

/* ---- rio, without a buffer ---- */

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

/* ---- rio, with a buffer ---- */

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

/* ---- Connections ---- */

static void port_of(int fd, char *port, size_t size)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof addr;

	if (getsockname(fd, (SA *)&addr, &len) < 0
	    || getnameinfo((SA *)&addr, len, NULL, 0, port, (socklen_t)size, NI_NUMERICSERV) != 0)
		abort();
}

static bool close_on_exec(int fd)
{
	return (fcntl(fd, F_GETFD) & FD_CLOEXEC) != 0;
}

static void round_trip(int listenfd, const char *host)
{
	char port[16], buf[4] = "";
	int client, server;

	port_of(listenfd, port, sizeof port);
	client = open_clientfd(host, port);
	if (!CHECK(client >= 0))
		return;
	CHECK(close_on_exec(client));
	server = accept(listenfd, NULL, NULL);
	CHECK(rio_writen(client, "ping", 4) == 4);
	CHECK(rio_readn(server, buf, 4) == 4 && memcmp(buf, "ping", 4) == 0);
	CHECK(rio_writen(server, "pong", 4) == 4);
	CHECK(rio_readn(client, buf, 4) == 4 && memcmp(buf, "pong", 4) == 0);
	close(client);
	CHECK(rio_readn(server, buf, 4) == 0);
	close(server);
}

static bool have_ipv6(void)
{
	struct sockaddr_in6 addr = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
	int fd = socket(AF_INET6, SOCK_STREAM, 0);
	bool have = fd >= 0 && bind(fd, (SA *)&addr, sizeof addr) == 0;

	if (fd >= 0)
		close(fd);
	return have;
}

static int family_of(int fd)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof addr;

	return getsockname(fd, (SA *)&addr, &len) < 0 ? -1 : addr.ss_family;
}

static void test_round_trips(void)
{
	int before = unit_open_fds();
	int fd = open_listenfd("0");
	int on = 0;
	socklen_t len = sizeof on;

	if (!CHECK(fd >= 0))
		return;
	CHECK(close_on_exec(fd));
	CHECK(getsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, &len) == 0 && on != 0);
	round_trip(fd, "localhost");
	round_trip(fd, "127.0.0.1");
	if (have_ipv6()) {
		CHECK(family_of(fd) == AF_INET6);
		round_trip(fd, "::1");
	}
	close(fd);
	CHECK(unit_open_fds() == before);
}

static void test_fall_back_to_ipv4(void)
{
#ifdef SYS_setsockopt
	int before = unit_open_fds();
	int fd;

	ipv6_only = true;
	fd = open_listenfd("0");
	ipv6_only = false;
	if (!CHECK(fd >= 0))
		return;
	CHECK(family_of(fd) == AF_INET);
	round_trip(fd, "127.0.0.1");
	round_trip(fd, "localhost");
	close(fd);
	CHECK(unit_open_fds() == before);
#endif
}

static void test_port_in_use(void)
{
	int before, fd = open_listenfd("0");
	char port[16];

	port_of(fd, port, sizeof port);
	before = unit_open_fds();
	CHECK(open_listenfd(port) == -1 && errno == EADDRINUSE);
	CHECK(unit_open_fds() == before);
	close(fd);
	fd = open_listenfd(port); /* and free again at once */
	CHECK(fd >= 0);
	close(fd);
}

static void test_refused(void)
{
	char port[16];
	int fd = unit_bound_port(port);
	int before = unit_open_fds();

	errno = 0;
	CHECK(open_clientfd("127.0.0.1", port) == -1 && errno == ECONNREFUSED);
	errno = 0;
	CHECK(open_clientfd("localhost", port) == -1 && errno == ECONNREFUSED);
	CHECK(unit_open_fds() == before);
	close(fd);
}

static void test_unknown_names(void)
{
	static const char *const bad_port[] = {
		"", " 80", "+80", "-1", "65536", "70000", "99999999999999999999", "80x",
		"no-such-service", NULL
	};
	char endless[300];

	memset(endless, 'a', sizeof endless - 1); /* no host has this name, and no DNS is asked */
	endless[sizeof endless - 1] = '\0';
	CHECK(open_clientfd(endless, "80") == -2);
	for (size_t i = 0; bad_port[i] != NULL; i++) {
		CHECK(open_clientfd("127.0.0.1", bad_port[i]) == -2);
		CHECK(open_listenfd(bad_port[i]) == -2);
	}
	CHECK(open_clientfd("127.0.0.1", NULL) == -2);
	CHECK(open_listenfd(NULL) == -2);
}

static void test_named_port(void)
{
	int fd;

	if (getservbyname("discard", "tcp") == NULL)
		return; /* no list of services here */
	fd = open_clientfd("127.0.0.1", "discard");
	CHECK(fd != -2);
	if (fd >= 0)
		close(fd);
}

/* ---- Capital wrappers that go on after a signal ---- */

/* Runs in a child: f is to come back although signals hit it all the time. */
static int survives(void (*f)(void))
{
	pid_t pid = unit_fork();

	if (pid == 0) {
		f();
		_exit(ticks >= 5 ? 0 : 4);
	}
	return unit_wait(pid);
}

static void read_on(void)
{
	char c;

	unit_pipe(deed_fd);
	start_ticks(write_once, 0);
	if (Read(deed_fd[0], &c, 1) != 1)
		_exit(5);
}

static void write_on(void)
{
	unit_pipe(deed_fd);
	fcntl(deed_fd[0], F_SETFL, O_NONBLOCK);
	fcntl(deed_fd[1], F_SETFL, O_NONBLOCK);
	while (write(deed_fd[1], big, 4096) > 0)
		;
	fcntl(deed_fd[1], F_SETFL, 0);
	start_ticks(drain, 0);
	if (Write(deed_fd[1], "x", 1) != 1)
		_exit(5);
}

static void select_on(void)
{
	fd_set set;

	unit_pipe(deed_fd);
	FD_ZERO(&set);
	FD_SET((unsigned int)deed_fd[0], &set);
	start_ticks(write_once, 0);
	if (Select(deed_fd[0] + 1, &set, NULL, NULL, NULL) != 1
	    || !FD_ISSET((unsigned int)deed_fd[0], &set))
		_exit(5);
}

static pid_t child_that_ends_with_the_pipe(void)
{
	pid_t pid;

	unit_pipe(deed_fd);
	pid = unit_fork();
	if (pid == 0) {
		char c;

		close(deed_fd[1]);
		_exit(read(deed_fd[0], &c, 1) == 0 ? 7 : 8);
	}
	start_ticks(close_write_end, 0);
	return pid;
}

static void waitpid_on(void)
{
	int status;
	pid_t pid = child_that_ends_with_the_pipe();

	if (Waitpid(pid, &status, 0) != pid || WEXITSTATUS(status) != 7)
		_exit(5);
}

static void wait_on(void)
{
	int status;
	pid_t pid = child_that_ends_with_the_pipe();

	if (Wait(&status) != pid || WEXITSTATUS(status) != 7)
		_exit(5);
}

static void p_on(void)
{
	Sem_init(&deed_sem, 0, 0);
	start_ticks(post_once, 0);
	P(&deed_sem);
}

static void accept_on(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	int fd = Socket(AF_INET, SOCK_STREAM, 0);
	struct sockaddr_storage peer;
	socklen_t len = sizeof peer;

	addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	Bind(fd, (SA *)&addr, sizeof addr);
	Listen(fd, LISTENQ);
	deed_addrlen = sizeof deed_addr;
	if (getsockname(fd, (SA *)&deed_addr, &deed_addrlen) < 0)
		_exit(5);
	start_ticks(connect_once, 0);
	if (Accept(fd, (SA *)&peer, &len) < 0 || peer.ss_family != AF_INET)
		_exit(5);
}

/* A Unix socket whose queue is full lets connect wait, on Linux at least. */
static void connect_on(void)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd;

	unit_path(addr.sun_path, "socket");
	deed_fd[0] = Socket(AF_UNIX, SOCK_STREAM, 0);
	Bind(deed_fd[0], (SA *)&addr, sizeof addr);
	Listen(deed_fd[0], 0);
	do {
		fd = Socket(AF_UNIX, SOCK_STREAM, 0);
		fcntl(fd, F_SETFL, O_NONBLOCK);
	} while (connect(fd, (SA *)&addr, sizeof addr) == 0);
	fcntl(fd, F_SETFL, 0);
	start_ticks(accept_once, 0);
	Connect(fd, (SA *)&addr, sizeof addr);
	unlink(addr.sun_path);
	if (write(fd, "x", 1) != 1) /* truly connected */
		_exit(5);
}

static void open_on(void)
{
	unit_path(deed_path, "fifo");
	if (mkfifo(deed_path, S_IRUSR | S_IWUSR) < 0)
		_exit(5);
	start_ticks(open_fifo, 0);
	Close(Open(deed_path, O_RDONLY, 0));
	unlink(deed_path);
}

static void test_capitals_go_on(void)
{
	CHECK(survives(read_on) == 0);
	CHECK(survives(write_on) == 0);
	CHECK(survives(select_on) == 0);
	CHECK(survives(waitpid_on) == 0);
	CHECK(survives(wait_on) == 0);
	CHECK(survives(p_on) == 0);
	CHECK(survives(accept_on) == 0);
	CHECK(survives(connect_on) == 0);
	CHECK(survives(open_on) == 0);
}

/* ---- Capital wrappers that end the program ---- */

/* Runs f in a child whose standard error is a datagram socket, so that each write(2) stays by
 * itself. f must end it with status 1, after one write: one line that starts with msg and
 * ends with reason. */
static bool dies(void (*f)(void), const char *msg, const char *reason)
{
	int end[2], status;
	char said[4096], more;
	ssize_t n;
	size_t len;
	bool good;

	if (socketpair(AF_UNIX, SOCK_DGRAM, 0, end) < 0)
		abort();
	status = unit_wait(start_with(end, 2, f));
	n = recv(end[0], said, sizeof said - 1, MSG_DONTWAIT);
	len = n > 0 ? (size_t)n : 0;
	said[len] = '\0';
	good = status == 1 && len > 0 && strchr(said, '\n') == said + len - 1
	       && strncmp(said, msg, strlen(msg)) == 0 && len - 1 >= strlen(reason)
	       && strncmp(said + len - 1 - strlen(reason), reason, strlen(reason)) == 0
	       && recv(end[0], &more, 1, MSG_DONTWAIT) < 0;
	if (!good)
		fprintf(stderr, "%s: exit %d, said \"%s\", not \"... %s\"\n", msg, status, said,
		        reason);
	close_both(end);
	return good;
}

static void say_unix(void) { errno = ENOENT; unix_error("one"); }
static void say_posix(void) { errno = ENOENT; posix_error(EAGAIN, "two"); }
static void say_gai(void) { gai_error(EAI_SERVICE, "three"); }
static void say_gai_system(void) { errno = EMFILE; gai_error(EAI_SYSTEM, "four"); }
static void say_app(void) { app_error("five"); }
static void say_dns(void) { h_errno = HOST_NOT_FOUND; dns_error("six"); }
static void say_sio(void) { Sio_error("seven"); }
static void say_lines(void) { app_error("two\nlines\033[1m\n"); }

static void say_much(void)
{
	errno = ENOENT;
	big[sizeof big - 1] = '\0';
	memset(big, 'z', sizeof big - 1);
	unix_error(big);
}

static void test_error_family(void)
{
	CHECK(dies(say_unix, "one: ", strerror(ENOENT)));
	CHECK(dies(say_posix, "two: ", strerror(EAGAIN)));
	CHECK(dies(say_gai, "three: ", gai_strerror(EAI_SERVICE)));
	CHECK(dies(say_gai_system, "four: ", strerror(EMFILE)));
	CHECK(dies(say_app, "five\n", "five"));
	CHECK(dies(say_dns, "six: ", hstrerror(HOST_NOT_FOUND)));
	CHECK(dies(say_sio, "seven\n", "seven"));
	CHECK(dies(say_lines, "two lines [1m\n", "m"));
	CHECK(dies(say_much, "zzzz", strerror(ENOENT)));
}

static struct stat st;
static char *const just_a_name[] = {(char []){"name"}, NULL};
static const char missing[] = "/no/such/file";
/* More than any address space; positive as an ssize_t where it can be, to please valgrind. */
static volatile size_t too_much = SIZE_MAX > 0xffffffff ? SIZE_MAX / 4 : SIZE_MAX - 100000;
static struct sockaddr_in nowhere = {.sin_family = AF_INET};

static FILE *full_device(void)
{
	FILE *f = Fopen("/dev/full", "w");

	setvbuf(f, NULL, _IONBF, 0);
	return f;
}

static void die_execve(void) { Execve(missing, just_a_name, just_a_name); }
static void die_wait(void) { Wait(NULL); }
static void die_waitpid(void) { Waitpid(-1, NULL, 0); }
static void die_kill(void) { Kill(getpid(), -1); }
static void die_setpgid(void) { Setpgid(0, -1); }
static void die_signal(void) { Signal(SIGKILL, SIG_IGN); }
static void die_sigprocmask(void) { sigset_t s; Sigemptyset(&s); Sigprocmask(-99, &s, NULL); }
static void die_sigaddset(void) { sigset_t s; Sigemptyset(&s); Sigaddset(&s, -1); }
static void die_sigdelset(void) { sigset_t s; Sigemptyset(&s); Sigdelset(&s, -1); }
static void die_sio_puts(void) { close(1); Sio_puts("x"); }
static void die_sio_putl(void) { close(1); Sio_putl(1); }
static void die_open(void) { Open(missing, O_RDONLY, 0); }
static void die_read(void) { char c; Read(-1, &c, 1); }
static void die_write(void) { Write(-1, "x", 1); }
static void die_lseek(void) { unit_pipe(deed_fd); Lseek(deed_fd[0], 0, SEEK_SET); }
static void die_close(void) { Close(-1); }
static void die_dup2(void) { Dup2(-1, 0); }
static void die_select(void) { Select(-1, NULL, NULL, NULL, NULL); }
static void die_stat(void) { Stat(missing, &st); }
static void die_fstat(void) { Fstat(-1, &st); }
static void die_opendir(void) { Opendir(missing); }
static void die_mmap(void) { Mmap(NULL, 4096, PROT_READ, MAP_SHARED, -1, 0); }
static void die_munmap(void) { Munmap(unit_scratch + 1, 1); }
static void die_malloc(void) { Malloc(too_much); }
static void die_realloc(void) { Realloc(NULL, too_much); }
static void die_calloc(void) { Calloc(too_much / 4, 4); }
static void die_fopen(void) { Fopen(missing, "r"); }
static void die_fdopen(void) { Fdopen(0, "?"); }
static void die_fgets(void) { char b[9]; Fgets(b, 9, Fopen("/", "r")); }
static void die_fread(void) { char b[9]; Fread(b, 1, 9, Fopen("/", "r")); }
static void die_fputs(void) { Fputs("x", full_device()); }
static void die_fwrite(void) { Fwrite("x", 1, 1, full_device()); }
static void die_fclose(void) { FILE *f = Fopen("/dev/full", "w"); fputs("x", f); Fclose(f); }
static void die_socket(void) { Socket(-1, SOCK_STREAM, 0); }
static void die_setsockopt(void) { int on = 1; Setsockopt(-1, SOL_SOCKET, 0, &on, sizeof on); }
static void die_bind(void) { Bind(-1, (SA *)&nowhere, sizeof nowhere); }
static void die_listen(void) { Listen(-1, 1); }
static void die_accept(void) { Accept(-1, NULL, NULL); }
static void die_connect(void) { Connect(-1, (SA *)&nowhere, sizeof nowhere); }
static void die_inet_pton(void) { struct in_addr a; Inet_pton(AF_INET, "1.2.3", &a); }
static void die_inet_ntop(void) { char b[3]; Inet_ntop(AF_INET, &nowhere.sin_addr, b, 3); }
static void die_readn(void) { char c; Rio_readn(-1, &c, 1); }
static void die_writen(void) { Rio_writen(-1, "x", 1); }
static void die_readnb(void) { rio_t r; char c; Rio_readinitb(&r, -1); Rio_readnb(&r, &c, 1); }
static void die_line(void) { rio_t r; char c; Rio_readinitb(&r, -1); Rio_readlineb(&r, &c, 0); }
static void die_sem_init(void) { sem_t s; Sem_init(&s, 0, UINT_MAX); }
static void die_listenfd(void) { Open_listenfd("70000"); }

static void die_clientfd(void)
{
	char port[16];

	unit_bound_port(port);
	Open_clientfd("127.0.0.1", port);
}

static void die_clientfd_name(void) { Open_clientfd("127.0.0.1", "no-such-service"); }

static void die_getaddrinfo(void)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST}, *list;

	Getaddrinfo("1.2.3.x", "80", &hints, &list);
}

static void die_getnameinfo(void)
{
	struct sockaddr_in addr = {.sin_family = AF_INET};
	char host[2];

	Getnameinfo((SA *)&addr, sizeof addr, host, 2, NULL, 0, NI_NUMERICHOST);
}

static void *do_nothing(void *arg)
{
	return arg;
}

static pthread_attr_t endless_stack; /* more than any address space holds */

static void die_pthread_create(void)
{
	pthread_t tid;

	errno = ENOENT;
	Pthread_create(&tid, &endless_stack, do_nothing, NULL);
}

/* The reason is what pthread_create returned (EAGAIN), not errno (ENOMEM, by and by). */
static void test_pthread_error(void)
{
	pthread_t tid;
	int code;

	pthread_attr_init(&endless_stack);
	if (pthread_attr_setstacksize(&endless_stack, SIZE_MAX / 16 * 15) != 0)
		CHECK(pthread_attr_setstacksize(&endless_stack, SIZE_MAX / 4) == 0);
	code = pthread_create(&tid, &endless_stack, do_nothing, NULL);
	CHECK(code != 0);
	CHECK(dies(die_pthread_create, "Pthread_create error: ", strerror(code)));
	pthread_attr_destroy(&endless_stack);
}

static void test_capitals_end_the_program(void)
{
	static const struct {
		void (*f)(void);
		const char *msg;
		int reason;     /* errno */
	} death[] = {
		{die_execve, "Execve error: /no/such/file: ", ENOENT},
		{die_wait, "Wait error: ", ECHILD},
		{die_waitpid, "Waitpid error: ", ECHILD},
		{die_kill, "Kill error: ", EINVAL},
		{die_setpgid, "Setpgid error: ", EINVAL},
		{die_signal, "Signal error: ", EINVAL},
		{die_sigprocmask, "Sigprocmask error: ", EINVAL},
		{die_sigaddset, "Sigaddset error: ", EINVAL},
		{die_sigdelset, "Sigdelset error: ", EINVAL},
		{die_open, "Open error: /no/such/file: ", ENOENT},
		{die_read, "Read error: ", EBADF},
		{die_write, "Write error: ", EBADF},
		{die_lseek, "Lseek error: ", ESPIPE},
		{die_close, "Close error: ", EBADF},
		{die_dup2, "Dup2 error: ", EBADF},
		{die_select, "Select error: ", EINVAL},
		{die_stat, "Stat error: /no/such/file: ", ENOENT},
		{die_fstat, "Fstat error: ", EBADF},
		{die_opendir, "Opendir error: /no/such/file: ", ENOENT},
		{die_mmap, "Mmap error: ", EBADF},
		{die_munmap, "Munmap error: ", EINVAL},
		{die_fopen, "Fopen error: /no/such/file: ", ENOENT},
		{die_fdopen, "Fdopen error: ", EINVAL},
		{die_fgets, "Fgets error: ", EISDIR},
		{die_fread, "Fread error: ", EISDIR},
		{die_fputs, "Fputs error: ", ENOSPC},
		{die_fwrite, "Fwrite error: ", ENOSPC},
		{die_fclose, "Fclose error: ", ENOSPC},
		{die_setsockopt, "Setsockopt error: ", EBADF},
		{die_bind, "Bind error: ", EBADF},
		{die_listen, "Listen error: ", EBADF},
		{die_accept, "Accept error: ", EBADF},
		{die_connect, "Connect error: ", EBADF},
		{die_socket, "Socket error: ", EAFNOSUPPORT},
		{die_inet_ntop, "Inet_ntop error: ", ENOSPC},
		{die_sem_init, "Sem_init error: ", EINVAL},
		{die_readn, "Rio_readn error: ", EBADF},
		{die_writen, "Rio_writen error: ", EBADF},
		{die_readnb, "Rio_readnb error: ", EBADF},
		{die_line, "Rio_readlineb error: ", EINVAL},
		{die_clientfd, "Open_clientfd error: 127.0.0.1 port ", ECONNREFUSED},
	};

	for (size_t i = 0; i < LENGTH(death); i++)
		CHECK(dies(death[i].f, death[i].msg, strerror(death[i].reason)));
	if (MALLOC_MAY_FAIL) {
		CHECK(dies(die_malloc, "Malloc error: ", strerror(ENOMEM)));
		CHECK(dies(die_realloc, "Realloc error: ", strerror(ENOMEM)));
		CHECK(dies(die_calloc, "Calloc error: ", strerror(ENOMEM)));
	}
	CHECK(dies(die_sio_puts, "Sio_puts error\n", "error"));
	CHECK(dies(die_sio_putl, "Sio_putl error\n", "error"));
	CHECK(dies(die_inet_pton, "Inet_pton error: 1.2.3: ", "not an address"));
	CHECK(dies(die_listenfd, "Open_listenfd error: 70000: ", gai_strerror(EAI_SERVICE)));
	CHECK(dies(die_clientfd_name, "Open_clientfd error: 127.0.0.1 port no-such-service: ",
	           gai_strerror(EAI_SERVICE)));
	CHECK(dies(die_getaddrinfo, "Getaddrinfo error: 1.2.3.x: ", gai_strerror(EAI_NONAME)));
	CHECK(dies(die_getnameinfo, "Getnameinfo error: ", gai_strerror(EAI_OVERFLOW)));
}

/* ---- Capital wrappers that succeed ---- */

static void test_files(void)
{
	char path[UNIT_PATH_SIZE], buf[16] = "";
	struct stat by_name, by_fd;
	struct dirent *entry;
	bool found = false;
	int before = unit_open_fds();
	int fd, copy;
	FILE *f;
	DIR *dir;
	char *map;

	unit_path(path, "file");
	fd = Open(path, O_RDWR | O_CREAT | O_EXCL, DEF_MODE);
	CHECK(Write(fd, "line 1\nline 2\n", 14) == 14);
	CHECK(Lseek(fd, 5, SEEK_SET) == 5);
	copy = Dup2(fd, fd + 5);
	CHECK(copy == fd + 5);
	CHECK(Read(copy, buf, 1) == 1 && buf[0] == '1');
	Close(copy);
	Stat(path, &by_name);
	Fstat(fd, &by_fd);
	CHECK(by_name.st_size == 14 && by_name.st_ino == by_fd.st_ino);
	map = Mmap(NULL, 14, PROT_READ, MAP_SHARED, fd, 0);
	CHECK(memcmp(map, "line 1", 6) == 0);
	Munmap(map, 14);
	Close(fd);

	f = Fopen(path, "r");
	CHECK(Fgets(buf, sizeof buf, f) == buf && strcmp(buf, "line 1\n") == 0);
	CHECK(Fread(buf, 1, sizeof buf, f) == 7 && memcmp(buf, "line 2\n", 7) == 0);
	CHECK(Fgets(buf, sizeof buf, f) == NULL);
	Fclose(f);
	f = Fdopen(Open(path, O_WRONLY | O_TRUNC, 0), "w");
	Fputs("ab", f);
	Fwrite("cd", 1, 2, f);
	Fwrite("", 0, 9, f);
	Fclose(f);
	Stat(path, &by_name);
	CHECK(by_name.st_size == 4);

	dir = Opendir(unit_scratch);
	while ((entry = Readdir(dir)) != NULL)
		found = found || strcmp(entry->d_name, "file") == 0;
	CHECK(found);
	CHECK(Closedir(dir) == 0);
	unlink(path);
	CHECK(unit_open_fds() == before);
}

static void test_allocation(void)
{
	char *p = Malloc(10);
	long *zeroed = Calloc(100, sizeof *zeroed);
	long sum = 0;

	memcpy(p, "123456789", 10);
	p = Realloc(p, 100000);
	CHECK(strcmp(p, "123456789") == 0);
	for (int i = 0; i < 100; i++)
		sum |= zeroed[i];
	CHECK(sum == 0);
	Free(zeroed);
	Free(p);
	Free(Malloc(0));
	Free(Calloc(0, 8));
	Free(NULL);
}

static void test_processes(void)
{
	char *const argv[] = {(char []){"sh"}, (char []){"-c"}, (char []){"exit $CODE"}, NULL};
	char *const envp[] = {(char []){"CODE=42"}, NULL};
	int status;
	pid_t pid = Fork();

	if (pid == 0) {
		Execve("/bin/sh", argv, envp);
		_exit(0);
	}
	CHECK(Waitpid(pid, &status, 0) == pid);
	CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 42);

	pid = Fork();
	if (pid == 0) {
		Setpgid(0, 0);
		Alarm(UNIT_TIME_LIMIT);
		if (Getpgrp() != getpid())
			_exit(1);
		for (;;)
			Pause();
	}
	CHECK(Waitpid(pid, &status, WNOHANG) == 0);
	Kill(pid, SIGTERM);
	CHECK(Wait(&status) == pid);
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
	CHECK(Sleep(0) == 0);
}

/* ---- Signals ---- */

static volatile sig_atomic_t caught;

static void catch(int signum)
{
	caught = signum;
}

static void test_signal_restarts(void)
{
	char c;

	unit_pipe(deed_fd);
	CHECK(Signal(SIGALRM, tick) == SIG_DFL);
	start_ticks(write_once, SA_RESTART);    /* for the timer; the flags come from Signal */
	CHECK(Signal(SIGALRM, SIG_DFL) == tick);
	CHECK(Signal(SIGALRM, tick) == SIG_DFL);
	CHECK(read(deed_fd[0], &c, 1) == 1);    /* not rio: the restart is the kernel's */
	stop_ticks();
	CHECK(ticks >= 5);
	close_both(deed_fd);
}

static void test_signal_sets(void)
{
	sigset_t set, old, now;

	Sigfillset(&set);
	CHECK(Sigismember(&set, SIGUSR1) == 1);
	Sigdelset(&set, SIGUSR1);
	CHECK(Sigismember(&set, SIGUSR1) == 0);
	Sigemptyset(&set);
	CHECK(Sigismember(&set, SIGUSR2) == 0);
	Sigaddset(&set, SIGUSR1);

	Signal(SIGUSR1, catch);
	Sigprocmask(SIG_BLOCK, &set, &old);
	caught = 0;
	Kill(getpid(), SIGUSR1);
	CHECK(caught == 0);
	CHECK(Sigsuspend(&old) == -1 && errno == EINTR);
	CHECK(caught == SIGUSR1);
	Sigprocmask(SIG_SETMASK, NULL, &now);
	CHECK(Sigismember(&now, SIGUSR1) == 1);
	Sigprocmask(SIG_SETMASK, &old, NULL);
	Signal(SIGUSR1, SIG_DFL);
}

/* ---- sio ---- */

static void print_numbers(void)
{
	const long number[] = {LONG_MIN, -1, 0, 7, 10, LONG_MAX};

	for (size_t i = 0; i < LENGTH(number); i++) {
		char want[32];
		int len = snprintf(want, sizeof want, "%ld", number[i]);

		if (sio_putl(number[i]) != len || sio_puts(" ") != 1)
			_exit(1);
	}
	if (Sio_puts("end") != 3 || Sio_putl(-12) != 3 || sio_puts("") != 0)
		_exit(1);
}

static void print_to_nowhere(void)
{
	close(1);
	_exit(!(sio_puts("x") == -1 && errno == EBADF && sio_putl(0) == -1));
}

static void test_sio(void)
{
	char text[256], want[256];

	snprintf(want, sizeof want, "%ld -1 0 7 10 %ld end-12", LONG_MIN, LONG_MAX);
	CHECK(output_of(print_numbers, text, sizeof text) == 0);
	CHECK(strcmp(text, want) == 0);
	CHECK(output_of(print_to_nowhere, text, sizeof text) == 0);
}

/* ---- Threads ---- */

enum { THREADS = 4, ROUNDS = 2000 };

static sem_t mutex;
static long count;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void begin(void)
{
	Sem_init(&mutex, 0, 1);
	count = 1;
}

static void *add(void *arg)
{
	Pthread_once(&once, begin);
	for (int i = 0; i < ROUNDS; i++) {
		P(&mutex);
		long seen = count;

		if (i % 100 == 0)
			sched_yield(); /* an invitation to lose a count */
		count = seen + 1;
		V(&mutex);
	}
	Pthread_exit(arg);
}

static void *wait_to_be_cancelled(void *arg)
{
	for (;;)
		pause();
	return arg;
}

static void *detach_myself(void *done)
{
	Pthread_detach(Pthread_self());
	V(done);
	return NULL;
}

static void test_threads(void)
{
	pthread_t tid[THREADS];
	void *result;
	sem_t done;

	for (int i = 0; i < THREADS; i++)
		Pthread_create(&tid[i], NULL, add, &tid[i]);
	for (int i = 0; i < THREADS; i++) {
		Pthread_join(tid[i], &result);
		CHECK(result == &tid[i]);
	}
	CHECK(count == 1 + THREADS * ROUNDS);

	Pthread_create(&tid[0], NULL, wait_to_be_cancelled, NULL);
	Pthread_cancel(tid[0]);
	Pthread_join(tid[0], &result);
	CHECK(result == PTHREAD_CANCELED);

	Sem_init(&done, 0, 0);
	Pthread_create(&tid[0], NULL, detach_myself, &done);
	P(&done);
}

/* ---- Names ---- */

static void test_addresses(void)
{
	struct addrinfo hints = {.ai_flags = AI_NUMERICHOST, .ai_socktype = SOCK_STREAM};
	struct addrinfo *list;
	struct in_addr addr;
	struct hostent *host;
	char text[64], port[16];

	Getaddrinfo("192.0.2.7", "81", &hints, &list);
	Getnameinfo(list->ai_addr, list->ai_addrlen, text, sizeof text, port, sizeof port,
	            NI_NUMERICHOST | NI_NUMERICSERV);
	CHECK(strcmp(text, "192.0.2.7") == 0 && strcmp(port, "81") == 0);
	Freeaddrinfo(list);

	Inet_pton(AF_INET, "192.0.2.8", &addr);
	CHECK(addr.s_addr == htonl(0xc0000208));
	Inet_ntop(AF_INET, &addr, text, sizeof text);
	CHECK(strcmp(text, "192.0.2.8") == 0);

	host = Gethostbyname("127.0.0.1");
	CHECK(host->h_length == 4 && memcmp(host->h_addr_list[0], "\177\0\0\1", 4) == 0);
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
	RUN(test_round_trips);
	RUN(test_fall_back_to_ipv4);
	RUN(test_port_in_use);
	RUN(test_refused);
	RUN(test_unknown_names);
	RUN(test_named_port);
	RUN(test_capitals_go_on);
	RUN(test_error_family);
	RUN(test_capitals_end_the_program);
	RUN(test_pthread_error);
	RUN(test_files);
	RUN(test_allocation);
	RUN(test_processes);
	RUN(test_signal_restarts);
	RUN(test_signal_sets);
	RUN(test_sio);
	RUN(test_threads);
	RUN(test_addresses);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
