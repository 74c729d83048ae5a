/* arrival.h - what peers send: taken from the sockets, written to its place in
 * the data file, and given to a checker. A chunk that arrives is held when
 * check_runs has found its hash right in the file: in a checker, or in the fetcher if
 * none can be forked. */
#ifndef ARRIVAL_H
#define ARRIVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "file/checker.h"
#include "file/datafile.h"
#include "fetch/swarm.h"

#define ARRIVAL_CHECKERS_MAX 4	/* more can't be kept busy: the fetcher is one process */

struct arrival {
	struct datafile *file;	/* the caller's, as is the swarm */
	struct swarm *swarm;
	struct checker checkers[ARRIVAL_CHECKERS_MAX];
	unsigned checker_count;	/* that run; none until something has come */
	unsigned checkers_max;	/* that there may be */
	struct run unchecked;	/* written, and not yet given to a checker */
	uint64_t held;		/* chunks */
	bool failed;		/* it can't go on, and has said why */
	int error;		/* the errno of a write that failed, or 0 */
};

/* Begins. There will be so many checkers at most, each from when it is needed. */
void arrival_begin(struct arrival *a, struct datafile *d, struct swarm *s, unsigned checkers);

/* Ends the checkers and reaps them, finished or not. What arrives after that has
 * new ones: a file that waits for its turn keeps no process. */
void arrival_stop_checkers(struct arrival *a);

/* Takes what the peer has sent, as far as the limit (intake.h) allows. */
void arrival_receive(struct arrival *a, struct peer *p);

/* Gives what is written to a checker, however little it is: for when nothing
 * more is coming. */
void arrival_flush(struct arrival *a);

/* Takes what a checker has found out; blocks if that is nothing. */
void arrival_take_results(struct arrival *a, struct checker *c);

/* Whether all that has come is checked. */
bool arrival_is_idle(const struct arrival *a);

#endif
