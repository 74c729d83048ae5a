/* arrival.h - what peers send: taken from the sockets, written to its place in
 * the data file, and given to the checker. A chunk is held when the checker has
 * found its hash right in the file; nobody else ever says so. */
#ifndef ARRIVAL_H
#define ARRIVAL_H

#include <stdbool.h>
#include <stdint.h>

#include "check.h"
#include "datafile.h"
#include "swarm.h"

struct arrival {
	struct datafile *file;	/* the caller's, as is the swarm */
	struct swarm *swarm;
	struct checker checker;
	struct run unchecked;	/* written, and not yet given to the checker */
	uint64_t held;		/* chunks */
	bool failed;		/* it can't go on, and has said why */
};

/* Begins, with a checker. Returns 0, or -1 with errno. arrival_end ends and reaps
 * the checker, finished or not. */
int arrival_begin(struct arrival *a, struct datafile *d, struct swarm *s);
void arrival_end(struct arrival *a);

/* Takes what the peer has sent. */
void arrival_receive(struct arrival *a, struct peer *p);

/* Gives what is written to the checker, however little it is: for when nothing
 * more is coming. */
void arrival_flush(struct arrival *a);

/* Takes what the checker has found out; blocks if that is nothing. */
void arrival_take_results(struct arrival *a);

/* Whether all that has come is checked. */
bool arrival_is_idle(const struct arrival *a);

#endif
