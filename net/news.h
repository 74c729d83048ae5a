/* news.h - what the fetcher and the serving parent of one peer tell each other.
 *
 * A pair of sockets connects them. The fetcher sends a byte whenever more is held
 * than before; the bytes mean nothing more, since the map of held chunks tells the
 * rest. The serving parent's subscriber sends what the tracker answered to a
 * subscription, which names peers to fetch from. Neither side ever waits for the
 * other: what doesn't fit is left out, and nothing is wrong without it. */
#ifndef NEWS_H
#define NEWS_H

#include <stddef.h>

#include "net/tracker_client.h"

/* What the tracker answered to a subscription: one datagram. */
struct subscription_answer {
	size_t file;		/* for which: its place on the command line */
	size_t count;		/* of entries */
	struct tracker_entry entries[TRACKER_ENTRIES_MAX];
};

/* The fetcher's exit status when --give-up ended it. */
#define FETCHER_GAVE_UP 3

/* Makes the pair, both ends non-blocking. Returns 0, or -1 with errno. */
int news_open(int *parents, int *fetchers);

#endif
