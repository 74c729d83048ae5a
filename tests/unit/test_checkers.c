/* test_checkers.c - who of the checkers gets a run, and what becomes of it. checkers.c is
 * included, to look at the processes. */
#include "fetch/checkers.c"

#include "check_common.h"

enum { CHUNKS = 16 };

static struct datafile data[2];	/* the same one twice */
static struct run came[3 * CHECKER_WAITING_MAX];
static size_t came_count, died_count;
static struct pollfd place[CHECKERS_MAX + 1];

static void take(const struct run *run)
{
	came[came_count++] = *run;
}

static void note_death(void)
{
	died_count++;
}

static void begin(unsigned at_most)
{
	open_full(CHUNKS * KIB, KIB);
	for (size_t i = 0; i < LENGTH(data); i++)
		data[i] = (struct datafile){.meta = m, .fd = dup(fd), .held = held};
	came_count = died_count = 0;
	checkers_begin(data, at_most, take, note_death);
}

static void end(void)
{
	checkers_end();
	CHECK(!has_children());
	for (size_t i = 0; i < LENGTH(data); i++)
		close(data[i].fd);
	close_files();
}

static int send_run(uint64_t first, uint32_t file)
{
	return checkers_send(&(struct run){.first = first, .count = 1, .file = file});
}

/* Takes what has come from those that poll names; waits until something has. */
static void poll_and_take(void)
{
	checkers_poll(place);
	CHECK(poll(place, CHECKERS_MAX, UNIT_TIME_LIMIT * 1000) > 0);
	checkers_take(place);
}

static void settle(size_t count)
{
	while (came_count < count)
		poll_and_take();
}

/* So many checkers, each with one run. */
static void start_all(unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		CHECK(send_run(i, 0) == 0 && checker_count == i + 1 && checkers[i].waiting == 1);
}

static void kill_checker(unsigned i)
{
	kill(checkers[i].pid, SIGKILL);
	wait_for_death(checkers[i].pid);
}

/* One more as long as all have something to do, and then whoever has least. */
static void test_who_gets_it(void)
{
	begin(99);
	CHECK(checker_count == 0);
	start_all(CHECKERS_MAX);
	CHECK(send_run(4, 0) == 0 && checker_count == CHECKERS_MAX);
	for (unsigned i = 0; i < CHECKERS_MAX; i++) {
		take_from(&checkers[i]);
		unsigned before = checkers[i].waiting;
		CHECK(send_run(5 + i, 0) == 0 && checkers[i].waiting == before + 1);
	}
	settle(5 + CHECKERS_MAX);
	for (uint64_t chunk = 0; chunk < CHUNKS; chunk++)
		CHECK(held_has(held, chunk) == (chunk < 5 + CHECKERS_MAX));
	CHECK(died_count == 0);
	end();
}

/* What to poll for: each checker, and no other place. What didn't come is not waited for. */
static void test_polling(void)
{
	struct pollfd untouched = {.fd = 77, .events = 7};

	begin(2);
	place[CHECKERS_MAX] = untouched;
	checkers_poll(place);
	for (unsigned i = 0; i < CHECKERS_MAX; i++)
		CHECK(place[i].fd == -1);
	start_all(2);
	checkers_poll(place);
	for (unsigned i = 0; i < CHECKERS_MAX; i++)
		CHECK(place[i].fd == (i < 2 ? checkers[i].from : -1) && (i >= 2 || place[i].events == POLLIN));
	CHECK(memcmp(&place[CHECKERS_MAX], &untouched, sizeof untouched) == 0);
	checkers_take(place);
	CHECK(came_count == 0);
	place[1].revents = POLLIN;
	checkers_take(place);
	CHECK(came_count == 1 && came[0].first == 1 && came[0].bad == 0);
	settle(2);
	CHECK(came[1].first == 0);
	end();
}

static void test_waiting(void)
{
	begin(2);
	checkers_wait();	/* for nothing */
	start_all(2);
	place[0].revents = POLLIN;
	place[1].revents = 0;
	checkers_take(place);
	CHECK(came_count == 1 && came[0].first == 0);
	checkers_wait();
	CHECK(came_count == 2 && came[1].first == 1);
	checkers_wait();
	CHECK(came_count == 2);
	end();
}

