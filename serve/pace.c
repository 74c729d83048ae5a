/* pace.c - how fast a client takes what it is sent, and how long it has been idle. */
#define _GNU_SOURCE	/* struct tcp_info, where the system has it */
#include "serve/pace.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/wait.h"

#define FLOOR_MS 30000		/* in each such period a client must take */
#define FLOOR_BYTES (30 << 10)	/* so many bytes */
#define LOOK_MS 100		/* between two looks at how many bytes it took */
#define LOST_MS 1000		/* that what the line may have lost is waited for */
#define SINCE_MAX_MS 86400000	/* the parent is told of times this far away at most */

void pace_begin(struct pace *p, int fd, struct client_slot *slot)
{
	*p = (struct pace){.fd = fd, .slot = slot, .active_ms = clock_ms()};
}

static void set_state(struct pace *p, enum client_state state)
{
	atomic_store_explicit(&p->slot->sent_kib, (uint32_t)(p->sent >> 10), memory_order_relaxed);
	atomic_store_explicit(&p->slot->chunks, p->chunks, memory_order_relaxed);
	atomic_store_explicit(&p->slot->state, state, memory_order_release);
	p->working = state == CLIENT_WORKING;
}

/* The child waits for the client, which was active until active_ms. The slot has only
 * the low bits of a time, which are unique for some weeks. */
static void set_waiting(struct pace *p, enum client_state state, int64_t active_ms, int64_t now_ms)
{
	if (active_ms < now_ms - SINCE_MAX_MS)
		active_ms = now_ms - SINCE_MAX_MS;
	if (active_ms > now_ms + SINCE_MAX_MS)
		active_ms = now_ms + SINCE_MAX_MS;
	atomic_store_explicit(&p->slot->since_ms, (uint32_t)active_ms, memory_order_relaxed);
	set_state(p, state);
}

/* How many bytes the client has taken, in all: those sent, less those still in the
 * socket's buffer, where the system tells their number (some systems count more). */
static uint64_t bytes_taken(struct pace *p)
{
	uint64_t left = 0;
#ifdef TIOCOUTQ
	int queued;

	if (ioctl(p->fd, TIOCOUTQ, &queued) == 0 && queued >= 0)
		left = (uint64_t)queued < p->sent ? (uint64_t)queued : p->sent;
#endif
	if (p->sent - left > p->taken)
		p->taken = p->sent - left;
	return p->taken;
}

/* Whether bytes are on their way to the client: if it takes none, the line may have lost
 * them. False where the system doesn't tell. */
static bool is_under_way(const struct pace *p)
{
#if defined(__linux__) && !defined(PORTABLE)
	struct tcp_info info;
	socklen_t size = sizeof info;

	if (getsockopt(p->fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0)
		return info.tcpi_unacked > 0;
#endif
	(void)p;
	return false;
}

/* Until when a client was active that keeps answers waiting. A client with a large
 * buffer takes data in bursts, so this may lie in the future. */
static int64_t slow_until_ms(const struct pace *p, uint64_t taken)
{
	return p->slow_start_ms + (int64_t)((taken - p->slow_start_bytes) * 1000 / CLIENT_RATE);
}

/* Leaves out the time in which the child was busy: the client is not to blame for it. */
static void skip_own_time(struct pace *p, int64_t now)
{
	p->slow_start_ms += now - p->waited_ms;
	p->floor_start_ms += now - p->waited_ms;
	p->waited_ms = now;
}

/* The answers that waited have been sent. If the client was faster than CLIENT_RATE,
 * that is not credited to the next answers; if it was slower, that is kept. */
static void end_slow_answers(struct pace *p)
{
	int64_t now = clock_ms();
	uint64_t taken = bytes_taken(p);

	skip_own_time(p, now);
	p->slow_start_ms = p->new_chunks > 0 ? clock_earlier(slow_until_ms(p, taken), now) : now;
	p->slow_start_bytes = taken;
	if (p->new_chunks > 0)
		p->active_ms = p->slow_start_ms;
	p->new_chunks = 0;
}

void pace_working(struct pace *p)
{
	if (!p->working)
		set_state(p, CLIENT_WORKING);
}

void pace_add_chunk(struct pace *p)
{
	p->new_chunks++;
}

void pace_delayed(struct pace *p)
{
	if (p->new_chunks > 0)
		set_state(p, CLIENT_WORKING);
}

void pace_sent(struct pace *p, size_t bytes)
{
	p->sent += bytes;
}

void pace_chunks_sent(struct pace *p, unsigned chunks)
{
	p->chunks += chunks;
}

enum pace_wait pace_wait_to_send(struct pace *p)
{
	int64_t now = clock_ms();
	uint64_t taken = bytes_taken(p);
	if (p->slow_start_ms == 0) {
		p->slow_start_ms = p->floor_start_ms = p->waited_ms = now;
		p->slow_start_bytes = p->batch_start < taken ? p->batch_start : taken;
		/* A large buffer of the client's has taken much by now, and takes nothing for long. */
		p->floor_start = p->slow_start_bytes;
	}
	skip_own_time(p, now);
	if (now - p->floor_start_ms >= FLOOR_MS) {
		if (taken - p->floor_start < FLOOR_BYTES)
			return PACE_FAILED;
		p->floor_start_ms = now;
		p->floor_start = taken;
	}
	if (p->new_chunks > 0)
		set_waiting(p, CLIENT_SLOW, slow_until_ms(p, taken), now);
	else
		set_waiting(p, CLIENT_SILENT, p->active_ms, now);
	int result = wait_ready(p->fd, POLLOUT, now + LOOK_MS);
	bool again = result < 0 && errno == ETIMEDOUT;
	p->waited_ms = clock_ms();
	if (!again && p->new_chunks > 0)
		set_state(p, CLIENT_WORKING);
	bool takes = !again || bytes_taken(p) > taken;
	if (takes)
		p->still_since_ms = 0;
	else if (p->still_since_ms == 0)
		p->still_since_ms = now;
	if (again && (takes || (p->waited_ms - p->still_since_ms < LOST_MS && is_under_way(p))))
		return PACE_TAKES;
	return again ? PACE_TAKES_NOTHING : result < 0 ? PACE_FAILED : PACE_READY;
}

void pace_answers_sent(struct pace *p)
{
	if (p->slow_start_ms != 0)
		end_slow_answers(p);
	p->batch_start = p->sent;
}

void pace_silent(struct pace *p)
{
	int64_t now = clock_ms();

	if (p->new_chunks > 0)
		p->active_ms = now;
	p->new_chunks = 0;
	p->slow_start_ms = 0;
	set_waiting(p, CLIENT_SILENT, p->active_ms, now);
}

void pace_leaving(struct pace *p)
{
	int64_t now = clock_ms();

	set_waiting(p, CLIENT_SILENT, now, now);
}

void pace_end(struct pace *p)
{
	set_state(p, CLIENT_WORKING);
}
