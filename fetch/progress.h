/* progress.h - what a person sees of a download while it runs, on standard
 * error: on a terminal one line that is redrawn, elsewhere a few plain lines. */
#ifndef PROGRESS_H
#define PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

#include "file/datafile.h"
#include "fetch/wanted.h"

/* Begins: what is to be shown from here on is the file d, of which `had` bytes
 * are held already. verb: "checking", "downloading". wanted: the chunks that
 * nobody was asked for yet, so that what is on its way can be told from what is
 * missing; NULL: nothing is on its way. Both are kept until progress_end. */
void progress_begin(const char *verb, const struct datafile *d, uint64_t had, const struct wanted *wanted);

/* Shows the state, if it is time to: bytes are those held (or checked) now.
 * Call it as often as you like. peers: connections in use, or -1: in place of
 * them the verb is shown. */
void progress_show(uint64_t bytes, int peers);

/* The same for what is checked, as scan_file wants it. */
void progress_checked(void *unused, uint64_t bytes);

/* Ends, and removes the line. Returns the seconds since progress_begin. */
double progress_end(void);

/* A handler for a signal that asks for a report: progress_show then prints one
 * line, also if the program is to be quiet. */
void progress_on_request(int sig);

/* When progress_show will have something to show, for a poll's timeout: next_ms, or an
 * earlier time. */
int64_t progress_next_ms(int64_t next_ms);

#endif
