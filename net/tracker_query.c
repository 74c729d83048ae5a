/* tracker_query.c - one exchange with the tracker, in a process that the fetcher forks
 * for it. */
#include "net/tracker_query.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/process.h"
#include "csapp.h"

static void ask(const char *host, const char *port, const struct tracker_request *request,
		int timeout_ms, int to_fetcher)
{
	static struct tracker_answer answer;

	answer.count = tracker_exchange(host, port, *request, timeout_ms, answer.entries, answer.why);
	(void)!rio_writen(to_fetcher, &answer, sizeof answer);	/* fails if the fetcher has ended */
	_exit(EXIT_SUCCESS);
}

int tracker_query_start(struct tracker_query *q, const char *host, const char *port,
			const struct tracker_request *request, int timeout_ms)
{
	int fds[2];

	if (pipe(fds) < 0)
		return -1;
	pid_t process = process_fork("tracker query");
	if (process == 0) {
		close(fds[0]);
		ask(host, port, request, timeout_ms, fds[1]);
	}
	close(fds[1]);
	if (process < 0) {
		int saved = errno;
		close(fds[0]);
		errno = saved;
		return -1;
	}
	q->process = process;
	q->fd = fds[0];
	q->got = 0;
	return 0;
}

static void end_query(struct tracker_query *q)
{
	close(q->fd);
	process_wait(q->process);
	q->fd = -1;
	q->process = 0;
}

const struct tracker_answer *tracker_query_read(struct tracker_query *q)
{
	ssize_t n = read(q->fd, (uint8_t *)&q->answer + q->got, sizeof q->answer - q->got);

	if (n < 0 && errno == EINTR)
		return NULL;
	if (n > 0)
		q->got += (size_t)n;
	if (n > 0 && q->got < sizeof q->answer)
		return NULL;
	end_query(q);
	if (q->answer.count < 0)
		q->answer.why[TRACKER_WHY_SIZE - 1] = '\0';
	if (q->got < sizeof q->answer || q->answer.count > TRACKER_ENTRIES_MAX) {
		q->answer.count = -1;
		snprintf(q->answer.why, sizeof q->answer.why, "no answer");
	}
	return &q->answer;
}

void tracker_query_stop(struct tracker_query *q)
{
	if (q->process == 0)
		return;
	kill(q->process, SIGKILL);
	end_query(q);
}
