/* clock.h - time for deadlines and rates: it never goes back. */
#ifndef CLOCK_H
#define CLOCK_H

#include <stdint.h>
#include <stdlib.h>
#include <time.h>

/* Milliseconds since some moment in the past. Setting the date does not change it. */
static inline int64_t clock_ms(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* The time left until the deadline, as a timeout for poll(2): 0 when it has passed,
 * never negative (which would mean "for ever"), and an hour at most. */
static inline int clock_poll_timeout(int64_t deadline_ms)
{
	int64_t left = deadline_ms - clock_ms();

	return left <= 0 ? 0 : left > 3600000 ? 3600000 : (int)left;
}

static inline int64_t clock_earlier(int64_t a_ms, int64_t b_ms)
{
	return a_ms < b_ms ? a_ms : b_ms;
}

/* A random time around ms (75 to 125 %), so that many processes don't act at the
 * same moment. */
static inline int64_t clock_jittered(int64_t ms)
{
	return ms * 3 / 4 + random() % (ms / 2 + 1);
}

#endif
