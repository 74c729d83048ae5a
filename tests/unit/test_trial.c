/* test_trial.c - how many turns a server gives, found by trial. A second of the clock is one call. */
#include "serve/trial.h"

#include "unit.h"

#define LEAST 4
#define MOST 256

static struct trial trial;

static uint32_t least_of(uint32_t a, uint32_t b)
{
	return a < b ? a : b;
}

/* So many seconds, in which the line carries so much in all, and each client takes so much.
 * Returns in how many of them there were more turns than these. */
static unsigned pass(unsigned seconds, uint32_t line, uint32_t client, uint32_t turns)
{
	unsigned more = 0;

	while (seconds-- > 0) {
		more += trial.turns > turns;
		trial_second(&trial, least_of(line, trial.turns * client), LEAST, MOST);
		CHECK(trial.turns >= LEAST && trial.turns <= MOST);
	}
	return more;
}

static void begin(void)
{
	trial = (struct trial){0};
	trial_begin(&trial, LEAST);
	CHECK(trial.turns == LEAST);
}

/* Four fill the line: more are tried now and then, and ever more seldom. */
static void a_full_line_keeps_the_least(void)
{
	begin();
	CHECK(pass(100, 1000, 1000, LEAST) <= 8);
	CHECK(trial.kept == LEAST);
}

/* A rate that rises while the number is the same is no reason for more. */
static void a_beginning_tells_nothing(void)
{
	begin();
	for (uint32_t rate = 100; rate < 3000; rate += rate / 4) {
		trial_second(&trial, rate, LEAST, MOST);
		CHECK(trial.turns == LEAST);
	}
}

static void slow_clients_get_as_many_as_fill_the_line(void)
{
	begin();
	pass(20, 10000, 100, LEAST);
	CHECK(trial.kept >= 90 && trial.kept <= 150);
	begin();
	pass(20, 1000000, 100, LEAST);
	CHECK(trial.kept == MOST);
}

/* The slow ones have gone. */
static void fewer_are_tried_too(void)
{
	begin();
	pass(20, 10000, 100, LEAST);
	pass(200, 10000, 10000, LEAST);
	CHECK(trial.kept == LEAST);
}

static void a_pause_ends_a_trial(void)
{
	begin();
	pass(2, 1000, 1000, LEAST);
	CHECK(trial.turns > LEAST);
	trial_broken_off(&trial);
	CHECK(trial.turns == LEAST);
	trial_second(&trial, 5000, LEAST, MOST);	/* nothing to compare with */
	CHECK(trial.turns == LEAST);
}

/* Fewer clients than the least number of turns can be connected. */
static void there_is_always_the_least(void)
{
	begin();
	for (int i = 0; i < 10; i++) {
		trial_second(&trial, 1000, LEAST, 2);
		CHECK(trial.turns == LEAST);
	}
}

int main(void)
{
	RUN(a_full_line_keeps_the_least);
	RUN(a_beginning_tells_nothing);
	RUN(slow_clients_get_as_many_as_fill_the_line);
	RUN(fewer_are_tried_too);
	RUN(a_pause_ends_a_trial);
	RUN(there_is_always_the_least);
	return unit_result();
}
