/* progress.h - what a person sees of a download while it runs, on standard
 * error: on a terminal one line that is redrawn, elsewhere a few plain lines. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "file/datafile.h"
#include "fetch/wanted.h"

/* A file, and the chunks of it that nobody was asked for yet, so that what is on its way can
 * be told from what is missing; NULL: nothing is on its way. */
struct progress_file {
	const struct datafile *file;
	const struct wanted *wanted;
};

/* Begins: what is to be shown from here on are these files, at least one, of which `had`
 * bytes are held already. verb: "checking", "downloading". The files are kept until
 * progress_end, and looked at each time. */
void progress_begin(const char *verb, const struct progress_file files[], size_t count, uint64_t had);

/* The same for one file, of which nothing is on its way. */
void progress_begin_one(const char *verb, const struct datafile *d, uint64_t had);

/* Shows the state, if it is time to: bytes are those held (or checked) now, of all files.
 * Call it as often as you like. peers: connections in use, or -1: in place of
 * them the verb is shown. */
void progress_show(uint64_t bytes, int peers);

/* The same for what is checked, as scan_file wants it. */
void progress_checked(void *unused, uint64_t bytes);

/* Ends, and removes the line. */
void progress_end(void);

/* A handler for a signal that asks for a report: progress_show then prints one
 * line, and one for each file if there are several, also if the program is to be quiet. */
void progress_on_request(int sig);

/* When progress_show will have something to show, for a poll's timeout: next_ms, or an
 * earlier time. */
int64_t progress_next_ms(int64_t next_ms);

#endif
