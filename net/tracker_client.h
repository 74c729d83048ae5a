/* tracker_client.h - the exchange with the tracker. PROTOCOL.md, section 2. */
#ifndef TRACKER_CLIENT_H
#define TRACKER_CLIENT_H

#include "net/wire.h"

#define TRACKER_ENTRIES_MAX 256	/* the rest of a longer list is not read */
#define TRACKER_WHY_SIZE 256	/* of the text of a reason, its end included */

/* Sends the request to the tracker at host and port (names or numbers), and waits
 * for its answer: at most timeout_ms milliseconds after the name was resolved. If
 * request.self.ip is 0, it is replaced by the address from which this machine reaches
 * the tracker.
 * Returns the number of entries that it has filled in; or -1, and why holds the
 * reason: the tracker's message, made safe to print, or the text of an error. */
int tracker_exchange(const char *host, const char *port, struct tracker_request request,
		     int timeout_ms, struct tracker_entry entries[TRACKER_ENTRIES_MAX],
		     char why[TRACKER_WHY_SIZE]);

#endif
