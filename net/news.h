/* news.h - what the fetcher and the serving parent of one peer tell each other.
 *
 * A pair of sockets connects them. The fetcher sends a byte when it has something new
 * to serve; the map of held chunks tells what. The subscriber sends the tracker's
 * answer to a subscription, which names peers to fetch from. Neither side ever waits
 * for the other: a message that doesn't fit is dropped, which does no harm. */
#ifndef NEWS_H
#define NEWS_H

#include <stddef.h>

#include "net/tracker_client.h"

/* The tracker's answer to a subscription: one datagram. */
struct subscription_answer {
	size_t file;		/* its place on the command line, from 0 */
	size_t count;		/* of entries */
	struct tracker_entry entries[TRACKER_ENTRIES_MAX];
};

/* Makes the pair, both ends non-blocking. Returns 0, or -1 with errno. */
int news_open(int *parents, int *fetchers);

#endif
