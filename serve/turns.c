/* turns.c - a table of who waits and who sends; used by the serving parent and its
 * children. */
#include "serve/turns.h"

#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "base/clock.h"
#include "base/memory.h"
#include "net/regions.h"
#include "serve/trial.h"

#define REVIEW_MS 1000		/* between two looks at how many may have a turn */
#define LOOK_MS 10		/* between two looks at who is first; for each that is before us as much again, */
#define LOOK_MAX_MS 100		/* up to this */

enum turn_state {ABSENT, IDLE, WAITING, SENDING, AWAY};	/* the last: it asked, but can't be sent to now */

struct turn {
	_Atomic uint32_t state;		/* an enum turn_state */
	_Atomic uint32_t order;		/* when it asked, of all requests. It goes around */
	_Atomic uint32_t region;	/* that it asked for, of all files */
	_Atomic uint32_t region_size;	/* chunks that this has */
	_Atomic uint32_t counted;	/* whether its chunk is among those that are being sent */
	_Atomic uint32_t losses;	/* turns that it lost for this chunk */
};

/* What all children write to. */
struct shared {
	_Atomic uint32_t asked;		/* requests, in all */
	struct trial trial;		/* of how many have a turn at a time */
	_Atomic uint32_t reviewed_ms;	/* when that was last looked at: the low bits of clock_ms */
	_Atomic uint32_t kib, bytes;	/* sent since then; below 1 KiB in bytes */
};

/* Each process has its own: no child can move what the parent writes to. */
struct turns {
	unsigned children;
	uint32_t regions;		/* of all files */
	struct shared *shared;
	struct turn *turn;		/* shared: one for each child */
	_Atomic uint32_t *sent;		/* shared: chunks sent, or being sent, for each file of each region */
};

struct turns *turns_new(unsigned children, size_t files)
{
	size_t size = sizeof(struct shared) + children * sizeof(struct turn) + files * REGIONS_MAX * sizeof(uint32_t);
	struct turns *t = malloc(sizeof *t);
	struct shared *shared = t != NULL ? memory_shared(size) : NULL;

	if (shared == NULL) {
		free(t);
		return NULL;
	}
	*t = (struct turns){.children = children, .regions = (uint32_t)(files * REGIONS_MAX), .shared = shared};
	t->turn = (struct turn *)(void *)(shared + 1);
	t->sent = (_Atomic uint32_t *)(void *)(t->turn + children);
	trial_begin(&shared->trial, TURNS_LEAST);
	return t;
}

/* How many chunks of the region that the child asked for were sent, or are being sent. Its
 * number is looked at: another child may have written nonsense there. */
static _Atomic uint32_t *sent(const struct turns *t, unsigned child)
{
	uint32_t region = t->turn[child].region;

	return &t->sent[region < t->regions ? region : 0];
}

void turns_join(struct turns *t, unsigned child)
{
	t->turn[child].state = IDLE;
}

void turns_leave(struct turns *t, unsigned child)
{
	struct turn *turn = &t->turn[child];

	if (turn->counted)
		--*sent(t, child);
	turn->counted = false;
	turn->state = ABSENT;
}

void turns_end(struct turns *t, unsigned child)
{
	t->turn[child].counted = false;
	t->turn[child].state = IDLE;
}

void turns_step_aside(struct turns *t, unsigned child)
{
	if (t->turn[child].state == WAITING)
		t->turn[child].state = AWAY;
}

bool turns_lose(struct turns *t, unsigned child)
{
	struct turn *turn = &t->turn[child];

	if (turn->state != SENDING)
		return false;
	turn->state = AWAY;
	if (++turn->losses > TURN_LOSSES)
		turn->order = t->shared->asked++;
	return true;
}

bool turns_are_scarce(const struct turns *t)
{
	unsigned present = 0;

	for (unsigned i = 0; i < t->children && present <= TURNS_LEAST; i++)
		present += t->turn[i].state != ABSENT;
	return present > TURNS_LEAST;
}

void turns_ask(struct turns *t, unsigned child, size_t file, size_t region, uint64_t region_size)
{
	struct turn *turn = &t->turn[child];

	turn->region = (uint32_t)(file * REGIONS_MAX + region);
	turn->region_size = region_size < UINT32_MAX ? (uint32_t)region_size : UINT32_MAX;
	turn->order = t->shared->asked++;
	turn->losses = 0;
	turn->state = WAITING;
}

/* The place in the queue of a child that waits: the least is first. A chunk that was begun is
 * not set back by copies. */
static uint32_t place(const struct turns *t, unsigned child)
{
	if (t->turn[child].counted)
		return t->turn[child].order;
	uint32_t size = t->turn[child].region_size, copies = size > 0 ? *sent(t, child) / size : 0;

	return t->turn[child].order + (copies < TURN_COPIES ? copies : TURN_COPIES) * t->children;
}

void turns_count(struct turns *t, size_t bytes)
{
	struct shared *shared = t->shared;
	uint32_t rest = (uint32_t)(bytes % 1024), sum = atomic_fetch_add(&shared->bytes, rest) + rest;

	shared->kib += (uint32_t)(bytes / 1024);
	if (sum >= 1024) {
		shared->bytes -= 1024;
		shared->kib++;
	}
}

/* Looks, each second, how many turns are worth having. */
static void review(struct shared *shared, unsigned most)
{
	uint32_t now = (uint32_t)clock_ms(), since = shared->reviewed_ms, ms = now - since;

	if (ms < REVIEW_MS || !atomic_compare_exchange_strong(&shared->reviewed_ms, &since, now))
		return;
	uint32_t rate = (uint32_t)((uint64_t)atomic_exchange(&shared->kib, 0) * 1000 / ms);
	if (ms < 2 * REVIEW_MS)
		trial_second(&shared->trial, rate, TURNS_LEAST, most);
	else
		trial_broken_off(&shared->trial);
}

static void begin_turn(struct turns *t, unsigned child)
{
	struct turn *turn = &t->turn[child];

	if (!turn->counted)
		++*sent(t, child);
	turn->counted = true;
	turn->state = SENDING;
}

bool turns_wait(struct turns *t, unsigned child, int fd, int ms)
{
	int64_t deadline = clock_ms() + ms, left;

	t->turn[child].state = WAITING;	/* it may have been away */
	for (;;) {
		uint32_t ours = place(t, child), sending = 0;
		int before = 0;
		for (unsigned i = 0; i < t->children; i++) {
			uint32_t state = t->turn[i].state;
			sending += state == SENDING;
			if (state == WAITING) {
				int32_t later = (int32_t)(place(t, i) - ours);
				before += later < 0 || (later == 0 && i < child);
			}
		}
		/* Two at once may take the last turn: no harm. */
		if (before == 0 && sending < t->shared->trial.turns) {
			begin_turn(t, child);
			return true;
		}
		if ((left = deadline - clock_ms()) <= 0)
			return false;
		review(t->shared, t->children);
		int look = (before + 1) * LOOK_MS;
		struct pollfd client = {.fd = fd};	/* POLLHUP and POLLERR need not be asked for */
		if (poll(&client, 1, (int)clock_earlier(left, look < LOOK_MAX_MS ? look : LOOK_MAX_MS)) > 0)
			return true;
	}
}
