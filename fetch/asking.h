/* asking.h - when the tracker is asked for peers, and what its answers are good for.
 *
 *   what is known                                    asked again
 *   nothing was asked yet                            at once
 *   the tracker failed, or no peer is known          10 s later
 *   somebody who may have something for us           when the list is old
 *   only peers that can't be reached                 2 s after the last one failed, once for
 *                                                    each list; then as in the next line
 *   only peers that have nothing                     10 s later, or when the list is old
 *
 * Up to a second is added to the 10 s and 2 s. A question that is due may be put later: the
 * fetcher puts only a few at a time, for all files together.
 *
 * A list is old when it has the age that the download had when the list came, but not
 * before 10 s, or a quarter of a second where this peer serves: those that were started
 * together with it subscribe one after the other, as soon as they have a chunk. After
 * 5 minutes any list is old. As long as lists name somebody new, they are renewed as soon
 * as may be: a list has a part of all names. */
#ifndef ASKING_H
#define ASKING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fetch/swarm.h"
#include "net/tracker_query.h"

struct asking_options {
	const char *path;		/* of the data file, for messages */
	const char *tracker_host, *tracker_port;	/* host NULL: there is no tracker */
	const uint8_t *cascade_hash;
	struct address self;		/* where this peer listens, as the tracker knows it */
	bool serves;			/* others fetch from this peer */
	double time_scale;		/* of the time limit for an answer; 1 is normal */
};

/* Only asking.c uses the fields, but for query.fd, which the caller polls. */
struct asking {
	struct asking_options options;
	struct swarm *swarm;		/* where those who are named go */
	struct tracker_query query;
	int64_t begun_ms;		/* when it was asked for the first time; 0: never */
	int64_t asked_ms;		/* when the last question ended, or was put; 0: never */
	int64_t listed_ms;		/* when the last list came; 0: never */
	int64_t jitter_ms;		/* added to the time before it is asked again */
	int64_t reachable_ms;		/* when some known peer last had not failed */
	bool named_new;			/* the last list, or a subscription since, named somebody new */
	bool said_trouble, said_waiting;
};

/* Begins. What the options and swarm point to must last until asking_end. */
void asking_begin(struct asking *a, const struct asking_options *options, struct swarm *swarm);
void asking_end(struct asking *a);

/* Whether a question is to be put now, or as soon as may be. To be called after whatever has
 * happened. */
bool asking_is_due(struct asking *a, int64_t now_ms);

/* Starts to ask, if it is time to. */
void asking_start_if_due(struct asking *a);

/* Whether a question is under way. */
bool asking_is_under_way(const struct asking *a);

/* When a question will be due: next_ms, or a time before that. */
int64_t asking_next_ms(const struct asking *a, int64_t next_ms);

/* Takes what has come from query.fd; blocks if that is nothing. */
void asking_read(struct asking *a);

/* Takes the names that came with the answer to a subscription. */
void asking_take_names(struct asking *a, const struct tracker_entry entries[], size_t count);

/* For how long no peer could be reached, in ms, of those that are known. */
int64_t asking_unreachable_ms(const struct asking *a);

/* ---- the rule alone ---------------------------------------------------------- */

/* What the functions above call. The simulation (sim/) calls it with a tracker and a clock
 * of its own. */

/* Whether a question is to be put now. If so, it counts as put. */
bool asking_put_if_due(struct asking *a, int64_t now_ms);

/* The list that was asked for has come now. */
void asking_take_list(struct asking *a, const struct tracker_entry entries[], size_t count, int64_t now_ms);

#endif
