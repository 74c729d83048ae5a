/* confine.h - taking from a process what it doesn't need, so that whoever takes
 * it over through a bug gains little. */
#ifndef CONFINE_H
#define CONFINE_H

#include <stddef.h>

/* Prepares a confinement to the reading of these files (open descriptors), for
 * the processes that this one forks later. They can't, from the version of
 * Landlock on that is given:
 *
 * - open any other file or list a directory; open these files for writing; make,
 *   rename, link or remove anything; start a program (1)
 * - truncate any file that they haven't open for writing (3)
 * - connect or bind a TCP socket (4)
 * - connect to an abstract Unix socket, signal a process that isn't confined so (6)
 * - trace another process, or see its memory (1)
 *
 * They still can, as far as their user may: look at files by name and change their
 * mode, owner, times and attributes; connect to a Unix socket that has a name; use
 * UDP and other kinds of socket; and use every descriptor and memory mapping that
 * they have, that of the clients' slots among them (slot.h): a child that was
 * taken over can make others look idle, but make no chunk count as held.
 *
 * Returns what confine_self takes; -1 where the system can't do it: only Linux can,
 * with Landlock. */
int confine_prepare(const int files[], size_t count);

/* Confines this process for good. Nothing happens if confinement is -1.
 * Returns 0, or -1 with errno. */
int confine_self(int confinement);

#endif
