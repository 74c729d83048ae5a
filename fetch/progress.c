/* progress.c - the progress line; used by the fetcher. */
#include "fetch/progress.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/format.h"
#include "base/log.h"
#include "file/status.h"

#define REDRAW_MS 200		/* on a terminal */
#define PLAIN_MS 10000		/* elsewhere: a line that often, */
#define PLAIN_PERCENT 10	/* and one at each such step, */
#define PLAIN_STEP_MS 500	/* but not more often than this */
#define RATE_MS 4000		/* over which the rate is taken */
#define RATE_LOOKS 32		/* looks remembered for it */
#define BAR_MAX 40		/* columns */
#define NARROW 64		/* with fewer columns than this, less is told */

/* The one thing that is shown at a time. */
static struct {
	const char *verb;
	const struct datafile *file;
	const struct wanted *wanted;
	bool terminal;
	uint64_t had;
	int64_t start_ms, next_ms;
	unsigned next_percent;
	/* What was there when it was last shown, and before: a ring. */
	struct { int64_t at_ms; uint64_t bytes; } look[RATE_LOOKS];
	unsigned looks;
} shown;

static volatile sig_atomic_t requested;	/* a report, by a signal */

static unsigned percent(uint64_t bytes)
{
	uint64_t length = shown.file->meta.length;

	/* 99 until the last byte: 100 means done. */
	return length == 0 || bytes >= length ? 100 : (unsigned)((double)bytes * 100 / (double)length);
}

void progress_begin(const char *verb, const struct datafile *d, uint64_t had, const struct wanted *wanted)
{
	memset(&shown, 0, sizeof shown);
	status_doing(verb[0] == 'c' ? STATUS_CHECKING : verb[0] == 'v' ? STATUS_VERIFYING : STATUS_DOWNLOADING);
	shown.verb = verb;
	shown.file = d;
	shown.wanted = wanted;
	shown.terminal = log_on_terminal();
	shown.had = had;
	shown.start_ms = clock_ms();
	shown.next_ms = shown.start_ms + (shown.terminal ? 0 : PLAIN_MS);
	shown.next_percent = percent(had) / PLAIN_PERCENT * PLAIN_PERCENT + PLAIN_PERCENT;
}

/* Bytes a second over the last RATE_MS or so: since the oldest look that is not
 * older, or else since the last one. */
static double current_rate(int64_t now_ms, uint64_t bytes)
{
	unsigned count = shown.looks < RATE_LOOKS ? shown.looks : RATE_LOOKS;
	int64_t since_ms = shown.start_ms;
	uint64_t then = shown.had;

	for (unsigned back = 1; back <= count; back++) {
		unsigned i = (shown.looks - back) % RATE_LOOKS;
		if (back > 1 && now_ms - shown.look[i].at_ms > RATE_MS)
			break;
		since_ms = shown.look[i].at_ms;
		then = shown.look[i].bytes;
	}
	shown.look[shown.looks % RATE_LOOKS].at_ms = now_ms;
	shown.look[shown.looks % RATE_LOOKS].bytes = bytes;
	shown.looks++;
	if (now_ms <= since_ms || bytes < then)
		return 0;
	return (double)(bytes - then) * 1000 / (double)(now_ms - since_ms);
}

