/* swarm.h - what is done next with the peers of a file (peers.h): who is connected to, and
 * how much is asked of whom. */
#ifndef SWARM_H
#define SWARM_H

#include <stdint.h>

#include "fetch/peers.h"

/* Ends what takes too long, connects to whom it pays, and asks for chunks. To be called
 * after whatever has happened, and when swarm_next_event_ms has passed. */
void swarm_manage(struct swarm *s, int64_t now_ms);

/* How many connections there are, and would be now if there could be any number. */
size_t swarm_wanted_connections(const struct swarm *s, int64_t now_ms);

/* When swarm_manage will have something to do even if nothing comes: next_ms, or a time
 * before that. */
int64_t swarm_next_event_ms(const struct swarm *s, int64_t now_ms, int64_t next_ms);

#endif
