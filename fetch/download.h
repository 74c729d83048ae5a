/* download.h - one file being fetched, from beginning to end. */
#ifndef DOWNLOAD_H
#define DOWNLOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "fetch/arrival.h"
#include "fetch/asking.h"
#include "fetch/options.h"
#include "fetch/outlet.h"
#include "fetch/swarm.h"
#include "file/datafile.h"

struct download {
	struct datafile *file;
	const struct fetch_options *options;
	struct swarm swarm;
	struct asking asking;
	struct arrival arrival;
	struct outlet outlet;
	bool running;			/* something is to come */
	int status;			/* how it has gone, as an exit status, when nothing is to come any more */
	int64_t good_ms;		/* when a chunk was last verified, or it began */

	/* Only download.c uses these. */
	uint64_t needed;		/* bytes that the disk had to give when it began */
	uint64_t start_bytes;		/* held when it began */
	int64_t begun_ms;
	int64_t came_ms;		/* when something last came for it */
	bool given_up;			/* because nothing came */
	bool asked;			/* not all was there when it began */
	double seconds;			/* that it took */
	uint64_t seen_held;		/* chunks that were held when it was last looked after */
	int64_t refused_ms;		/* since when all peers have nothing for us; 0: one has */
	int64_t said_nothing_ms;	/* when it was said that nothing comes, and why; 0: never */
};

/* Finds out what the data file holds already, and tells the serving parent. */
void download_check(struct datafile *d, const struct fetch_options *options);

/* Makes all[i] ready to fetch what is missing of files[i], after those before it. Returns an exit
 * status. After EXIT_DONE, all[i].running tells whether anything is missing: if not, download_end
 * is next. Otherwise it can't be fetched, and a message has said why. */
int download_begin(struct download all[], size_t i, struct datafile files[],
		   const struct fetch_options *options);

/* The time that it takes is counted from now on. */
void download_start(struct download *d, int64_t now_ms);

/* Whether all is there, or it has failed, and has said why. */
bool download_is_over(const struct download *d);

/* Does what there is to do now: asks peers for more, gives what has come to a checker, says
 * why nothing comes. To be called whenever something has happened, and at download_next_ms.
 * Returns whether the tracker is to be asked, too. */
bool download_go_on(struct download *d, int64_t now_ms);

/* When download_go_on will have something to do even if nothing comes: next_ms, or before. */
int64_t download_next_ms(const struct download *d, int64_t now_ms, int64_t next_ms);

/* Takes what poll tells of the peer's connection. */
void download_handle(struct download *d, struct peer *p, short revents, int64_t now_ms);

/* Takes what the writer to standard output has said. */
void download_read_outlet(struct download *d);

/* Nothing has arrived for too long: says so, and from now on it is over. */
void download_give_up(struct download *d);

/* Bytes that are held. */
uint64_t download_held_bytes(const struct download *d);

/* Stops a download that is over, well or not: nobody is connected to any more. If d->status is
 * EXIT_DONE, all is there. */
void download_stop(struct download *d, int64_t now_ms);

/* Ends one to which nothing is to come, and says how it has gone: if all is there, what the finisher has
 * found counts too. Returns an exit status. */
int download_end(struct download *d, int64_t now_ms, int finished);

#endif
