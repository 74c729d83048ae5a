/* subscriber.c - telling the tracker which files this peer serves. */
#include "serve/subscriber.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "base/process.h"
#include "net/news.h"
#include "net/tracker_client.h"

#define SUBSCRIBE_MS 600000	/* between two subscriptions */
#define RETRY_MS 10000		/* after a subscription that failed, and for its answer */

static struct subscriber_options options;
static pid_t subscriber;	/* 0: none runs */
static bool *subscribed;	/* for each file: the tracker was told, or is being told */
static bool failed;		/* the last subscriber has; the user was told */
static int64_t due_ms;		/* when to subscribe again; 0: no subscriber has ended yet */

void subscriber_begin(const struct subscriber_options *subscriber_options)
{
	options = *subscriber_options;
	subscribed = calloc(options.count, sizeof *subscribed);
	if (subscribed == NULL)
		fatal("no memory for %zu files", options.count);
}

static bool can_subscribe(const struct datafile *d, bool fetching)
{
	return !atomic_load(d->lost) && atomic_load(&d->held->some) &&
	       (datafile_is_checked(d) || !fetching);
}

/* Runs in the subscriber: subscribes the files that the parent has marked. */
static void subscribe_all(void)
{
	static struct subscription_answer answer;
	char why[TRACKER_WHY_SIZE];
	int failures = 0;

	close(options.listen_fd);
	for (size_t i = 0; i < options.count; i++) {
		struct tracker_request request = {.command = TRACKER_SUBSCRIBE, .self = options.self};
		if (!subscribed[i])
			continue;
		memcpy(request.cascade_hash, options.files[i].meta.cascade_hash, SHA256_HASH_SIZE);
		int count = tracker_exchange(options.tracker_host, options.tracker_port, request, RETRY_MS,
					     answer.entries, why);
		if (count >= 0) {
			answer.file = i;
			answer.count = (size_t)count;
			/* Fails if the fetcher is busy or has ended: then it isn't needed. */
			(void)!write(options.news, &answer, sizeof answer);
			continue;
		}
		if (failures == 0 && !failed)
			log_warnx("tracker %s:%s: %s: not subscribed; tried again every 10 s",
				  options.tracker_host, options.tracker_port, why);
		failures++;
	}
	_exit(failures > 0);
}

void subscriber_start_if_due(bool fetching)
{
	bool due = due_ms != 0 && clock_ms() >= due_ms, any = false;

	if (options.tracker_host == NULL || subscriber != 0)
		return;
	for (size_t i = 0; i < options.count; i++)
		if (can_subscribe(&options.files[i], fetching)) {
			any = true;
			due = due || (!subscribed[i] && !failed);
		}
	if (!due || !any)
		return;
	for (size_t i = 0; i < options.count; i++)
		subscribed[i] = can_subscribe(&options.files[i], fetching);
	subscriber = process_fork("subscriber");
	if (subscriber == 0)
		subscribe_all();
	if (subscriber < 0) {
		log_warn("can't fork the subscriber");
		subscriber = 0;
		due_ms = clock_ms() + RETRY_MS;
	}
}

int64_t subscriber_next_ms(int64_t next_ms)
{
	return due_ms != 0 && subscriber == 0 ? clock_earlier(due_ms, next_ms) : next_ms;
}

bool subscriber_ended(pid_t pid, int status)
{
	if (subscriber == 0 || pid != subscriber)
		return false;
	failed = !WIFEXITED(status) || WEXITSTATUS(status) != 0;
	due_ms = clock_ms() + (failed ? RETRY_MS : SUBSCRIBE_MS);
	subscriber = 0;
	return true;
}

void subscriber_kill(void)
{
	if (subscriber != 0)
		kill(subscriber, SIGKILL);
}
