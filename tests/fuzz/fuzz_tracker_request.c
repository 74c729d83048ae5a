/* fuzz_tracker_request.c - the input is a tracker's client. What is refused after some bytes
 * stays refused; what is taken is what encoding gives back. */
#include "fuzz.h"

#include <string.h>

#include "net/wire.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct tracker_request request;
	uint8_t again[TRACKER_REQUEST_SIZE];
	const char *why = NULL;

	if (size > TRACKER_REQUEST_SIZE)
		size = TRACKER_REQUEST_SIZE;
	for (size_t length = 0; length <= size; length++) {
		uint8_t *exact = malloc(length == 0 ? 1 : length);	/* a byte too far is noticed */
		if (exact == NULL)
			abort();
		memcpy(exact, data, length);
		const char *now = tracker_request_decode(&request, exact, length);
		free(exact);
		MUST(why == NULL || now != NULL);
		why = now;
	}
	if (size < TRACKER_REQUEST_SIZE || why != NULL)
		return 0;
	MUST(request.command == TRACKER_LIST || request.command == TRACKER_SUBSCRIBE);
	tracker_request_encode(again, &request);
	MUST(memcmp(again, data, sizeof again) == 0);
	return 0;
}
