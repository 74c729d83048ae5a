/* fetch.h - the fetcher: gets what is missing, whatever tracker, peers and
 * network do. */
#ifndef FETCH_H
#define FETCH_H

#include <stddef.h>

#include "fetch/options.h"
#include "file/datafile.h"

#define FILES_MAX 1024		/* at a time */

/* Checks what the data files hold, one after the other, and fetches what is missing of all
 * of them at the same time; the map of held chunks (file/held.h) tells other processes how far
 * each is. Runs until all are complete or can't be. There are FILES_MAX at most. Returns an
 * exit status (base/exits.h): EXIT_DONE if everything is complete; else that of the first
 * failure, and it has said why. */
int fetch_files(struct datafile files[], size_t count, const struct fetch_options *options);

#endif
