/* tracker_query.h - asks the tracker for peers in a process of its own, since
 * resolving the tracker's name may block, and so may the tracker. */
#ifndef TRACKER_QUERY_H
#define TRACKER_QUERY_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/tracker_client.h"

struct tracker_answer {
	int32_t count;		/* of entries; -1: why tells the reason */
	union {
		struct tracker_entry entries[TRACKER_ENTRIES_MAX];
		char why[TRACKER_WHY_SIZE];
	};
};

struct tracker_query {
	pid_t process;		/* 0: nothing is being asked */
	int fd;			/* a pipe from the process, or -1 */
	size_t got;		/* bytes of the answer */
	struct tracker_answer answer;
};

/* Starts to ask; *q was {.fd = -1} or is idle again. The parameters are those of
 * tracker_exchange. Returns 0, or -1 with errno. */
int tracker_query_start(struct tracker_query *q, const char *host, const char *port,
			const struct tracker_request *request, int timeout_ms);

/* Takes what has come through the pipe; blocks if nothing has (poll q->fd
 * before). Returns the whole answer, in q's memory until the next query, when
 * the query is over; NULL while it isn't. */
const struct tracker_answer *tracker_query_read(struct tracker_query *q);

/* Breaks the query off, if there is one. */
void tracker_query_stop(struct tracker_query *q);

#endif
