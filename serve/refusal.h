/* refusal.h - what a client is told that asks for a chunk that isn't held yet. */
#ifndef REFUSAL_H
#define REFUSAL_H

#include <stddef.h>

#include "file/held.h"
#include "net/regions.h"

#define REFUSAL_MAX (REGIONS_TEXT_MAX + 64)	/* bytes */

/* Writes the message, with the regions that are held whole. Returns its length. */
size_t refusal_write(char message[REFUSAL_MAX], const struct held *held);

#endif
