/* share.h - how many connections each file may have, of those that there may be in all. */
#ifndef SHARE_H
#define SHARE_H

#include <stddef.h>
#include <stdint.h>

struct share {
	size_t wants;		/* connections: those that it has, and could have at once */
	size_t has;		/* now */

	/* Set by share_connections; 0 at first, but for turn, which is the file's place. */
	size_t gets;		/* may have from now on */
	uint64_t turn;		/* who has the lowest comes first */
	int64_t since_ms;	/* since when it has had some, or when its turn was last over */
};

/* Sets what each gets, in all no more than total. Each file that wants a connection gets one; then
 * each gets one more, as long as it wants more. What nobody wants is divided equally, for peers
 * that aren't known yet. If there are more files than connections, each has its turn, for 10 s.
 * A file that has more than it gets closes the rest when nothing is under way over them. Until
 * then others get less, so that there never are more than total. The shares are sorted by turn. */
void share_connections(struct share *shares[], size_t count, size_t total, int64_t now_ms);

#endif
