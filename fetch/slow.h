/* slow.h - peers that take too long: which are disconnected from, and which lose what they
 * were asked for to others; used by swarm.c. */
#ifndef SLOW_H
#define SLOW_H

#include <stdint.h>

#include "fetch/peers.h"

/* Ends what takes too long. Takes from slow peers what others would deliver sooner. */
void slow_manage(struct swarm *s, int64_t now_ms);

/* When slow_manage will have to look at the peer next. Something was asked of it, or it is
 * being connected to. */
int64_t slow_next_look_ms(const struct swarm *s, const struct peer *p, int64_t now_ms);

#endif
