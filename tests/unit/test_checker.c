/* test_checker.c - a process that looks at what has arrived. */
#include "file/checker.h"
#include "check_common.h"

#include <poll.h>

/* Takes results until all runs that were sent are back, in order; runs has room for twice
 * CHECKER_WAITING_MAX of them. */
static size_t receive_all(struct checker *c, struct run runs[])
{
	size_t got = 0;

	while (c->waiting > 0) {
		unsigned before = c->waiting;
		ssize_t n = checker_receive(c, runs + got);
		if (!CHECK(n >= 0 && c->waiting == before - (unsigned)n))
			break;
		got += (size_t)n;
	}
	return got;
}

/* Starts a checker for the one file. */
static int start(struct checker *c)
{
	static struct datafile file;

	file = (struct datafile){.meta = m, .fd = fd, .held = held};
	return checker_start(c, &file);
}

static void test_checker(void)
{
	static struct run runs[2 * CHECKER_WAITING_MAX];
	int before = unit_open_fds();
	struct checker c;

	open_full(CHECKER_WAITING_MAX * 10 * KIB - 1, KIB);
	spoil(25);
	spoil(29);
	spoil(m.chunks - 1);
	CHECK(start(&c) == 0 && c.waiting == 0);
	for (int round = 0; round < 5; round++) {
		for (uint64_t i = 0; i < CHECKER_WAITING_MAX; i++) {
			struct run run = a_run(i * 10, 10);
			CHECK(checker_send(&c, &run) == 0 && c.waiting == i + 1);
		}
		memset(runs, 0, sizeof runs);
		CHECK(receive_all(&c, runs) == CHECKER_WAITING_MAX);
		for (uint64_t i = 0; i < CHECKER_WAITING_MAX; i++)
			CHECK(is_run(&runs[i], i * 10, 10, i == 2 ? 2 : i == CHECKER_WAITING_MAX - 1, 0));
	}
	for (uint64_t i = 0; i < m.chunks; i++)
		CHECK(held_has(held, i) == (i != 25 && i != 29 && i != m.chunks - 1));

	mend(25);		/* fetched anew, by another peer */
	struct run again = a_run(25, 1);
	CHECK(checker_send(&c, &again) == 0 && receive_all(&c, runs) == 1);
	CHECK(is_run(&runs[0], 25, 1, 0, 0) && held_has(held, 25));

	set_length(100 * KIB);
	struct run gone = a_run(90, 20);
	CHECK(checker_send(&c, &gone) == 0 && receive_all(&c, runs) == 1);
	CHECK(is_run(&runs[0], 90, 20, 10, EIO));
	checker_stop(&c);
	CHECK(!has_children());
	close_files();
	CHECK(unit_open_fds() == before);
}

/* No answer before a question. */
static void test_checker_waits(void)
{
	struct checker c;

	open_full(MIB, KIB);
	CHECK(start(&c) == 0);
	struct pollfd p = {.fd = c.from, .events = POLLIN};
	CHECK(poll(&p, 1, 0) == 0);
	struct run run = a_run(0, 1024);
	CHECK(checker_send(&c, &run) == 0);
	CHECK(poll(&p, 1, UNIT_TIME_LIMIT * 1000) == 1 && p.revents == POLLIN);
	checker_stop(&c);	/* with a result that nobody took */
	CHECK(!has_children() && all_held_but(0, 0));
	close_files();
}

static void test_checker_stopped_at_work(void)
{
	struct checker c;

	open_full(16 * MIB, MIB);
	CHECK(start(&c) == 0);
	for (unsigned i = 0; i < CHECKER_WAITING_MAX; i++) {
		struct run run = a_run(i % 16, 1);
		CHECK(checker_send(&c, &run) == 0);
	}
	checker_stop(&c);
	CHECK(!has_children());
	close_files();
}

static void test_checker_gone(void)
{
	struct run run = a_run(0, 1), runs[CHECKER_WAITING_MAX];
	struct checker c;

	open_full(MIB, KIB);
	CHECK(start(&c) == 0);
	kill(c.pid, SIGKILL);
	wait_for_death(c.pid);
	CHECK(checker_receive(&c, runs) == -1);
	CHECK(checker_send(&c, &run) == -1 && errno == EPIPE && c.waiting == 0);
	checker_stop(&c);
	CHECK(!has_children());
	close_files();
}

static void test_checker_without_fork(void)
{
	struct checker c;

	open_full(MIB, KIB);
	int before = unit_open_fds();
	forks_that_work = 0;
	errno = 0;
	CHECK(start(&c) == -1 && errno == EAGAIN);
	forks_work_again();
	CHECK(unit_open_fds() == before);
	close_files();
}

static int run_all(void)
{
	set_up();
	RUN(test_checker);
	RUN(test_checker_waits);
	RUN(test_checker_stopped_at_work);
	RUN(test_checker_gone);
	RUN(test_checker_without_fork);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
