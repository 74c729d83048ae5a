/* test_tracker_client.c - the exchange with trackers of all characters.
 *
 * A scripted tracker is a child on a free port of the loopback interface. It ends when the
 * exchange has closed the connection, so that nothing here sleeps and nothing is left. */
#include "net/tracker_client.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "base/bytes.h"
#include "base/clock.h"
#include "unit.h"

/* tracker_client.c is included, not linked, so that looking up a name can take its time. */
static int slow_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
			    struct addrinfo **list);
#define getaddrinfo slow_getaddrinfo
#include "net/tracker_client.c"
#undef getaddrinfo

static int lookup_ms;

static int slow_getaddrinfo(const char *host, const char *port, const struct addrinfo *hints,
			    struct addrinfo **list)
{
	poll(NULL, 0, lookup_ms);
	return getaddrinfo(host, port, hints, list);
}

#define PATIENCE_MS 10000	/* for an answer that comes */
#define IMPATIENCE_MS 60	/* for one that doesn't */
#define LATE_MS 2000		/* what a busy machine may add */

#define GUARD 0xee

static struct tracker_request request_for_test(enum tracker_command command)
{
	struct tracker_request request = {.command = command, .self = {0xc0a80102, 8080}};

	memset(request.cascade_hash, 0xab, SHA256_HASH_SIZE);
	return request;
}

/* What a scripted tracker does once it has got the request. */
struct script {
	const uint8_t *bytes;
	size_t len;
	bool in_single_bytes;
	int drip_ms;		/* not 0: a byte each so many, over and over, until the client goes */
	bool stays;		/* after the answer it waits for the client to close */
};

static struct tracker_entry entries[TRACKER_ENTRIES_MAX + 1];
static char why[TRACKER_WHY_SIZE + 1];

/* On a free port of the loopback interface. */
static int listening_socket(char port[UNIT_PORT_SIZE])
{
	int fd = unit_bound_port(port);

	if (listen(fd, 4) < 0)
		abort();
	return fd;
}

static void put(int fd, const uint8_t *bytes, size_t len)
{
	if (send(fd, bytes, len, MSG_NOSIGNAL) != (ssize_t)len)
		_exit(2);
}

/* Sends a byte now and then until the client closes: which the wait for the next shows. */
static void drip(int fd, const struct script *s)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	for (size_t i = 0; poll(&p, 1, s->drip_ms) == 0; i++)
		if (send(fd, s->bytes + i % s->len, 1, MSG_NOSIGNAL) < 0)
			break;
}

/* The tracker; report: a pipe for what its one recv got. */
static void run_tracker(int listener, const struct script *s, int report)
{
	uint8_t buffer[200];
	int on = 1, fd = accept(listener, NULL, NULL);
	ssize_t n = recv(fd, buffer, sizeof buffer, 0);

	if (n < 0 || write(report, buffer, (size_t)n) != n)
		_exit(3);
	close(report);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
	if (s->drip_ms != 0)
		drip(fd, s);
	else if (s->in_single_bytes)
		for (size_t i = 0; i < s->len; i++) {
			put(fd, s->bytes + i, 1);
			sched_yield();
		}
	else if (s->len > 0)
		put(fd, s->bytes, s->len);
	if (s->stays)
		while (recv(fd, buffer, sizeof buffer, 0) > 0)
			;
	_exit(0);
}

/* Starts a scripted tracker. port: where it listens; report: a pipe for the request it gets. */
static pid_t start_tracker(const struct script *s, char port[UNIT_PORT_SIZE], int report[2])
{
	int listener = listening_socket(port);
	pid_t pid;

	unit_pipe(report);
	pid = unit_fork();
	if (pid == 0)
		run_tracker(listener, s, report[1]);
	close(listener);
	close(report[1]);
	return pid;
}

/* Runs an exchange with a scripted tracker, and checks what has to hold for every one: the
 * request comes whole in one recv, no descriptor is left, and nothing is written behind the
 * results. request.self.ip may be 0. */
static int exchange(const struct script *s, struct tracker_request request, int timeout_ms)
{
	int before = unit_open_fds();
	int report[2], result;
	uint8_t got[200], want[54];
	char port[UNIT_PORT_SIZE];
	pid_t pid = start_tracker(s, port, report);

	memset(entries, GUARD, sizeof entries);
	memset(why, GUARD, sizeof why);
	result = tracker_exchange("127.0.0.1", port, request, timeout_ms, entries, why);
	CHECK(((uint8_t *)&entries[TRACKER_ENTRIES_MAX])[0] == GUARD);
	CHECK((uint8_t)why[TRACKER_WHY_SIZE] == GUARD);
	CHECK(result >= 0 || memchr(why, '\0', TRACKER_WHY_SIZE) != NULL);

	if (request.self.ip == 0)
		request.self.ip = INADDR_LOOPBACK;
	tracker_request_encode(want, &request);
	CHECK(read(report[0], got, sizeof got) == 54 && memcmp(got, want, 54) == 0);
	close(report[0]);
	CHECK(unit_wait(pid) == 0);
	CHECK(unit_open_fds() == before);
	return result;
}

