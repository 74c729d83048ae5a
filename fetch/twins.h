/* twins.h - several connections to one peer, over a long, fat line (struct peer tells what a
 * twin is); used by swarm.c. Without them everything works: one connection then carries
 * what the kernel's buffers let it. */
#ifndef TWINS_H
#define TWINS_H

#include <stdint.h>

#include "fetch/peers.h"

/* Connects twins where they gain something, and ends those that don't. */
void twins_manage(struct swarm *s, int64_t now_ms);

#endif
