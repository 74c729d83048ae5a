/* tracker_query.h - asking the tracker for peers in a separate process, because
 * resolving the tracker's name may block, and so may the tracker. */
#ifndef TRACKER_QUERY_H
#define TRACKER_QUERY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/tracker_client.h"

struct tracker_answer {
	int32_t count;		/* of entries; -1: why holds the reason */
	union {
		struct tracker_entry entries[TRACKER_ENTRIES_MAX];
		char why[TRACKER_WHY_SIZE];
	};
};

struct tracker_query {
	pid_t process;		/* 0: no query is running */
	int fd;			/* a pipe from that process, or -1 */
	size_t got;		/* bytes of the answer received */
	struct tracker_answer answer;
};

/* Starts a query. *q is {.fd = -1} before the first one, and no query is running; it may
 * lie in memory that isn't forked. The other parameters are those of tracker_exchange.
 * Returns 0, or -1 with errno. */
int tracker_query_start(struct tracker_query *q, const char *host, const char *port,
			const struct tracker_request *request, int timeout_ms);

/* Reads from the pipe; blocks if nothing has come (poll q->fd before). Returns NULL
 * while the answer is not complete; then the answer, in q's memory until the next
 * query, and the query has ended. */
const struct tracker_answer *tracker_query_read(struct tracker_query *q);

/* Ends the query, if one is running, without an answer. */
void tracker_query_stop(struct tracker_query *q);

#endif
