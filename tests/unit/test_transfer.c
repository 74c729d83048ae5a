/* test_transfer.c - bytes from a socket into a file: by splice, by copying where splice is
 * refused, and with a file that can't take them.
 *
 * What transfer.c has learnt of splice it keeps, so each test runs in a new process for each
 * way. Built with PORTABLE there is no splice to refuse, and all ways are the same one. */
#define _GNU_SOURCE	/* splice, where the system has it */
#include "fetch/transfer.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "unit.h"

#define BIG ((size_t)700 * 1000)	/* bytes: more than is copied at a time */

/* ---- Faults on demand ---- */

static int socket_refusal, file_refusal;	/* the errno with which splice refuses, or 0 */
static int splices, refusals;

#if defined(__linux__) && !defined(PORTABLE)
#define HAVE_SPLICE true
/* Stands before the C library's. */
ssize_t splice(int in, loff_t *in_at, int out, loff_t *out_at, size_t size, unsigned flags)
{
	int refusal = out_at == NULL ? socket_refusal : file_refusal;

	splices++;
	if (refusal != 0) {
		refusals++;
		errno = refusal;
		return -1;
	}
	return (ssize_t)syscall(SYS_splice, in, in_at, out, out_at, size, flags);
}
#else
#define HAVE_SPLICE false
#endif

static const struct way {
	const char *name;
	int socket_refusal, file_refusal;
} ways[] = {
	{"splice", 0, 0},
	{"no splice at all", ENOSYS, ENOSYS},
	{"no splice from this socket", EINVAL, 0},
	{"no splice allowed", EPERM, EPERM},
	{"no splice to this file", 0, EINVAL},
};

/* ---- A socket and a file ---- */

static int end[2];		/* of the connection: ours to read, the peer's to write */
static int file;
static char path[UNIT_PATH_SIZE];
static uint8_t sent[BIG], found[BIG + 1];

static void open_all(int flags)
{
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, end) < 0 || fcntl(end[0], F_SETFL, O_NONBLOCK) < 0)
		abort();
	unit_write_file(unit_path(path, "file"), "", 0);
	if ((file = open(path, O_RDWR | flags)) < 0)
		abort();
	for (size_t i = 0; i < BIG; i++)
		sent[i] = (uint8_t)(i * 7 + i / 251);
}

static void send_text(const char *text)
{
	if (write(end[1], text, strlen(text)) != (ssize_t)strlen(text))
		abort();
}

/* Transfers once, to the file. Result: as of transfer_from_socket(); the file must take it. */
static ssize_t transfer(size_t size, uint64_t offset)
{
	int error = -1;
	ssize_t n = transfer_from_socket(end[0], size, file, offset, &error);

	CHECK(error == 0);
	return n;
}

static bool file_is(const void *bytes, size_t size)
{
	return pread(file, found, sizeof found, 0) == (ssize_t)size && memcmp(found, bytes, size) == 0;
}

/* ---- Tests: each runs in a process of its own, for each way ---- */

static void arrive_at_offset(void)
{
	open_all(0);
	send_text("one two three");
	CHECK(transfer(7, 5) == 7);
	CHECK(file_is("\0\0\0\0\0one two", 12));
	CHECK(transfer(6, 0) == 6);
	CHECK(file_is(" threene two", 12));
	CHECK(lseek(file, 0, SEEK_CUR) == 0);
}

/* The peer writes while we read: in whatever pieces, all comes. */
static void arrive_by_the_many(void)
{
	uint64_t got = 0;

	open_all(0);
	pid_t child = unit_fork();
	if (child == 0) {
		close(end[0]);
		for (size_t done = 0; done < BIG; ) {
			ssize_t n = write(end[1], sent + done, BIG - done);
			if (n < 0)
				_exit(1);
			done += (size_t)n;
		}
		_exit(0);
	}
	while (got < BIG && poll(&(struct pollfd){.fd = end[0], .events = POLLIN}, 1, -1) == 1) {
		ssize_t n = transfer(BIG - (size_t)got, got);
		if (!CHECK(n > 0))
			break;
		got += (uint64_t)n;
	}
	close(end[0]);	/* or a child would be stuck whose bytes aren't taken */
	CHECK(unit_wait(child) == 0);
	CHECK(got == BIG);
	CHECK(file_is(sent, BIG));
}