static int exchange_bytes(const uint8_t *bytes, size_t len, bool stays)
{
	struct script s = {.bytes = bytes, .len = len, .stays = stays};

	return exchange(&s, request_for_test(TRACKER_LIST), PATIENCE_MS);
}

static const uint8_t two_peers[] = {
	0, 0, 0, 0, 24,
	127, 0, 0, 1, 0x1f, 0x90, 0x65, 0x00, 0x00, 0x01, 0, 0,
	10, 20, 30, 40, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 0};

static bool are_the_two_peers(void)
{
	const struct tracker_entry *e = entries;

	return e[0].address.ip == INADDR_LOOPBACK && e[0].address.port == 8080 &&
	       e[0].last_seen == 0x65000001 && !e[0].good &&
	       e[1].address.ip == 0x0a141e28 && e[1].address.port == 65535 &&
	       e[1].last_seen == UINT32_MAX && e[1].good;
}

static void test_exchange(void)
{
	static const uint8_t nobody[] = {0, 0, 0, 0, 0};

	CHECK(exchange_bytes(two_peers, sizeof two_peers, false) == 2 && are_the_two_peers());
	CHECK(exchange_bytes(nobody, sizeof nobody, false) == 0);
}

/* It knows what is to come, so it does not wait for the end of file. */
static void test_exchange_with_one_that_stays(void)
{
	int64_t began = clock_ms();

	CHECK(exchange_bytes(two_peers, sizeof two_peers, true) == 2 && are_the_two_peers());
	CHECK(clock_ms() - began < LATE_MS);
}

static void test_exchange_own_address(void)
{
	struct script s = {.bytes = two_peers, .len = sizeof two_peers};
	struct tracker_request request = request_for_test(TRACKER_SUBSCRIBE);

	CHECK(exchange(&s, request, PATIENCE_MS) == 2);
	request.self.ip = 0;	/* exchange() expects 127.0.0.1 in its place */
	CHECK(exchange(&s, request, PATIENCE_MS) == 2);
}

static void test_exchange_single_bytes(void)
{
	static const uint8_t no[] = "\1\0\0\0\2No";
	struct script s = {.bytes = two_peers, .len = sizeof two_peers, .in_single_bytes = true};

	CHECK(exchange(&s, request_for_test(TRACKER_LIST), PATIENCE_MS) == 2 && are_the_two_peers());
	s = (struct script){.bytes = no, .len = sizeof no - 1, .in_single_bytes = true};
	CHECK(exchange(&s, request_for_test(TRACKER_LIST), PATIENCE_MS) == -1);
	CHECK(strcmp(why, "No") == 0);
}

static void test_exchange_by_name(void)
{
	struct script s = {.bytes = two_peers, .len = sizeof two_peers};
	int report[2];
	char port[UNIT_PORT_SIZE];
	pid_t pid = start_tracker(&s, port, report);

	CHECK(tracker_exchange("localhost", port, request_for_test(TRACKER_LIST), PATIENCE_MS,
			       entries, why) == 2);
	close(report[0]);
	CHECK(unit_wait(pid) == 0);
}

/* The time limit is for the tracker: a name server that is slow takes nothing of it. */
static void test_exchange_by_slow_name(void)
{
	struct script s = {.bytes = two_peers, .len = sizeof two_peers};

	lookup_ms = 1500;
	CHECK(exchange(&s, request_for_test(TRACKER_LIST), 1000) == 2);
	lookup_ms = 0;
}

/* An answer of that status and length, with the rest of text behind its header. */
static size_t make_answer(uint8_t *answer, uint8_t status, uint32_t length, const void *body,
			  size_t body_size)
{
	answer[0] = status;
	encode_be32(answer + 1, length);
	memcpy(answer + 5, body, body_size);
	return 5 + body_size;
}

