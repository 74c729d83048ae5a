/* trial.c - trials of more and of fewer turns; used by the children of the serving parent. */
#include "serve/trial.h"

#define PAUSE_MAX 32	/* seconds */

void trial_begin(struct trial *t, uint32_t least)
{
	t->turns = t->kept = least;
	t->next_pause = 1;
}

/* Whether the rate is an eighth above the other. */
static bool is_above(uint32_t rate, uint32_t other)
{
	return rate > other + other / 8;
}

static void try_another(struct trial *t, uint32_t least, uint32_t most)
{
	t->fewer = t->kept > least && (t->fewer || t->kept >= most);
	uint32_t turns = t->fewer ? t->kept - t->kept / 3 : t->kept + t->kept / 2;
	if (turns > most)
		turns = most;
	t->turns = turns < least ? least : turns;
}

static void end_trial(struct trial *t, bool good)
{
	if (good) {
		t->kept = t->turns;
		t->next_pause = 1;
		return;
	}
	t->turns = t->kept;
	t->fewer = !t->fewer;
	t->pause = t->next_pause;
	t->next_pause = t->pause < PAUSE_MAX ? 2 * t->pause : PAUSE_MAX;
}

void trial_second(struct trial *t, uint32_t rate, uint32_t least, uint32_t most)
{
	uint32_t before = t->rate;

	t->rate = rate;
	if (t->turns > t->kept)
		end_trial(t, is_above(rate, before));
	else if (t->turns < t->kept)
		end_trial(t, !is_above(before, rate));
	else if (before == 0 || is_above(rate, before))
		return;
	if (t->pause == 0)
		try_another(t, least, most);
	else
		t->pause--;
}

void trial_broken_off(struct trial *t)
{
	t->turns = (uint32_t)t->kept;
	t->rate = 0;
}
