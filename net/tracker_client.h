/* tracker_client.h - the exchange with the tracker. PROTOCOL.md, section 2. */
#ifndef TRACKER_CLIENT_H
#define TRACKER_CLIENT_H

#include "net/wire.h"

#define TRACKER_ENTRIES_MAX 256	/* of a longer list the rest is not read */
#define TRACKER_WHY_SIZE 256	/* bytes for a reason, its end included */

/* Asks the tracker at host and port (names or numbers) and waits for its
 * answer, timeout_ms milliseconds at most once the name is resolved. Where
 * request.self.ip is 0, the address that this machine reaches the tracker from
 * takes its place.
 * Returns how many peers it put into entries[TRACKER_ENTRIES_MAX]; or -1, and
 * why says why: the tracker's own words, made safe to print, or an error's. */
int tracker_exchange(const char *host, const char *port, struct tracker_request request,
		     int timeout_ms, struct tracker_entry entries[TRACKER_ENTRIES_MAX],
		     char why[TRACKER_WHY_SIZE]);

#endif
