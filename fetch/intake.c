/* intake.c - a bucket that fills at the rate of the limit; used by the fetcher. */
#include "fetch/intake.h"

#include "base/clock.h"

#define PAUSE_MS 50		/* without reading, once the bucket is empty */
#define FULL_MS 100		/* the bucket holds what comes in so long a time */
#define RATE_LEAST (32u << 10)	/* bytes a second of one connection */

static double rate;		/* bytes a second; 0: no limit */
static double bucket;		/* bytes */
static int64_t filled_ms;	/* when it was filled up to there */
static int64_t pause_until_ms;	/* it was empty; 0: not since the last pause */

void intake_limit(uint64_t bytes_per_second)
{
	rate = (double)bytes_per_second;
	bucket = 0;
	filled_ms = clock_ms();
}

static void refill(int64_t now_ms)
{
	double most = rate * FULL_MS / 1000;

	bucket += rate * (double)(now_ms - filled_ms) / 1000;
	if (bucket > most)
		bucket = most;
	filled_ms = now_ms;
}

size_t intake_allowed(int64_t now_ms)
{
	if (rate <= 0)
		return SIZE_MAX;
	if (now_ms < pause_until_ms)
		return 0;
	pause_until_ms = 0;
	refill(now_ms);
	if (bucket >= 1)
		return (size_t)bucket;
	pause_until_ms = now_ms + PAUSE_MS;
	return 0;
}

void intake_took(size_t bytes)
{
	bucket -= rate > 0 ? (double)bytes : 0;
}

int64_t intake_next_ms(int64_t now_ms, int64_t next_ms)
{
	return intake_allowed(now_ms) > 0 ? next_ms : clock_earlier(next_ms, pause_until_ms);
}

size_t intake_connections(size_t most)
{
	double enough = rate / RATE_LEAST;

	return rate <= 0 || enough >= (double)most ? most : enough < 1 ? 1 : (size_t)enough;
}
