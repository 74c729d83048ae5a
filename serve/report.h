/* report.h - what a serving parent reports about its files and clients, for people
 * only: serving works without it. */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "file/datafile.h"

/* Prints a line for each file and for each client: what SIGUSR1 asks for. */
void report_status(const struct datafile files[], size_t count);

/* Prints, at most every 10 s, how many clients gave way and how many children were
 * killed, if any. Call it as often as you like. */
void report_counts(void);

/* Returns the exit status of a peer that is told to end (base/exits.h): EXIT_DONE if all
 * files are complete. Prints which one isn't. */
int report_end(const struct datafile files[], size_t count);

#endif
