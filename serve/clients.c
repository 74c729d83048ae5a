/* clients.c - the table of the serving parent's children. */
#include "serve/clients.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"

/* What changes with each client. Children don't get it: they have no business with
 * other clients, and a fork is cheaper if the pages that the parent writes to next are
 * not shared with the child. */
static struct {
	unsigned max, count;
	unsigned free_hint;		/* all places before it are taken */
	struct clients_counts counts;
	struct child child[];		/* max of them */
} *table;

/* What the children share with the parent. */
static struct {
	atomic_uint lost_lines;
	struct client_slot slot[];	/* one for each place in the table */
} *shared;

void clients_begin(unsigned max)
{
	table = memory_unforked(sizeof *table + max * sizeof table->child[0]);
	shared = memory_shared(sizeof *shared + max * sizeof shared->slot[0]);
	if (table == NULL || shared == NULL)
		fatal("no memory for %u clients", max);
	table->max = max;
	for (unsigned i = 0; i < max; i++)
		table->child[i] = (struct child){.slot = &shared->slot[i], .number = i};
	log_share_lost(&shared->lost_lines);
}

bool clients_is_full(void)
{
	return table->count == table->max;
}

unsigned clients_count(void)
{
	return table->count;
}

struct clients_counts *clients_counts(void)
{
	return &table->counts;
}

struct child *clients_free_place(void)
{
	while (table->child[table->free_hint].pid != 0)
		table->free_hint++;
	struct child *place = &table->child[table->free_hint];
	memset(place->slot, 0, sizeof *place->slot);
	return place;
}

void clients_add(struct child *place, pid_t pid, struct address client)
{
	place->pid = pid;
	place->client = client;
	place->start_ms = clock_ms();
	place->leaving = false;
	table->count++;
}

/* The exit status of a child is 0, or the errno of what kept it from serving. */
static void tell_exit_status(int error)
{
	static int64_t said_ms;

	errno = error;
	if (error != 0 && log_may_say(&said_ms))
		log_warn("a child can't confine itself; its client was turned away");
}

struct child *clients_ended(pid_t pid, int status)
{
	unsigned i = 0;

	while (i < table->max && table->child[i].pid != pid)
		i++;
	if (i == table->max)
		return NULL;
	struct child *child = &table->child[i];
	if (WIFEXITED(status))
		tell_exit_status(WEXITSTATUS(status));
	else if (!child->leaving)
		table->counts.died++;
	table->counts.served++;
	table->counts.sent_kib += atomic_load(&child->slot->sent_kib);
	table->counts.chunks += atomic_load(&child->slot->chunks);
	child->pid = 0;
	table->count--;
	if (i < table->free_hint)
		table->free_hint = i;
	return child;
}

bool clients_were_sent_to(void)
{
	static uint64_t chunks_before;
	uint64_t chunks = table->counts.chunks;
	bool busy = false;

	for (unsigned i = 0; i < table->max; i++) {
		const struct child *child = &table->child[i];
		if (child->pid == 0)
			continue;
		uint32_t state = atomic_load(&child->slot->state);
		uint32_t sent = atomic_load(&child->slot->chunks), kib = atomic_load(&child->slot->sent_kib);
		/* A child that begins or ends is working, too. */
		busy |= state == CLIENT_SLOW || (state == CLIENT_WORKING && (sent > 0 || kib > 0));
		chunks += sent;
	}
	busy |= chunks != chunks_before;
	chunks_before = chunks;
	return busy;
}

uint64_t clients_sent_kib(void)
{
	uint64_t kib = table->counts.sent_kib;

	for (unsigned i = 0; i < table->max; i++)
		if (table->child[i].pid != 0)
			kib += atomic_load(&table->child[i].slot->sent_kib);
	return kib;
}

void clients_for_each(void (*act)(struct child *child))
{
	for (unsigned i = 0; i < table->max; i++)
		if (table->child[i].pid != 0)
			act(&table->child[i]);
}

static void kill_child(struct child *child)
{
	kill(child->pid, SIGKILL);
}

void clients_kill(void)
{
	clients_for_each(kill_child);
}
