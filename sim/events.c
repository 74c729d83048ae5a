/* events.c - a heap of events, the next one first. */
#include "sim/events.h"

#include <stdbool.h>
#include <stdlib.h>

#include "base/log.h"

int64_t now_us;

static struct event *heap;
static size_t heap_count, heap_size;
static uint64_t order;

int64_t now_ms(void)
{
	return now_us / 1000 + 1;
}

static bool is_before(const struct event *a, const struct event *b)
{
	return a->at_us != b->at_us ? a->at_us < b->at_us : a->order < b->order;
}

void events_push(struct event e)
{
	size_t i = heap_count++;

	if (i == heap_size) {
		heap_size = heap_size > 0 ? 2 * heap_size : 1024;
		heap = realloc(heap, heap_size * sizeof *heap);
		if (heap == NULL)
			fatal("no memory for %zu events", heap_size);
	}
	e.order = order++;
	for (; i > 0 && is_before(&e, &heap[(i - 1) / 2]); i = (i - 1) / 2)
		heap[i] = heap[(i - 1) / 2];
	heap[i] = e;
}

struct event events_pop(void)
{
	struct event top = heap[0], last = heap[--heap_count];
	size_t i = 0;

	for (size_t child; (child = 2 * i + 1) < heap_count; i = child) {
		if (child + 1 < heap_count && is_before(&heap[child + 1], &heap[child]))
			child++;
		if (!is_before(&heap[child], &last))
			break;
		heap[i] = heap[child];
	}
	heap[i] = last;
	now_us = top.at_us;
	return top;
}

void events_begin(void)
{
	now_us = 0;
	order = 0;
}

void events_end(void)
{
	while (heap_count > 0)
		free(events_pop().map);
}