static void test_exchange_error_message(void)
{
	static const char text[] = "go\033[31m\n\ta\177w\200\377ay\r";
	char long_text[600], cut[TRACKER_WHY_SIZE];
	uint8_t answer[1000];
	size_t n = make_answer(answer, 1, sizeof text - 1, text, sizeof text - 1);

	CHECK(exchange_bytes(answer, n, false) == -1);
	CHECK(strcmp(why, "go?[31m??a?w??ay") == 0);
	answer[0] = 255;		/* any status but 0 */
	CHECK(exchange_bytes(answer, n, false) == -1);
	CHECK(strcmp(why, "go?[31m??a?w??ay") == 0);

	memset(long_text, 'x', sizeof long_text);
	memset(cut, 'x', sizeof cut - 1);
	cut[sizeof cut - 1] = '\0';
	n = make_answer(answer, 1, sizeof long_text, long_text, sizeof long_text);
	CHECK(exchange_bytes(answer, n, false) == -1 && strcmp(why, cut) == 0);
	n = make_answer(answer, 1, UINT32_MAX, long_text, sizeof long_text);
	CHECK(exchange_bytes(answer, n, true) == -1 && strcmp(why, cut) == 0);
	n = make_answer(answer, 1, 500, "half", 4);	/* closes early: better than nothing */
	CHECK(exchange_bytes(answer, n, false) == -1 && strcmp(why, "half") == 0);
}

/* A refusal without a word is to be told in some words all the same. */
static void test_exchange_error_without_message(void)
{
	static const uint8_t none[] = {1, 0, 0, 0, 0}, nul[] = {1, 0, 0, 0, 2, 0, 'x'};

	CHECK(exchange_bytes(none, sizeof none, false) == -1);
	CHECK(why[0] != '\0');
	CHECK(exchange_bytes(nul, sizeof nul, false) == -1);
	CHECK(why[0] != '\0');
}

static void test_exchange_odd_length(void)
{
	static const uint8_t zeros[TRACKER_ENTRIES_MAX * 12 + 12];
	static const uint32_t odd[] = {1, 11, 13, 23, 12 * TRACKER_ENTRIES_MAX + 1};
	static uint8_t answer[5 + sizeof zeros];

	for (size_t i = 0; i < LENGTH(odd); i++) {
		size_t n = make_answer(answer, 0, odd[i], zeros, odd[i]);
		CHECK(exchange_bytes(answer, n, false) == -1);
		CHECK(why[0] != '\0');
	}
}

/* More than there is room for: the first 256 do. */
static void test_exchange_long_list(void)
{
	enum { PEERS = TRACKER_ENTRIES_MAX + 1 };
	static uint8_t list[PEERS * 12], answer[5 + sizeof list];
	static const struct {
		uint32_t claimed, sent;
		int result;
	} list_of[] = {
		{TRACKER_ENTRIES_MAX - 1, TRACKER_ENTRIES_MAX - 1, TRACKER_ENTRIES_MAX - 1},
		{TRACKER_ENTRIES_MAX, TRACKER_ENTRIES_MAX, TRACKER_ENTRIES_MAX},
		{PEERS, PEERS, TRACKER_ENTRIES_MAX},
		{UINT32_MAX / 12, PEERS, TRACKER_ENTRIES_MAX},
	};

	for (uint32_t i = 0; i < PEERS; i++)
		encode_be32(list + 12 * i, 0x0a000000 + i);
	for (size_t i = 0; i < LENGTH(list_of); i++) {
		bool right = true;
		size_t n = make_answer(answer, 0, list_of[i].claimed * 12, list, list_of[i].sent * 12);
		CHECK(exchange_bytes(answer, n, true) == list_of[i].result);
		for (uint32_t k = 0; k < (uint32_t)list_of[i].result; k++)
			right = right && entries[k].address.ip == 0x0a000000 + k;
		CHECK(right);
	}
}

static void test_exchange_closes_early(void)
{
	for (size_t n = 0; n < sizeof two_peers; n++) {
		CHECK(exchange_bytes(two_peers, n, false) == -1);
		CHECK(why[0] != '\0');
	}
}

/* Whether an exchange of that timeout, begun then, has ended in time, and has said so. */
static bool timed_out(int64_t began_ms)
{
	int64_t took_ms = clock_ms() - began_ms;

	return took_ms >= IMPATIENCE_MS - 1 && took_ms < IMPATIENCE_MS + LATE_MS &&
	       strcmp(why, strerror(ETIMEDOUT)) == 0;
}

static bool times_out(const struct script *s)
{
	int64_t began = clock_ms();
	int result = exchange(s, request_for_test(TRACKER_LIST), IMPATIENCE_MS);

	return result == -1 && timed_out(began);
}

