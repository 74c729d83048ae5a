/* swarm.h - a simulated swarm: what its parts share. sim/README.md tells who does what. */
#ifndef SIM_SWARM_H
#define SIM_SWARM_H

#include "fetch/asking.h"
#include "fetch/swarm.h"
#include "sim/events.h"

/* The kind of swarm, and the seed that all chance follows from. */
struct settings {
	int fetchers;
	uint64_t chunks, chunk_size;
	double up, down, seeder_up, slow_up;	/* Mbit/s; 0: as the others' */
	double delay_ms;			/* from a peer to another */
	double late, killed, liars, drippers, silent, blind, closing;	/* fractions of the fetchers */
	int references;				/* of the fetchers, the last ones */
	int names;				/* that the tracker puts on a list, at most; 0: 20, as ours does */
	unsigned seed;
};

enum kind {HONEST, LIAR, DRIPPER, SILENT, REFERENCE};

#define NAMES_MAX 128	/* that a tracker may put on a list */
#define CLIENTS_MAX 256	/* that a server serves at a time, as peer_serve.h has it */

/* Node 0 is the seeder. */
struct node {
	int id;
	enum kind kind;
	bool blind;		/* it doesn't say what it holds */
	bool closing;		/* it closes after each response */
	bool dead, fetching, subscribed;
	int64_t start_us, done_us;
	double up, down;	/* bytes a microsecond */

	/* fetcher.c: */
	struct swarm swarm;
	struct asking asking;
	uint8_t *held;		/* for each chunk */
	uint64_t held_count, unchecked;
	int64_t *checking;	/* chunks that a checker has, counted */
	int64_t heard_us, manage_us;
	unsigned manage_turn;	/* the MANAGE event that counts */
	int64_t down_free_us;

	/* reference.c: */
	struct tracker_entry named[NAMES_MAX];
	size_t named_count, asked_of;	/* asked_of: an index of named */
	uint64_t awaited, awaited_bytes;	/* chunk; what came of it */
	int64_t listed_us;

	/* server.c: */
	struct region_set whole;
	uint64_t *missing;	/* chunks, in each region */
	uint32_t *copies;	/* sent, or being sent, of each chunk */
	uint64_t asked, sent;	/* chunks; sent: to fetchers of ours */
	bool sending, accepting;
	struct flow *client[CLIENTS_MAX];	/* accepted */
	struct flow *ready[CLIENTS_MAX];	/* clients that have a chunk to send */
	int client_count, ready_count, next;
	struct flow *backlog, *backlog_end;	/* not accepted yet */
};

#define QUEUE_MAX 256		/* requests at a server, for each connection */

/* A connection. */
struct flow {
	unsigned generation;	/* of those that used this number */
	bool open, accepted;
	struct node *client, *server;
	struct flow *before, *behind;	/* in the server's backlog */
	size_t peer;		/* in the client's table */
	uint64_t queue[QUEUE_MAX];
	unsigned first, count;
	uint64_t sent;		/* bytes of the first one's chunk */
	unsigned in_flight, served;
	bool ready, has_turn, dripping;
	uint64_t place;		/* in the server's queue */
	int64_t waits_us;	/* since when, or since the last sign of life */
	int64_t idle_us;	/* since when, if nothing is asked */
};

/* run.c */
extern struct settings set;
extern struct node *nodes;
extern int node_count;
extern int undone;		/* fetchers that are neither complete nor dead */
struct node *node_at(struct address a);
struct address address_of(const struct node *n);
double chance(void);		/* at least 0, below 1 */
void *allocate(size_t count, size_t size);	/* zeros; ends the program if there are none */

/* A rule was violated: the first one is kept. */
void violate(const struct node *n, const char *what);

/* network.c: also connection.h's calls, in place of fetch/dial.c's. */
extern struct node *current;	/* whose swarm.c is at work */
void network_begin(void);
void network_end(void);
bool network_is_open(const struct event *e);	/* the connection of the event is still there */
void network_close_all_to(const struct node *server);
struct flow *network_connect(struct node *client, struct node *server, size_t peer);
void network_disconnect(struct flow *f);
void push_flow(int64_t at_us, enum what what, struct flow *f, uint64_t n);
void push_node(int64_t at_us, enum what what, struct node *n);
int64_t delay_us(void);

/* server.c */
void server_handle_flow(const struct event *e, struct flow *f);
void server_use_uplink(struct node *s);		/* sends a piece, if none is being sent */
void server_hold(struct node *n, uint64_t chunk);
void server_meet(struct flow *f);	/* somebody has connected */
void server_part(struct flow *f);	/* somebody hangs up */
void server_handle_accept(struct node *s);

/* reference.c */
void reference_handle_flow(const struct event *e, struct flow *f);
void reference_handle_node(const struct event *e, struct node *n);

/* tracker.c */
void tracker_begin(void);
void tracker_end(void);
void tracker_subscribe(struct node *n);

/* What the tracker names to a node: some of those that have subscribed, by chance, each as
 * likely as any other. Returns how many they are. */
size_t tracker_list(const struct node *n, struct tracker_entry entries[NAMES_MAX]);

/* fetcher.c */
void fetcher_start(struct node *n);
void fetcher_stop(struct node *n);
void fetcher_handle_flow(const struct event *e, struct flow *f);
void fetcher_handle_node(const struct event *e, struct node *n);
void fetchers_look_for_starving(void);	/* and violate(), if one does */

/* run.c */
struct result {
	double last, late_last, copies;	/* times the bound; of those that came late; of a chunk, by the seeder */
};

/* Simulates until all who can be are complete. */
struct result run(void);

/* Tells of a violation in the last run. Returns whether there was one. */
bool run_told_violation(void);

#endif
