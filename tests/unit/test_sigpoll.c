/* test_sigpoll.c - what ends the wait: a descriptor, the time, a signal. */
#include "base/sigpoll.h"

#include <sys/resource.h>
#include <sys/select.h>

#include "unit.h"

#define FOR_LONG (&(struct timespec){.tv_sec = UNIT_TIME_LIMIT})
#define NOT_AT_ALL (&(struct timespec){0})

static sigset_t none;
static int filled[2];		/* a pipe with a byte in it */
static int empty[2];
static volatile sig_atomic_t handled;

static void on_signal(int sig)
{
	(void)sig;
	handled++;
}

static void test_nothing(void)
{
	struct pollfd polled = {.fd = empty[0], .events = POLLIN, .revents = POLLIN};

	CHECK(sigpoll(&polled, 1, NOT_AT_ALL, &none) == 0);
	CHECK(polled.revents == 0);
	CHECK(sigpoll(NULL, 0, NOT_AT_ALL, &none) == 0);
}

static void test_bytes_and_room(void)
{
	struct pollfd polled[] = {
		{.fd = filled[0], .events = POLLIN},
		{.fd = empty[0], .events = POLLIN},
		{.fd = -1, .events = POLLIN, .revents = POLLIN},
		{.fd = empty[1], .events = POLLIN | POLLOUT},
		{.fd = filled[0]},
	};

	CHECK(sigpoll(polled, LENGTH(polled), FOR_LONG, &none) == 2);
	CHECK(polled[0].revents == POLLIN);
	CHECK(polled[1].revents == 0);
	CHECK(polled[2].revents == 0);
	CHECK(polled[3].revents == POLLOUT);
	CHECK(polled[4].revents == 0);
}

static void test_end_of_file(void)
{
	int fds[2];

	if (pipe(fds) < 0)
		abort();
	close(fds[1]);
	struct pollfd polled = {.fd = fds[0], .events = POLLIN};
	CHECK(sigpoll(&polled, 1, FOR_LONG, &none) == 1);
	CHECK(polled.revents != 0);
	close(fds[0]);
}

static void test_a_signal_that_came_before(void)
{
	struct pollfd polled = {.fd = empty[0], .events = POLLIN};

	handled = 0;
	raise(SIGUSR1);
	CHECK(handled == 0);
	CHECK(sigpoll(&polled, 1, FOR_LONG, &none) < 0 && errno == EINTR);
	CHECK(handled == 1);
	raise(SIGUSR1);		/* is blocked again */
	CHECK(handled == 1);
	CHECK(sigpoll(NULL, 0, NOT_AT_ALL, &none) < 0 && errno == EINTR);
	CHECK(handled == 2);
}

static void test_a_descriptor_that_select_does_not_take(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		abort();
	limit.rlim_cur = FD_SETSIZE + 1;
	if (limit.rlim_max < limit.rlim_cur || setrlimit(RLIMIT_NOFILE, &limit) < 0 ||
	    dup2(filled[0], FD_SETSIZE) < 0) {
		unit_skip("so many descriptors can't be had");
		return;
	}
	struct pollfd polled = {.fd = FD_SETSIZE, .events = POLLIN};
	int n = sigpoll(&polled, 1, FOR_LONG, &none);
	CHECK(n == 1 || (n < 0 && errno == EINVAL));
	close(FD_SETSIZE);
}

int main(void)
{
	struct sigaction action = {.sa_handler = on_signal};
	sigset_t blocked;

	sigemptyset(&none);
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGUSR1);
	if (sigaction(SIGUSR1, &action, NULL) < 0 || sigprocmask(SIG_BLOCK, &blocked, NULL) < 0 ||
	    pipe(filled) < 0 || pipe(empty) < 0 || write(filled[1], "", 1) != 1)
		abort();
	RUN(test_nothing);
	RUN(test_bytes_and_room);
	RUN(test_end_of_file);
	RUN(test_a_signal_that_came_before);
	RUN(test_a_descriptor_that_select_does_not_take);
	return unit_result();
}
