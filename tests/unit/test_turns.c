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

int main(void)
{
	RUN(few_children_need_not_wait);
	RUN(so_many_have_a_turn);
	RUN(who_asked_first_is_first);
	RUN(what_was_sent_least_is_first);
	RUN(files_are_counted_apart);
	RUN(a_child_that_ended_has_no_turn);
	RUN(a_turn_is_waited_for);
	RUN(who_hung_up_is_not_waited_for);
	return unit_result();
}