static void take_what_is_there(void)
{
	open_all(0);
	send_text("half");
	CHECK(transfer(100, 0) == 4);
	CHECK(transfer(96, 4) == -1 && errno == EAGAIN);
	send_text(" and half");
	CHECK(transfer(96, 4) == 9);
	CHECK(file_is("half and half", 13));
}

static void find_nothing(void)
{
	open_all(0);
	CHECK(transfer(100, 0) == -1 && errno == EAGAIN);
	CHECK(file_is("", 0));
}

static void come_to_the_end(void)
{
	open_all(0);
	send_text("last");
	close(end[1]);
	CHECK(transfer(100, 0) == 4);
	CHECK(transfer(96, 4) == 0);
	CHECK(transfer(96, 4) == 0);
	CHECK(file_is("last", 4));
}

/* Linux splices nothing to such a file; what had come by then is not lost. */
static void arrive_where_only_appending_goes(void)
{
	open_all(O_APPEND);
	send_text("one");
	CHECK(transfer(100, 0) == 3);
	send_text(" two");
	CHECK(transfer(100, 3) == 4);
	CHECK(file_is("one two", 7));
}

static void meet_a_full_device(void)
{
	int full = open("/dev/full", O_WRONLY), error = 0;

	open_all(0);
	send_text("nobody has room for this");
	CHECK(transfer_from_socket(end[0], 24, full, 0, &error) == 24);
	CHECK(error == ENOSPC);
	send_text("good");
	CHECK(transfer(100, 0) == 4);
	CHECK(file_is("good", 4));
}

/* A part of it still goes in. The rest must not come out later. */
static void meet_a_limit(void)
{
	const struct rlimit limit = {6, 100};
	const struct rlimit none = {100, 100};
	int error = 0;

	signal(SIGXFSZ, SIG_IGN);
	open_all(0);
	send_text("inside, outside");
	setrlimit(RLIMIT_FSIZE, &limit);
	CHECK(transfer_from_socket(end[0], 15, file, 0, &error) == 15);
	CHECK(error == EFBIG);
	CHECK(file_is("inside", 6));
	setrlimit(RLIMIT_FSIZE, &none);
	send_text("good");
	CHECK(transfer(100, 6) == 4);
	CHECK(file_is("insidegood", 10));
}

/* Whoever is refused doesn't try again, and keeps no pipe. */
static void ask_once_for_splice(void)
{
	open_all(0);
	int fds = unit_open_fds();
	for (uint64_t at = 0; at < 3; at++) {
		send_text("a");
		CHECK(transfer(1, at) == 1);
	}
	CHECK(file_is("aaa", 3));
	if (socket_refusal != 0 || file_refusal != 0) {
		CHECK(refusals == HAVE_SPLICE);
		CHECK(unit_open_fds() == fds);
	} else {
		CHECK(splices == (HAVE_SPLICE ? 6 : 0));
	}
}

/* ---- In each way ---- */

static void (*act)(void);

static int act_here(void)
{
	act();
	return unit_failed_checks > 0;
}

static void in_each_way(void (*what)(void))
{
	act = what;
	for (size_t i = 0; i < LENGTH(ways); i++) {
		socket_refusal = ways[i].socket_refusal;
		file_refusal = ways[i].file_refusal;
		if (!CHECK(unit_in_child(act_here) == 0))
			fprintf(stderr, "with %s\n", ways[i].name);
	}
}

static void test_bytes_arrive_at_their_offset(void) { in_each_way(arrive_at_offset); }
static void test_many_bytes(void) { in_each_way(arrive_by_the_many); }
static void test_fewer_bytes_than_wanted(void) { in_each_way(take_what_is_there); }
static void test_nothing_there(void) { in_each_way(find_nothing); }
static void test_end_of_stream(void) { in_each_way(come_to_the_end); }
static void test_appending(void) { in_each_way(arrive_where_only_appending_goes); }
static void test_full_device(void) { in_each_way(meet_a_full_device); }
static void test_limit(void) { in_each_way(meet_a_limit); }
static void test_refused_once(void) { in_each_way(ask_once_for_splice); }

static int run_all(void)
{
	RUN(test_bytes_arrive_at_their_offset);
	RUN(test_many_bytes);
	RUN(test_fewer_bytes_than_wanted);
	RUN(test_nothing_there);
	RUN(test_end_of_stream);
	RUN(test_appending);
	RUN(test_full_device);
	RUN(test_limit);
	RUN(test_refused_once);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
