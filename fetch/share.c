/* share.c - divides the connections among the files; used by the fetcher. */
#include "fetch/share.h"

#include <stdbool.h>
#include <stdlib.h>

#define TURN_MS 10000		/* for a file, while another that wants a connection has none */

/* If a file that wants a connection gets none, those whose turn is over come last from now on. */
static void pass_turns(struct share *shares[], size_t count, int64_t now_ms)
{
	bool one_waits = false;
	uint64_t last = 0;

	for (size_t i = 0; i < count; i++) {
		one_waits |= shares[i]->wants > 0 && shares[i]->gets == 0;
		if (shares[i]->turn > last)
			last = shares[i]->turn;
	}
	for (size_t i = 0; i < count && one_waits; i++)
		if (shares[i]->gets > 0 && now_ms - shares[i]->since_ms >= TURN_MS) {
			shares[i]->turn = ++last;
			shares[i]->since_ms = now_ms;
		}
}

static int by_turn(const void *a, const void *b)
{
	const struct share *p = *(struct share *const *)a, *q = *(struct share *const *)b;

	return p->turn < q->turn ? -1 : p->turn > q->turn;
}

/* Gives one more to each, as long as there are any; if `wanted`, only to those that want
 * more. Returns how many of `left` are left then. */
static size_t give_one_each(struct share *shares[], size_t count, size_t left, bool wanted)
{
	for (size_t i = 0; i < count && left > 0; i++)
		if (!wanted || shares[i]->gets < shares[i]->wants) {
			shares[i]->gets++;
			left--;
		}
	return left;
}

/* Connections that some have and don't get any more aren't free yet: others get so many less, the
 * last ones first. */
static void wait_for_others(struct share *shares[], size_t count)
{
	size_t over = 0;

	for (size_t i = 0; i < count; i++)
		if (shares[i]->has > shares[i]->gets)
			over += shares[i]->has - shares[i]->gets;
	for (size_t i = count; i-- > 0 && over > 0; )
		for (; over > 0 && shares[i]->gets > shares[i]->has; over--)
			shares[i]->gets--;
}

static void divide(struct share *shares[], size_t count, size_t total)
{
	size_t left = total, before = 0;

	for (size_t i = 0; i < count; i++)
		shares[i]->gets = 0;
	while (left > 0 && left != before) {
		before = left;
		left = give_one_each(shares, count, left, true);
	}
	while (left > 0 && count > 0)
		left = give_one_each(shares, count, left, false);
	wait_for_others(shares, count);
}

void share_connections(struct share *shares[], size_t count, size_t total, int64_t now_ms)
{
	pass_turns(shares, count, now_ms);
	qsort(shares, count, sizeof shares[0], by_turn);
	for (size_t i = 0; i < count; i++)
		if (shares[i]->gets == 0)
			shares[i]->since_ms = now_ms;	/* if it gets one now, its turn begins */
	divide(shares, count, total);
}
