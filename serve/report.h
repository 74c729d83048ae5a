/* report.h - what a serving parent says of its files and clients. Nothing depends
 * on it but what people read. */
#ifndef REPORT_H
#define REPORT_H

#include <stdbool.h>
#include <stddef.h>

#include "file/datafile.h"

/* What SIGUSR1 asks for: a line for each file, and one for each client. */
void report_status(const struct datafile files[], size_t count);

/* What clients do is no news; how many did it, now and then, is: those that gave way,
 * and those whose child was killed. Call it as often as you like. */
void report_counts(void);

/* Whether every file is complete; says which one isn't. */
bool report_complete(const struct datafile files[], size_t count);

#endif
