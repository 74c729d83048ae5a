/* clients.h - the clients of a serving parent: the table of its children, each of
 * which serves one client. Only the serving parent uses it: the children don't have
 * its memory. */
#ifndef CLIENTS_H
#define CLIENTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/address.h"
#include "serve/slot.h"

struct child {
	pid_t pid;		/* 0: this place in the table is free */
	struct address client;
	int64_t start_ms;	/* as of clock_ms */
	bool leaving;		/* it was killed to give way (give_way.h) */
	struct client_slot *slot;	/* shared with the child */
	unsigned number;	/* of this place in the table, from 0 */
};

/* Counters for reports (report.h). */
struct clients_counts {
	unsigned gave_way, died;	/* children, since the last report */
	uint64_t served, sent_kib;	/* clients, and KiB, of children that have ended */
	uint64_t chunks;		/* likewise */
};

/* Makes a table for max children. Ends the program if there is no memory. */
void clients_begin(unsigned max);

bool clients_is_full(void);
unsigned clients_count(void);
struct clients_counts *clients_counts(void);

/* Returns a free place in the table for a child to be forked now. Clears its slot. The
 * table must not be full. */
struct child *clients_free_place(void);

/* Gives the place to the child pid, which was forked for that client. */
void clients_add(struct child *place, pid_t pid, struct address client);

/* Removes from the table the child that has ended with this status from waitpid(2).
 * Returns its place, which is free now; NULL if pid is not in the table. */
struct child *clients_ended(pid_t pid, int status);

/* How many KiB were sent to all clients there ever were. Looks at the whole table. */
uint64_t clients_sent_kib(void);

/* Whether a chunk is on its way to any client, or was sent since the last call. */
bool clients_were_sent_to(void);

/* Calls act for each child. */
void clients_for_each(void (*act)(struct child *child));

/* Kills all children. The caller waits for them. */
void clients_kill(void);

#endif
