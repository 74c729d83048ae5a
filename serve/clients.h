/* clients.h - the clients of a serving parent: the table of its children, each of
 * which answers one client. Only the serving parent uses it. */
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
	bool leaving;		/* it was told to give way (give_way.h) */
	struct client_slot *slot;	/* shared with the child */
};

/* What is counted of clients, for reports (report.h). */
struct clients_counts {
	unsigned gave_way, died;	/* since the last report */
	uint64_t served, sent_kib;	/* by children that have ended */
};

/* Makes a table for max children. Ends the program if there is no memory. */
void clients_begin(unsigned max);

bool clients_is_full(void);
unsigned clients_count(void);
struct clients_counts *clients_counts(void);

/* A free place in the table, for a child to be forked now; the table is not full.
 * Its slot is cleared. */
struct child *clients_free_place(void);

/* The child was forked, for that client: it has the place. */
void clients_add(struct child *place, pid_t pid, struct address client);

/* Takes out of the table the child that has ended with that status of waitpid(2); a
 * process that is not in it is passed over. */
void clients_ended(pid_t pid, int status);

/* Calls act for each child. */
void clients_for_each(void (*act)(struct child *child));

/* Kills all children. They are to be waited for. */
void clients_kill(void);

#endif