/* Each checker closes the file; it still has the others. That is no result. */
static void test_closing_a_file(void)
{
	begin(2);
	start_all(2);
	checkers_close(0);
	for (unsigned i = 0; i < 2; i++)
		while (checkers[i].waiting > 0) {
			place[i].revents = POLLIN;
			place[1 - i].revents = 0;
			checkers_take(place);
		}
	CHECK(came_count == 2);
	for (uint32_t i = 0; i < 4; i++)
		CHECK(send_run(10 + i, i / 2) == 0 && checker_count == 2);
	settle(6);
	for (size_t i = 2; i < 6; i++)
		CHECK(came[i].bad == (came[i].file == 0) && (came[i].error != 0) == (came[i].file == 0));
	CHECK(died_count == 0);
	end();
}

/* If it can take no more, what it has done is taken first. */
static void test_closing_a_file_of_a_busy_checker(void)
{
	begin(1);
	for (uint64_t i = 0; i < CHECKER_WAITING_MAX; i++)
		CHECK(send_run(i % CHUNKS, 0) == 0);
	CHECK(checkers[0].waiting == CHECKER_WAITING_MAX && came_count == 0);
	checkers_close(0);
	CHECK(checkers[0].waiting <= CHECKER_WAITING_MAX && came_count > 0);
	settle(CHECKER_WAITING_MAX);
	while (checkers[0].waiting > 0)
		poll_and_take();
	CHECK(came_count == CHECKER_WAITING_MAX && checker_count == 1 && died_count == 0);
	end();
}

/* Whether it is at work, or as full as can be. */
static void test_closing_a_file_of_a_dead_checker(void)
{
	for (unsigned runs = 1; runs <= CHECKER_WAITING_MAX; runs += CHECKER_WAITING_MAX - 1) {
		begin(1);
		CHECK(send_run(0, 0) == 0);
		kill(checkers[0].pid, SIGSTOP);
		while (checkers[0].waiting < runs)
			CHECK(send_run(0, 0) == 0);
		kill_checker(0);
		checkers_close(0);
		CHECK(checker_count == 0 && died_count == 1);
		end();
	}
}

/* As many as there can be have died: there is a new one. */
static void test_all_have_died(void)
{
	begin(CHECKERS_MAX);
	start_all(CHECKERS_MAX);
	settle(CHECKERS_MAX);
	for (unsigned i = 0; i < CHECKERS_MAX; i++)
		kill_checker(i);
	CHECK(send_run(7, 0) == 0 && checker_count == 1 && died_count == CHECKERS_MAX);
	settle(CHECKERS_MAX + 1);
	CHECK(held_has(held, 7));
	end();
}

/* If each new one dies, too, that ends. */
static void test_none_lives(void)
{
	begin(2);
	all_are_doomed = true;
	CHECK(send_run(0, 0) == -1 && checker_count == 0 && died_count > 0);
	forks_work_again();
	CHECK(send_run(0, 0) == 0);
	forks_that_work = 0;
	CHECK(send_run(1, 0) == 0 && checkers[0].waiting == 2);		/* no second one: the first gets it */
	kill_checker(0);
	CHECK(send_run(2, 0) == -1 && checker_count == 0);
	forks_work_again();
	end();
}

/* Whoever has died is noticed by what poll tells, too; the others stay. */
static void test_one_has_died(void)
{
	begin(3);
	start_all(3);
	settle(3);
	pid_t first = checkers[0].pid, last = checkers[2].pid;
	kill_checker(1);
	poll_and_take();
	CHECK(checker_count == 2 && checkers[0].pid == first && checkers[1].pid == last && died_count == 1);
	CHECK(send_run(8, 0) == 0 && send_run(9, 0) == 0);
	settle(5);
	CHECK(held_has(held, 8) && held_has(held, 9) && died_count == 1);
	end();
}

static int run_all(void)
{
	set_up();
	RUN(test_who_gets_it);
	RUN(test_polling);
	RUN(test_waiting);
	RUN(test_closing_a_file);
	RUN(test_closing_a_file_of_a_busy_checker);
	RUN(test_closing_a_file_of_a_dead_checker);
	RUN(test_all_have_died);
	RUN(test_none_lives);
	RUN(test_one_has_died);
	return unit_result();
}

int main(void)
{
	return unit_in_scratch(run_all);
}
