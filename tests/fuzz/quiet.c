/* quiet.c - base/log.c, linked into each fuzzer in its own place: the messages are made, and
 * written nowhere. */
#include "base/log.c"

__attribute__((constructor)) static void be_quiet(void)
{
	out = -1;
	log_never_wait();
}
