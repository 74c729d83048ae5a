/* arrival.h - what peers send: taken from the sockets, written to its place in
 * the data file, and given to a checker. A chunk that arrives is held when
 * check_runs has found its hash right in the file: in a checker (checkers.h), or in the
 * fetcher if none can be forked. */
#ifndef ARRIVAL_H
#define ARRIVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "file/check.h"
#include "file/datafile.h"
#include "fetch/swarm.h"

struct arrival {
	struct datafile *file;	/* the caller's, as is the swarm */
	struct swarm *swarm;
	uint32_t number;	/* of the file, for the checkers */
	struct run unchecked;	/* written, and not yet given to a checker */
	unsigned waiting;	/* runs that are with one */
	uint64_t held;		/* chunks */
	bool failed;		/* it can't go on, and has said why */
	int error;		/* the errno of a write that failed, or 0 */
};

/* Begins with the file, which has that number among the files of the checkers. */
void arrival_begin(struct arrival *a, struct datafile *d, uint32_t number, struct swarm *s);

/* Takes what the peer has sent, as far as the limit (intake.h) allows. */
void arrival_receive(struct arrival *a, struct peer *p);

/* Gives what is written to a checker, however little it is: for when nothing
 * more is coming. Returns whether there was something, and it has been checked at once. */
bool arrival_flush(struct arrival *a);

/* Takes what a checker has found out about a run of this file. */
void arrival_take_result(struct arrival *a, const struct run *run);

/* A checker has died: if it can have had anything of this file, the file fails. */
void arrival_lost_checker(struct arrival *a);

#endif
