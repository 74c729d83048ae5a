/* asking.c - asks the tracker for peers, again and again, and adds them to the swarm. */
#include "fetch/asking.h"

#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/log.h"

#define ASK_MS 10000			/* between two questions, and for an answer */
#define UNREACHABLE_MS 2000		/* without a peer that can be reached, before it is asked again */
#define LIST_AGE_SERVING_MS 250	/* a list younger than that is not renewed by a peer that serves, */
#define LIST_AGE_CLIENT_MS 10000	/* nor this by one that doesn't */
#define LIST_AGE_MAX_MS 300000		/* an older one is renewed in any case */
#define JITTER_MS 1000			/* so that not all who began together ask together */

static bool told_trouble;		/* with the tracker, since it last answered for any file */

void asking_begin(struct asking *a, const struct asking_options *options, struct swarm *swarm)
{
	*a = (struct asking){.options = *options, .swarm = swarm, .query.fd = -1};
}

void asking_end(struct asking *a)
{
	tracker_query_stop(&a->query);
}

bool asking_is_under_way(const struct asking *a)
{
	return a->query.process != 0;
}

/* When the last list will be old. */
static int64_t renew_ms(const struct asking *a)
{
	int64_t least_ms = a->options.serves ? LIST_AGE_SERVING_MS : LIST_AGE_CLIENT_MS;
	int64_t age_ms = a->named_new ? 0 : a->listed_ms - a->begun_ms;

	if (age_ms < least_ms)
		age_ms = least_ms;
	if (age_ms > LIST_AGE_MAX_MS)
		age_ms = LIST_AGE_MAX_MS;
	return a->listed_ms + age_ms;
}

/* The table in asking.h. */
static int64_t due_ms(const struct asking *a)
{
	int64_t retry_ms = a->asked_ms + ASK_MS + a->jitter_ms;
	bool failed = a->listed_ms < a->asked_ms;

	if (a->asked_ms == 0)
		return 0;
	if (failed || a->swarm->count == 0)
		return retry_ms;
	if (swarm_has_usable_peer(a->swarm))
		return renew_ms(a);
	if (!swarm_has_reachable_peer(a->swarm) && a->reachable_ms >= a->listed_ms)
		retry_ms = clock_earlier(retry_ms, a->reachable_ms + UNREACHABLE_MS + a->jitter_ms);
	return clock_earlier(renew_ms(a), retry_ms);
}

int64_t asking_next_ms(const struct asking *a, int64_t next_ms)
{
	if (a->options.tracker_host == NULL || asking_is_under_way(a))
		return next_ms;
	return clock_earlier(due_ms(a), next_ms);
}

bool asking_is_due(struct asking *a, int64_t now_ms)
{
	if (swarm_has_reachable_peer(a->swarm))
		a->reachable_ms = now_ms;
	return a->options.tracker_host != NULL && !asking_is_under_way(a) && now_ms >= due_ms(a);
}

bool asking_put_if_due(struct asking *a, int64_t now_ms)
{
	if (!asking_is_due(a, now_ms))
		return false;
	if (a->begun_ms == 0)
		a->begun_ms = now_ms;
	a->asked_ms = now_ms;
	a->jitter_ms = random() % JITTER_MS;
	return true;
}

/* Whether trouble with the tracker is to be told of: once, for all files, until it answers. */
static bool is_new_trouble(struct asking *a)
{
	bool is_new = !a->said_trouble && !told_trouble;

	a->said_trouble = told_trouble = true;
	return is_new;
}

void asking_start_if_due(struct asking *a)
{
	const struct asking_options *o = &a->options;
	struct tracker_request request = {.command = TRACKER_LIST, .self = o->self};

	if (!asking_put_if_due(a, clock_ms()))
		return;
	memcpy(request.cascade_hash, o->cascade_hash, SHA256_HASH_SIZE);
	if (tracker_query_start(&a->query, o->tracker_host, o->tracker_port, &request,
				(int)(ASK_MS * o->time_scale)) < 0 && is_new_trouble(a))
		log_warn("%s: no process can ask the tracker; tried again every 10 to 11 s", o->path);
}

void asking_take_list(struct asking *a, const struct tracker_entry entries[], size_t count, int64_t now_ms)
{
	unsigned usable = swarm_add_entries(a->swarm, entries, count, &a->named_new);

	log_debug("%s: the tracker names %u peer%s", a->options.path, usable, usable == 1 ? "" : "s");
	a->asked_ms = a->listed_ms = now_ms;	/* between two questions the answer's time doesn't count */
	if (swarm_has_reachable_peer(a->swarm))
		a->reachable_ms = now_ms;
	a->said_trouble = told_trouble = false;
	if (a->swarm->count == 0 && !a->said_waiting) {
		log_info("%s: the tracker knows no other peer; waiting for one", a->options.path);
		a->said_waiting = true;
	}
}

void asking_read(struct asking *a)
{
	const struct tracker_answer *answer = tracker_query_read(&a->query);

	if (answer == NULL)
		return;
	a->asked_ms = clock_ms();
	if (answer->count >= 0) {
		asking_take_list(a, answer->entries, (size_t)answer->count, a->asked_ms);
	} else if (is_new_trouble(a)) {
		log_warnx("tracker %s:%s: %s; it is asked again every 10 to 11 s",
			  a->options.tracker_host, a->options.tracker_port, answer->why);
	}
}

void asking_take_names(struct asking *a, const struct tracker_entry entries[], size_t count)
{
	bool named_new;

	swarm_add_entries(a->swarm, entries, count, &named_new);
	a->named_new |= named_new;
}

int64_t asking_unreachable_ms(const struct asking *a)
{
	return clock_ms() - a->reachable_ms;
}
