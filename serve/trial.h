/* trial.h - how many turns (turns.h) are worth having, found by trial.
 *
 * A line that few clients fill needs few turns: each chunk is complete sooner. Slow clients
 * don't fill it, and then more of them take more. So, once the rate is steady, half as many
 * turns again are tried for a second, or a third fewer. More are kept if an eighth more was
 * sent, fewer if not an eighth less. After a trial that failed comes a pause, each twice as
 * long as the one before. A rate that rises by itself tells nothing: clients are beginning. */
#ifndef TRIAL_H
#define TRIAL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* In shared memory: whoever looks first in a second writes it. */
struct trial {
	_Atomic uint32_t turns;		/* at a time, now */
	_Atomic uint32_t kept;		/* the number that did best; another one is being tried */
	_Atomic uint32_t rate;		/* of the second before, in any unit; 0: not known */
	_Atomic uint32_t pause, next_pause;	/* seconds */
	_Atomic bool fewer;		/* fewer are tried next */
};

/* Begins with so many turns. There will never be fewer. */
void trial_begin(struct trial *t, uint32_t least);

/* A second has passed, in which clients waited for a turn: that was the rate. There are never
 * more turns than most. */
void trial_second(struct trial *t, uint32_t rate, uint32_t least, uint32_t most);

/* For some time nobody waited: what the rate was tells nothing. */
void trial_broken_off(struct trial *t);

#endif
