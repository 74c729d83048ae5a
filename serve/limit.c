/* limit.c - a limit for what all children of a serving parent send together. */
#include "serve/limit.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/memory.h"

#define TOKENS_MAX 10			/* in the pipe: those of a tenth of a second */
#define TOKENS_PER_SECOND 100
#define TOKEN_BYTES_MIN UINT64_C(1024)
#define TOKEN_BYTES_MAX (UINT64_C(1) << 30)

/* Each process has a copy, but for *unused, which they share: what a child writes there
 * is no more than a number to the others. */
struct upload_limit {
	int tokens[2];			/* the pipe; only the writing end is non-blocking */
	size_t token_bytes;
	_Atomic size_t *unused;		/* bytes that ended children have left to others */
	/* Of use to the parent: */
	double bytes_per_second;
	int64_t since_ms;
	uint64_t given;			/* tokens since then; those that didn't fit, too */
};

struct upload_limit *limit_new(uint64_t bytes_per_second)
{
	uint64_t bytes = bytes_per_second / TOKENS_PER_SECOND;
	struct upload_limit *l = calloc(1, sizeof *l);

	if (l == NULL || (l->unused = memory_shared(sizeof *l->unused)) == NULL)
		fatal("no memory for the upload limit");
	if (pipe(l->tokens) < 0 || fcntl(l->tokens[1], F_SETFL, O_NONBLOCK) < 0)
		fatal("can't make a pipe");
	bytes = bytes < TOKEN_BYTES_MIN ? TOKEN_BYTES_MIN : bytes > TOKEN_BYTES_MAX ? TOKEN_BYTES_MAX : bytes;
	l->token_bytes = (size_t)bytes;
	l->bytes_per_second = (double)bytes_per_second;
	l->since_ms = clock_ms();
	return l;
}

void limit_give(struct upload_limit *l)
{
	static const char tokens[TOKENS_MAX];
	double bytes = (double)(clock_ms() - l->since_ms) / 1000 * l->bytes_per_second;
	uint64_t due = (uint64_t)(bytes / (double)l->token_bytes) - l->given;
	int unused = 0;

	l->given += due;
	if (due == 0 || ioctl(l->tokens[0], FIONREAD, &unused) < 0 || unused >= TOKENS_MAX)
		return;
	if (due > (uint64_t)(TOKENS_MAX - unused))
		due = (uint64_t)(TOKENS_MAX - unused);
	(void)!write(l->tokens[1], tokens, (size_t)due);
}

void limit_close_giver(struct upload_limit *l)
{
	close(l->tokens[1]);
}

bool limit_take(struct upload_limit *l, size_t *allowed, size_t least)
{
	char token;

	*allowed += atomic_exchange(l->unused, 0);
	while (*allowed < least) {
		ssize_t n = read(l->tokens[0], &token, 1);
		if (n == 1)
			*allowed += l->token_bytes;
		else if (n == 0 || errno != EINTR)
			return false;
		*allowed += atomic_exchange(l->unused, 0);
	}
	return true;
}

void limit_give_back(struct upload_limit *l, size_t allowed)
{
	atomic_fetch_add(l->unused, allowed);
}
