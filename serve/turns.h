/* turns.h - which of the clients that wait for a chunk gets one next.
 *
 * A line on which 30 clients are sent a chunk each delivers none of them for a long time,
 * and meanwhile none of the clients can pass its chunk on. So a few at a time have a turn.
 * Who waits for what was sent least comes first: each copy of a chunk that was sent, or is
 * being sent, sets those who wait for it back by as many places as there may be clients,
 * up to TURN_COPIES times. In a simulated swarm of 64 the last one is complete
 * after 1.4 times the least time instead of 1.9 (docs/choice.md). Where no more clients
 * than TURNS_LEAST are connected, nobody waits.
 *
 * How many have a turn is found out by trial (trial.h), beginning with TURNS_LEAST: so slow
 * clients don't leave the line idle.
 *
 * The table lies in memory that the parent's children share. Nothing in it is trusted
 * beyond the order of clients: a child that writes nonsense delays others. */
#ifndef TURNS_H
#define TURNS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define TURNS_LEAST 3
#define TURN_COPIES 8
#define TURN_LOSSES 2

struct turns;

/* A table for so many children and files. NULL with errno if there is no memory. */
struct turns *turns_new(unsigned children, size_t files);

/* A child begins; sends nothing more. The parent calls both, since a child may be killed; but a
 * child that fails leaves at once: it may be a while until it is reaped. What it was sending
 * in its turn doesn't count. */
void turns_join(struct turns *t, unsigned child);
void turns_leave(struct turns *t, unsigned child);

/* Whether so many clients are there that somebody may have to wait. */
bool turns_are_scarce(const struct turns *t);

/* The child asks for a turn, to send a chunk of that region of that file, which has so
 * many chunks. */
void turns_ask(struct turns *t, unsigned child, size_t file, size_t region, uint64_t region_size);

/* Waits for the turn that was asked for, or for another after one was lost, ms milliseconds at
 * most. Returns true if it has come, or if the client over fd is gone (the next send tells; fd
 * -1: there is none); false if the time is up. */
bool turns_wait(struct turns *t, unsigned child, int fd, int ms);

/* The turn is over: the chunk was sent. */
void turns_end(struct turns *t, unsigned child);

/* The child can't send now. If it waits for its turn, nobody waits for it meanwhile; it has its
 * place again in the next turns_wait. */
void turns_step_aside(struct turns *t, unsigned child);

/* The client takes nothing: if it has a turn, another may have that. For what is left of the chunk
 * turns_wait gets it another: before what was not begun, the first TURN_LOSSES times; after that
 * it has to wait as long as who asks now. Returns whether it had a turn. */
bool turns_lose(struct turns *t, unsigned child);

/* The child has sent that many bytes. */
void turns_count(struct turns *t, size_t bytes);

#endif
