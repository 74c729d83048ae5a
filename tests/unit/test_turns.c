/* Whose turn it is to be sent a chunk. */
#include "serve/turns.h"
#include "unit.h"

#define CHILDREN 8

static struct turns *turns;

static void make_turns(size_t files)
{
	free(turns);	/* but for the table, which all share */
	turns = turns_new(CHILDREN, files);
}

static void begin(void)
{
	make_turns(2);
	CHECK(turns != NULL);
	for (unsigned i = 0; i < CHILDREN; i++)
		turns_join(turns, i);
}

/* The child asks for a chunk of a region of the first file. Whether its turn comes at once. */
static bool ask(unsigned child, size_t region)
{
	turns_ask(turns, child, 0, region, 1);
	return turns_wait(turns, child, -1, 0);
}

/* Every turn is taken, by the first children, for chunks of region 7. */
static void begin_busy(void)
{
	begin();
	for (unsigned i = 0; i < TURNS_LEAST; i++)
		CHECK(ask(i, 7));
}

static void few_children_need_not_wait(void)
{
	make_turns(1);
	for (unsigned i = 0; i < TURNS_LEAST; i++)
		turns_join(turns, i);
	CHECK(!turns_are_scarce(turns));
	turns_join(turns, CHILDREN - 1);
	CHECK(turns_are_scarce(turns));
	turns_leave(turns, 0);
	CHECK(!turns_are_scarce(turns));
}

static void so_many_have_a_turn(void)
{
	begin_busy();
	CHECK(!ask(4, 4));
	turns_end(turns, 2);
	CHECK(turns_wait(turns, 4, -1, 0));
	CHECK(!ask(5, 5));
}

static void who_asked_first_is_first(void)
{
	begin_busy();
	CHECK(!ask(5, 5));
	CHECK(!ask(4, 4));
	turns_end(turns, 0);
	CHECK(!ask(0, 0) && !ask(0, 100));	/* its turn is over: it waits as others do */
	CHECK(!turns_wait(turns, 4, -1, 0));
	CHECK(turns_wait(turns, 5, -1, 0));
}

static void what_was_sent_least_is_first(void)
{
	begin_busy();
	CHECK(!ask(4, 7));
	CHECK(!ask(5, 8));
	turns_end(turns, 0);
	CHECK(!turns_wait(turns, 4, -1, 0));
	CHECK(turns_wait(turns, 5, -1, 0));
	turns_end(turns, 1);
	CHECK(turns_wait(turns, 4, -1, 0));
}

/* Whose chunk is being sent to somebody else comes later, though nobody was when it asked. */
static void what_is_sent_meanwhile_comes_later(void)
{
	begin_busy();
	CHECK(!ask(4, 8));
	CHECK(!ask(5, 8));
	CHECK(!ask(6, 9));
	turns_end(turns, 0);
	CHECK(turns_wait(turns, 4, -1, 0));
	turns_end(turns, 1);
	CHECK(!turns_wait(turns, 5, -1, 0));
	CHECK(turns_wait(turns, 6, -1, 0));
}

static void what_was_not_sent_in_the_end_does_not_count(void)
{
	begin_busy();
	CHECK(!ask(4, 8));	/* it hangs up while it waits, */
	CHECK(!ask(5, 9));
	CHECK(!ask(6, 8));
	turns_leave(turns, 4);
	turns_end(turns, 0);
	CHECK(turns_wait(turns, 5, -1, 0));
	turns_leave(turns, 5);	/* and this one in its turn */
	CHECK(turns_wait(turns, 6, -1, 0));
	CHECK(!ask(0, 9));
	CHECK(!ask(3, 10));
	turns_end(turns, 6);
	CHECK(!turns_wait(turns, 3, -1, 0));
	CHECK(turns_wait(turns, 0, -1, 0));
}

/* A file that was sent a thousand times doesn't wait until another was. */
static void many_copies_count_as_a_few(void)
{
	begin();
	for (int i = 0; i < 1000; i++) {
		CHECK(ask(0, 7));
		turns_end(turns, 0);
	}
	for (unsigned i = 0; i < TURNS_LEAST; i++)
		CHECK(ask(i, 8 + i));
	CHECK(!ask(4, 7));
	for (int i = 0; i < TURN_COPIES * CHILDREN; i++) {
		turns_ask(turns, 5, 0, 100, 1);
		turns_end(turns, 5);
	}
	CHECK(!ask(5, 100));
	turns_end(turns, 0);
	CHECK(turns_wait(turns, 4, -1, 0));
}

static void files_are_counted_apart(void)
{
	begin_busy();
	CHECK(!ask(4, 7));
	turns_ask(turns, 5, 1, 7, 1);
	turns_end(turns, 0);
	CHECK(!turns_wait(turns, 4, -1, 0));
	CHECK(turns_wait(turns, 5, -1, 0));
}

static void a_child_that_ended_has_no_turn(void)
{
	begin_busy();
	CHECK(!ask(4, 4));
	CHECK(!ask(5, 5));
	turns_leave(turns, 4);	/* it was killed while it waited, */
	turns_leave(turns, 0);	/* and this one while it sent */
	CHECK(turns_wait(turns, 5, -1, 0));
}

