/* report.c - what a serving parent reports about its files and clients. */
#include "serve/report.h"

#include "base/clock.h"
#include "base/exits.h"
#include "base/format.h"
#include "base/log.h"
#include "serve/clients.h"

#define COUNTED_MS 10000	/* between two reports of counts */

static void report_client(struct child *child)
{
	static const char *const states[] = {"working", "silent", "slow"};
	char address[ADDRESS_TEXT_SIZE], bytes[FORMAT_BYTES_SIZE], rate[FORMAT_BYTES_SIZE];
	double kib = (double)atomic_load(&child->slot->sent_kib);
	double seconds = (double)(clock_ms() - child->start_ms) / 1000;
	unsigned chunks = atomic_load(&child->slot->chunks);

	log_status("client %s: %s, %u chunk%s, %s, %s/s, child %ld", address_text(child->client, address),
		   states[atomic_load(&child->slot->state) % 3], chunks, FORMAT_S(chunks),
		   format_bytes(kib * 1024, bytes),
		   format_bytes(seconds > 0 ? kib * 1024 / seconds : 0, rate), (long)child->pid);
}

void report_status(const struct datafile files[], size_t count)
{
	const struct clients_counts *c = clients_counts();
	char bytes[FORMAT_BYTES_SIZE];

	for (size_t i = 0; i < count; i++)
		log_status("%s: %llu of %llu chunk%s held", files[i].path,
			   (unsigned long long)held_count(files[i].held),
			   (unsigned long long)files[i].meta.chunks, FORMAT_S(files[i].meta.chunks));
	log_status("%u client%s now, %llu before, sent %s", clients_count(), FORMAT_S(clients_count()),
		   (unsigned long long)c->served, format_bytes((double)c->sent_kib * 1024, bytes));
	clients_for_each(report_client);
}

void report_counts(void)
{
	static int64_t said_ms;
	struct clients_counts *c = clients_counts();
	int64_t now = clock_ms();

	if (c->gave_way + c->died == 0 || (said_ms != 0 && now - said_ms < COUNTED_MS))
		return;
	if (c->gave_way > 0)
		log_info("%u silent or slow client%s had to give way to others", c->gave_way,
			 FORMAT_S(c->gave_way));
	if (c->died > 0)
		log_warnx("%u %s killed by a signal", c->died, c->died == 1 ? "child was" : "children were");
	c->gave_way = c->died = 0;
	said_ms = now;
}

int report_end(const struct datafile files[], size_t count)
{
	for (size_t i = 0; i < count; i++) {
		uint64_t held = held_count(files[i].held);
		if (atomic_load(files[i].lost)) {
			log_warnx("%s: ended; it was given up before", files[i].path);
			return EXIT_UNABLE;
		}
		if (held == files[i].meta.chunks)
			continue;
		log_warnx("%s: ended with %llu of %llu chunk%s held; the same command goes on", files[i].path,
			  (unsigned long long)held, (unsigned long long)files[i].meta.chunks,
			  FORMAT_S(files[i].meta.chunks));
		return EXIT_INTERRUPTED;
	}
	return EXIT_DONE;
}
