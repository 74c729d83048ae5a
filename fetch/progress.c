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
	const struct progress_file *files;
	size_t count;
	char name[512];			/* of the file, or how many there are */
	const char *path;		/* the same, with the file's folder */
	bool terminal;
	uint64_t length;		/* of all files, in bytes */
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
	/* 99 until the last byte: 100 means done. */
	return bytes >= shown.length ? 100 : (unsigned)((double)bytes * 100 / (double)shown.length);
}

static const char *base_name(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash != NULL ? slash + 1 : path;
}

static void name_files(void)
{
	const char *path = shown.files[0].file->path;

	if (shown.count == 1)
		snprintf(shown.name, sizeof shown.name, "%s", base_name(path));
	else
		snprintf(shown.name, sizeof shown.name, "%zu files", shown.count);
	shown.path = shown.count == 1 ? path : shown.name;
	log_clean(shown.name);
}

void progress_begin(const char *verb, const struct progress_file files[], size_t count, uint64_t had)
{
	memset(&shown, 0, sizeof shown);
	status_doing(verb[0] == 'c' ? STATUS_CHECKING :
		     verb[0] == 'v' ? STATUS_VERIFYING : STATUS_DOWNLOADING);
	shown.verb = verb;
	shown.files = files;
	shown.count = count;
	for (size_t i = 0; i < count; i++)
		shown.length += files[i].file->meta.length;
	name_files();
	shown.terminal = log_on_terminal();
	shown.had = had;
	shown.start_ms = clock_ms();
	shown.next_ms = shown.start_ms + (shown.terminal ? 0 : PLAIN_MS);
	shown.next_percent = percent(had) / PLAIN_PERCENT * PLAIN_PERCENT + PLAIN_PERCENT;
}

void progress_begin_one(const char *verb, const struct datafile *d, uint64_t had)
{
	static struct progress_file one;

	one = (struct progress_file){.file = d};
	progress_begin(verb, &one, 1, had);
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

/* What is known of the chunks that one column stands for. */
struct part {
	bool lacks, has, arriving;	/* one isn't held; one is; one is on its way */
};

/* All of it held '#', some of it arriving '>', some of it held '+', none '.'. */
static char part_symbol(const struct part *p)
{
	return !p->lacks ? '#' : p->arriving ? '>' : p->has ? '+' : '.';
}

/* Looks at chunks of the file from first up to end. */
static void look_at_chunks(struct part *p, const struct progress_file *f, uint64_t first, uint64_t end)
{
	uint64_t step = (end - first) / 64 + 1;	/* a sample is enough to look at */

	for (uint64_t chunk = first; chunk < end; chunk += step) {
		bool has = held_has(f->file->held, chunk);
		p->has |= has;
		p->lacks |= !has;
		p->arriving |= !has && f->wanted != NULL && !wanted_has(f->wanted, chunk);
	}
}

/* Looks at the file, which takes `width` columns from `at` on, the first and the last perhaps in
 * part. Each of them has at least one chunk. */
static void look_at_file(struct part parts[], size_t columns, const struct progress_file *f, double at,
			 double width)
{
	uint64_t chunks = f->file->meta.chunks;
	double per_column = (double)chunks / width;

	for (size_t c = (size_t)at; c < columns && (double)c < at + width; c++) {
		double from = (double)c > at ? ((double)c - at) * per_column : 0;
		uint64_t first = (uint64_t)from, end = (uint64_t)(((double)(c + 1) - at) * per_column);
		if (first >= chunks)
			first = chunks - 1;
		if (end <= first)
			end = first + 1;
		look_at_chunks(&parts[c], f, first, end < chunks ? end : chunks);
	}
}

/* The files lie in the map one behind the other. */
static void draw_map(char *map, size_t columns)
{
	struct part parts[BAR_MAX] = {{0}};
	double at = 0;

	for (size_t i = 0; i < shown.count; i++) {
		uint64_t length = shown.files[i].file->meta.length;
		double width = length > 0 ? (double)columns * (double)length / (double)shown.length : 0;
		if (length > 0)
			look_at_file(parts, columns, &shown.files[i], at, width);
		at += width;
	}
	for (size_t c = 0; c < columns; c++)
		map[c] = part_symbol(&parts[c]);
	map[columns] = '\0';
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
	char left[FORMAT_DURATION_SIZE] = "?", name[sizeof shown.name];
	size_t columns = terminal_columns(), name_columns;

	format_bytes(rate, per_second);
	if (rate > 0)
		format_duration((double)(shown.length - bytes) / rate, left);
	if (peers >= 0)
		snprintf(tail, sizeof tail, "%d peer%s", peers, peers == 1 ? "" : "s");
	else
		snprintf(tail, sizeof tail, "%s", shown.verb);
	format_bytes((double)bytes, held);
	format_bytes((double)shown.length, whole);
	int n = columns < NARROW ? snprintf(numbers, sizeof numbers, "%s/s  %s left", per_second, left)
				 : snprintf(numbers, sizeof numbers, "%s/%s  %s/s  %s left  %s", held, whole,
					    per_second, left, tail);
	/* The name, the percentage and the map get what the numbers leave. */
	size_t spare = (size_t)n + 8 < columns ? columns - (size_t)n - 8 : 0;
	strcpy(name, shown.name);
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
	log_status("%s: %s: %u%%, %s of %s, %s/s%s", shown.path, shown.verb, percent(bytes),
		   format_bytes((double)bytes, held), format_bytes((double)shown.length, whole),
		   format_bytes(rate, per_second), from);
	for (size_t i = 0; i < shown.count && shown.count > 1; i++) {
		const struct datafile *d = shown.files[i].file;
		uint64_t missing = datafile_missing_bytes(d);
		log_status("%s: %s of %s", d->path, format_bytes((double)(d->meta.length - missing), held),
			   format_bytes((double)d->meta.length, whole));
	}
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
		log_info("%s: %s: %u%%, %s, %s/s", shown.path, shown.verb, percent(bytes),
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

void progress_end(void)
{
	log_erase();
}