static void a_turn_is_waited_for(void)
{
	begin_busy();
	CHECK(!ask(4, 4));
	pid_t pid = unit_fork();
	if (pid == 0)
		_exit(turns_wait(turns, 4, -1, 1000 * UNIT_TIME_LIMIT) ? 0 : 1);
	turns_end(turns, TURNS_LEAST - 1);
	int status;
	CHECK(waitpid(pid, &status, 0) == pid && status == 0);
}

static void who_hung_up_is_not_waited_for(void)
{
	int ends[2];

	begin_busy();
	CHECK(!ask(4, 4));
	CHECK(socketpair(AF_UNIX, SOCK_STREAM, 0, ends) == 0);
	close(ends[1]);
	CHECK(turns_wait(turns, 4, ends[0], 1000 * UNIT_TIME_LIMIT));
	close(ends[0]);
}

static void who_takes_nothing_loses_its_turn(void)
{
	begin_busy();
	CHECK(!ask(5, 9));
	CHECK(!ask(6, 8));
	turns_end(turns, 0);
	CHECK(turns_wait(turns, 5, -1, 0));
	turns_lose(turns, 5);
	CHECK(turns_wait(turns, 6, -1, 0));
	turns_leave(turns, 5);	/* it hangs up after all: its chunk doesn't count */
	CHECK(!ask(0, 9));
	CHECK(!ask(3, 10));
	turns_end(turns, 6);
	CHECK(!turns_wait(turns, 3, -1, 0));
	CHECK(turns_wait(turns, 0, -1, 0));
}

/* A line that loses something may be still for a moment. */
static void who_lost_its_turn_is_among_the_first_for_another(void)
{
	begin_busy();
	CHECK(!ask(4, 4));
	CHECK(!ask(5, 5));
	turns_lose(turns, 0);
	CHECK(turns_wait(turns, 4, -1, 0));
	CHECK(!turns_wait(turns, 0, -1, 0));	/* it takes again; but all turns are taken */
	turns_end(turns, 1);
	CHECK(!turns_wait(turns, 5, -1, 0));
	CHECK(turns_wait(turns, 0, -1, 0));
	turns_end(turns, 0);
	turns_end(turns, 2);
	turns_end(turns, 4);
	turns_leave(turns, 5);
	for (int copies = 0; copies < 3; copies++) {	/* as many as of region 7, if each was counted once */
		CHECK(ask(3, 20));
		turns_end(turns, 3);
	}
	for (unsigned i = 0; i < TURNS_LEAST; i++)
		CHECK(ask(i, 8 + i));
	CHECK(!ask(4, 7));
	CHECK(!ask(5, 20));
	turns_end(turns, 0);
	CHECK(!turns_wait(turns, 5, -1, 0));
	CHECK(turns_wait(turns, 4, -1, 0));
}

/* Else three clients that take little could go before all others, again and again. */
static void who_loses_many_turns_comes_last(void)
{
	begin_busy();
	CHECK(!ask(4, 4));
	turns_end(turns, 0);
	turns_end(turns, 1);
	CHECK(turns_wait(turns, 4, -1, 0));
	for (int i = 0; i < TURN_LOSSES; i++) {
		CHECK(turns_lose(turns, 4));
		CHECK(turns_wait(turns, 4, -1, 0));
	}
	CHECK(ask(0, 8));
	CHECK(!ask(5, 5));
	CHECK(turns_lose(turns, 4));
	CHECK(!turns_lose(turns, 4));
	CHECK(!turns_wait(turns, 4, -1, 0));
	CHECK(turns_wait(turns, 5, -1, 0));
	turns_end(turns, 5);
	CHECK(turns_wait(turns, 4, -1, 0));
}

static void who_cannot_be_sent_to_is_not_waited_for(void)
{
	begin_busy();
	CHECK(!ask(4, 4));
	CHECK(!ask(5, 5));
	turns_step_aside(turns, 4);
	turns_end(turns, 0);
	CHECK(turns_wait(turns, 5, -1, 0));
	turns_step_aside(turns, 5);	/* who has a turn keeps it */
	CHECK(!turns_wait(turns, 4, -1, 0));
	turns_end(turns, 1);
	CHECK(turns_wait(turns, 4, -1, 0));
}

int main(void)
{
	RUN(few_children_need_not_wait);
	RUN(so_many_have_a_turn);
	RUN(who_asked_first_is_first);
	RUN(what_was_sent_least_is_first);
	RUN(what_is_sent_meanwhile_comes_later);
	RUN(what_was_not_sent_in_the_end_does_not_count);
	RUN(many_copies_count_as_a_few);
	RUN(files_are_counted_apart);
	RUN(a_child_that_ended_has_no_turn);
	RUN(a_turn_is_waited_for);
	RUN(who_hung_up_is_not_waited_for);
	RUN(who_takes_nothing_loses_its_turn);
	RUN(who_lost_its_turn_is_among_the_first_for_another);
	RUN(who_loses_many_turns_comes_last);
	RUN(who_cannot_be_sent_to_is_not_waited_for);
	return unit_result();
}
