/* checkers.c - which checker gets what has arrived; used by the fetcher. */
#include "fetch/checkers.h"

static struct datafile *files;
static unsigned checkers_most;
static void (*taken)(const struct run *run);
static void (*died)(void);
static struct checker checkers[CHECKERS_MAX];
static unsigned checker_count;		/* that run */

void checkers_begin(struct datafile of_files[], unsigned at_most, void (*when_taken)(const struct run *run),
		    void (*when_died)(void))
{
	files = of_files;
	checkers_most = at_most < CHECKERS_MAX ? at_most : CHECKERS_MAX;
	taken = when_taken;
	died = when_died;
}

void checkers_end(void)
{
	while (checker_count > 0)
		checker_stop(&checkers[--checker_count]);
}

/* This one is gone. The last one takes its place. */
static void lose(struct checker *c)
{
	checker_stop(c);
	*c = checkers[--checker_count];
	died();
}

static void take_from(struct checker *c)
{
	struct run runs[CHECKER_WAITING_MAX];
	ssize_t n = checker_receive(c, runs);

	if (n < 0)
		lose(c);
	for (ssize_t i = 0; i < n; i++)
		if (runs[i].count > 0)
			taken(&runs[i]);
}

/* The checker that has least to do; if all have something, a new one, as long as
 * there can be more. NULL: none can be had now. */
static struct checker *choose(void)
{
	struct checker *least = checker_count > 0 ? &checkers[0] : NULL;

	for (unsigned i = 1; i < checker_count; i++)
		if (checkers[i].waiting < least->waiting)
			least = &checkers[i];
	if (least != NULL && (least->waiting == 0 || checker_count == checkers_most))
		return least;
	if (checker_start(&checkers[checker_count], files) < 0)
		return least;
	return &checkers[checker_count++];
}

/* To one that has not as much as it can take. Returns 0, or -1 if the checker is gone. */
static int send_to(struct checker *c, const struct run *run)
{
	if (checker_send(c, run) == 0)
		return 0;
	lose(c);
	return -1;
}

int checkers_send(const struct run *run)
{
	struct checker *c;
	unsigned lost = 0;	/* new ones may be lost as well */

	while (lost <= CHECKERS_MAX && (c = choose()) != NULL)
		if (c->waiting == CHECKER_WAITING_MAX)
			take_from(c);
		else if (send_to(c, run) == 0)
			return 0;
		else
			lost++;
	return -1;
}

void checkers_close(uint32_t file)
{
	const struct run nothing = {.file = file};

	for (unsigned i = checker_count; i-- > 0; ) {
		unsigned before = checker_count;
		if (checkers[i].waiting == CHECKER_WAITING_MAX)
			take_from(&checkers[i]);
		if (checker_count == before)
			send_to(&checkers[i], &nothing);
	}
}

void checkers_poll(struct pollfd place[CHECKERS_MAX])
{
	for (unsigned i = 0; i < CHECKERS_MAX; i++)
		place[i] = (struct pollfd){.fd = i < checker_count ? checkers[i].from : -1, .events = POLLIN};
}

void checkers_take(const struct pollfd place[CHECKERS_MAX])
{
	for (unsigned i = checker_count; i-- > 0; )
		if (place[i].revents != 0)
			take_from(&checkers[i]);
}

void checkers_wait(void)
{
	unsigned i = 0;

	while (i < checker_count && checkers[i].waiting == 0)
		i++;
	if (i < checker_count)
		take_from(&checkers[i]);
}