static size_t terminal_columns(void)
{
	struct winsize size;

	if (ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
		return size.ws_col;
	return 80;
}

/* A part of the file, from the chunk first up to end, as one character: all of
 * it held '#', some of it arriving '>', some of it held '+', none '.'. */
static char part_symbol(uint64_t first, uint64_t end)
{
	const struct held *held = shown.file->held;
	uint64_t step = (end - first) / 64 + 1;	/* a sample is enough to look at */
	bool all = true, some = false, arriving = false;

	for (uint64_t chunk = first; chunk < end; chunk += step) {
		bool has = held_has(held, chunk);
		all &= has;
		some |= has;
		arriving |= !has && shown.wanted != NULL && !wanted_has(shown.wanted, chunk);
	}
	return all ? '#' : arriving ? '>' : some ? '+' : '.';
}

static void draw_map(char *map, size_t columns)
{
	const uint64_t chunks = shown.file->meta.chunks;
	double per_column = (double)chunks / (double)columns;

	for (size_t i = 0; i < columns; i++) {
		uint64_t first = (uint64_t)(per_column * (double)i);
		uint64_t end = (uint64_t)(per_column * (double)(i + 1));
		if (end <= first)
			end = first + 1;
		map[i] = part_symbol(first, end < chunks ? end : chunks);
	}
	map[columns] = '\0';
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

/* How many bytes of the UTF-8 text fit into so many columns, and how many columns
 * those take. A character of three or four bytes may be two columns wide, and is
 * taken to be. */
static size_t fit_columns(const char *text, size_t columns, size_t *used)
{
	size_t bytes = 0;

	*used = 0;
	while (text[bytes] != '\0') {
		unsigned char first = (unsigned char)text[bytes];
		size_t width = first >= 0xe0 ? 2 : 1, length = 1;
		while (first >= 0xc0 && ((unsigned char)text[bytes + length] & 0xc0) == 0x80)
			length++;
		if (*used + width > columns)
			break;
		*used += width;
		bytes += length;
	}
	return bytes;
}

static void draw_line(uint64_t bytes, double rate, int peers)
{
	char numbers[160], map[BAR_MAX + 4] = "", line[1024], redraw[1100], tail[24];
	char held[FORMAT_BYTES_SIZE], whole[FORMAT_BYTES_SIZE], per_second[FORMAT_BYTES_SIZE];
	char left[FORMAT_DURATION_SIZE] = "?", name[512];
	const uint64_t length = shown.file->meta.length;
	size_t columns = terminal_columns(), name_columns;

	format_bytes(rate, per_second);
	if (rate > 0)
		format_duration((double)(length - bytes) / rate, left);
	if (peers >= 0)
		snprintf(tail, sizeof tail, "%d peer%s", peers, peers == 1 ? "" : "s");
	else
		snprintf(tail, sizeof tail, "%s", shown.verb);
	int n = columns < NARROW ? snprintf(numbers, sizeof numbers, "%s/s  %s left", per_second, left)
				 : snprintf(numbers, sizeof numbers, "%s/%s  %s/s  %s left  %s",
					    format_bytes((double)bytes, held),
					    format_bytes((double)length, whole), per_second, left, tail);
	/* The name, the percentage and the map get what the numbers leave. */
	size_t spare = (size_t)n + 8 < columns ? columns - (size_t)n - 8 : 0;
	snprintf(name, sizeof name, "%s", base_name(shown.file->path));
	log_clean(name);
	name[fit_columns(name, spare / 2, &name_columns)] = '\0';
	size_t bar = spare - name_columns > 4 ? spare - name_columns - 4 : 0;
	if (bar > 0) {
		bar = bar < BAR_MAX ? bar : BAR_MAX;
		map[0] = '[';
		draw_map(map + 1, bar);
		strcpy(map + 1 + bar, "] ");
	}
	snprintf(line, sizeof line, "%s%s%3u%% %s%s", name, name_columns > 0 ? " " : "", percent(bytes), map,
		 numbers);
	line[fit_columns(line, columns - 1, &name_columns)] = '\0';	/* a full line would wrap */
	n = snprintf(redraw, sizeof redraw, "\r%s\033[K", line);
	log_draw(redraw, (size_t)n);
}

static void report(uint64_t bytes, double rate, int peers)
{
	char held[FORMAT_BYTES_SIZE], whole[FORMAT_BYTES_SIZE], per_second[FORMAT_BYTES_SIZE];
	char from[32] = "";

	if (peers >= 0)
		snprintf(from, sizeof from, ", %d peer%s", peers, peers == 1 ? "" : "s");
	log_status("%s: %s: %u%%, %s of %s, %s/s%s", shown.file->path, shown.verb, percent(bytes),
		   format_bytes((double)bytes, held),
		   format_bytes((double)shown.file->meta.length, whole),
		   format_bytes(rate, per_second), from);
}

void progress_on_request(int sig)
{
	(void)sig;
	requested = 1;
}

void progress_show(uint64_t bytes, int peers)
{
	char held[FORMAT_BYTES_SIZE], per_second[FORMAT_BYTES_SIZE];
	int64_t now_ms = clock_ms();
	bool step = !shown.terminal && percent(bytes) >= shown.next_percent && percent(bytes) < 100 &&
		    now_ms >= shown.next_ms - PLAIN_MS + PLAIN_STEP_MS;

	if (peers >= 0)
		status_peers((unsigned)peers);
	else
		status_checked(bytes);
	status_show();
	if (requested) {
		requested = 0;
		report(bytes, current_rate(now_ms, bytes), peers);
	}
	if (log_get_level() == LOG_QUIET || (now_ms < shown.next_ms && !step))
		return;
	double rate = current_rate(now_ms, bytes);
	if (shown.terminal) {
		draw_line(bytes, rate, peers);
	} else {
		log_info("%s: %s: %u%%, %s, %s/s", shown.file->path, shown.verb, percent(bytes),
			 format_bytes((double)bytes, held), format_bytes(rate, per_second));
		shown.next_percent = percent(bytes) / PLAIN_PERCENT * PLAIN_PERCENT + PLAIN_PERCENT;
	}
	shown.next_ms = now_ms + (shown.terminal ? REDRAW_MS : PLAIN_MS);
}

void progress_checked(void *unused, uint64_t bytes)
{
	(void)unused;
	progress_show(bytes, -1);
}

int64_t progress_next_ms(int64_t next_ms)
{
	if (log_get_level() != LOG_QUIET)
		next_ms = clock_earlier(next_ms, shown.next_ms);
	return status_next_ms(next_ms);
}

double progress_end(void)
{
	log_erase();
	return (double)(clock_ms() - shown.start_ms) / 1000;
}
