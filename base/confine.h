/* confine.h - taking rights from a process that it doesn't need. If an attacker takes
 * the process over through a bug, he gains little. Where the system can't confine, a peer
 * serves without; where it can but fails to, the client is turned away. */
#ifndef CONFINE_H
#define CONFINE_H

#include <stddef.h>

/* Prepares, for the processes that this one forks later, a confinement that leaves
 * them these files (open descriptors) to read. A confined process can't do the
 * following. The number is the version of Landlock that it takes:
 *
 * - open any other file or list a directory; open these files for writing; make,
 *   rename, link or remove anything; start a program (1)
 * - truncate any file that it doesn't have open for writing (3)
 * - connect or bind a TCP socket (4)
 * - connect to an abstract Unix socket, or signal a process outside of the
 *   confinement; each child has a confinement of its own (6)
 * - trace another process, or see its memory (1)
 * - make a process or thread, unless it runs as root (1)
 *
 * As far as its user may, it still can: look at files by name, and change their mode,
 * owner, times and attributes; connect to a Unix socket that has a name; use UDP and
 * other kinds of socket, among them TCP sockets that listen without being bound, on a port
 * that the system chooses; use processor and memory; and use all descriptors and memory
 * mappings that it has. Before version 6 it also can signal processes of its user. In
 * memory that serving children share with their parent are the slots of all clients (slot.h),
 * the upload limit (limit.h), the turns (turns.h), and the flags of each data file
 * (datafile.c): a child that was taken over can make other clients look idle, let them
 * wait, exceed the limit, and stop the serving of a file. It can't make a chunk count as
 * held. The parent takes no address and no index from that memory.
 *
 * Returns a value for confine_self; -1 if the system can't confine. Only Linux with
 * Landlock can. */
int confine_prepare(const int files[], size_t count);

/* Confines this process for the rest of its life. Does nothing if confinement is -1.
 * Returns 0, or -1 with errno. */
int confine_self(int confinement);

#endif