static void test_exchange_silence(void)
{
	static const uint8_t huge[] = {0, 0xff, 0xff, 0xff, 0xfc, 1, 2, 3};
	static const uint8_t words[] = {1, 0x7f, 0xff, 0xff, 0xff, 'n', 'o'};
	static const uint8_t dripped[] = {1, 1, 1, 1, 1};	/* a message of 16 MiB to come */

	CHECK(times_out(&(struct script){.stays = true}));
	CHECK(times_out(&(struct script){.bytes = two_peers, .len = 3, .stays = true}));
	CHECK(times_out(&(struct script){.bytes = two_peers, .len = 28, .stays = true}));
	CHECK(times_out(&(struct script){.bytes = huge, .len = sizeof huge, .stays = true}));
	CHECK(times_out(&(struct script){.bytes = words, .len = sizeof words, .stays = true}));
	/* Each byte in time, all of them never. */
	CHECK(times_out(&(struct script){.bytes = dripped, .len = sizeof dripped, .drip_ms = 10}));
}

/* Nobody accepts: the connection exists, and that is all. */
static void test_exchange_never_accepted(void)
{
	int64_t began = clock_ms();
	char port[UNIT_PORT_SIZE];
	int listener = listening_socket(port), before = unit_open_fds();

	CHECK(tracker_exchange("127.0.0.1", port, request_for_test(TRACKER_LIST), IMPATIENCE_MS,
			       entries, why) == -1);
	CHECK(timed_out(began));
	CHECK(unit_open_fds() == before);
	close(listener);
}

static void on_tick(int sig)
{
	(void)sig;
}

/* Signals interrupt its waits, which neither end it nor make it start to wait anew. */
static void test_exchange_interrupted(void)
{
	const struct itimerval each_ms = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
	struct sigaction action = {.sa_handler = on_tick}, old;
	int64_t began = clock_ms();
	char port[UNIT_PORT_SIZE];
	int listener = listening_socket(port);

	sigemptyset(&action.sa_mask);
	sigaction(SIGALRM, &action, &old);
	setitimer(ITIMER_REAL, &each_ms, NULL);
	CHECK(tracker_exchange("127.0.0.1", port, request_for_test(TRACKER_LIST), IMPATIENCE_MS,
			       entries, why) == -1);
	setitimer(ITIMER_REAL, &never, NULL);
	sigaction(SIGALRM, &old, NULL);
	alarm(UNIT_TIME_LIMIT);
	CHECK(timed_out(began));
	close(listener);
}

static void test_exchange_refused(void)
{
	char port[UNIT_PORT_SIZE];
	int fd = unit_bound_port(port), before = unit_open_fds();	/* bound, but nobody listens */

	CHECK(tracker_exchange("127.0.0.1", port, request_for_test(TRACKER_LIST), PATIENCE_MS,
			       entries, why) == -1);
	CHECK(strcmp(why, strerror(ECONNREFUSED)) == 0);
	CHECK(unit_open_fds() == before);
	close(fd);
}

static void test_exchange_no_such_name(void)
{
	CHECK(tracker_exchange("127.0.0.1", "no-such-service", request_for_test(TRACKER_LIST),
			       PATIENCE_MS, entries, why) == -1);
	CHECK(strcmp(why, gai_strerror(EAI_SERVICE)) == 0);
}

/* It goes away with the request unread, which resets the connection. */
static void test_exchange_reset(void)
{
	char port[UNIT_PORT_SIZE];
	int listener = listening_socket(port);
	pid_t pid = unit_fork();

	if (pid == 0) {
		int fd = accept(listener, NULL, NULL);
		struct pollfd p = {.fd = fd, .events = POLLIN};
		poll(&p, 1, -1);
		_exit(0);
	}
	CHECK(tracker_exchange("127.0.0.1", port, request_for_test(TRACKER_LIST), PATIENCE_MS,
			       entries, why) == -1);
	CHECK(why[0] != '\0');
	close(listener);
	CHECK(unit_wait(pid) == 0);
}

int main(void)
{
	alarm(UNIT_TIME_LIMIT);
	RUN(test_exchange);
	RUN(test_exchange_with_one_that_stays);
	RUN(test_exchange_own_address);
	RUN(test_exchange_single_bytes);
	RUN(test_exchange_by_name);
	RUN(test_exchange_by_slow_name);
	RUN(test_exchange_error_message);
	RUN(test_exchange_error_without_message);
	RUN(test_exchange_odd_length);
	RUN(test_exchange_long_list);
	RUN(test_exchange_closes_early);
	RUN(test_exchange_silence);
	RUN(test_exchange_never_accepted);
	RUN(test_exchange_interrupted);
	RUN(test_exchange_refused);
	RUN(test_exchange_no_such_name);
	RUN(test_exchange_reset);
	return unit_result();
}
