/* confine.h - taking from a process what it doesn't need, so that whoever takes
 * it over through a bug gains little. */
#ifndef CONFINE_H
#define CONFINE_H

#include <stddef.h>

/* Prepares a confinement to the reading of these files (open descriptors), for
 * the processes that this one forks later. Forbidden are then: every other file
 * and directory, whatever is done with it; starting programs; TCP connections
 * and binding to a port; signals to other processes. Open descriptors stay usable.
 * Returns what confine_self takes; -1 where the system can't do it: only Linux
 * can, with Landlock, and how much of the list depends on its version. */
int confine_prepare(const int files[], size_t count);

/* Confines this process for good. Nothing happens if confinement is -1.
 * Returns 0, or -1 with errno. */
int confine_self(int confinement);

#endif
