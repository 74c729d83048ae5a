/* ahead.h - how much is asked of whom, ahead of what it sends; used by swarm.c. */
#ifndef AHEAD_H
#define AHEAD_H

#include <stdint.h>

#include "fetch/peers.h"

/* Asks all who are connected to for as many chunks as it pays to ask each for. */
void ahead_ask_all(struct swarm *s, int64_t now_ms);

#endif
