/* process.h - forking processes that never outlive the one that forked them. */
#ifndef PROCESS_H
#define PROCESS_H

#include <sys/types.h>

/* Forks, like fork(2). The child
 * - has the role in its messages (kept, not copied; NULL for none);
 * - has every signal unblocked, and the default action for those that the
 *   parent had a handler for; what was ignored stays ignored, and SIGUSR1,
 *   which asks for a report that children don't give, is ignored;
 * - ends when its parent ends, for whatever reason: at once on Linux, within
 *   about a second elsewhere, where it must not use ITIMER_REAL or alarm(2). */
pid_t process_fork(const char *role);

/* The same, for a parent that keeps its signals blocked and forks often: the
 * child keeps them blocked too, so that only SIGKILL ends it, and has no role. */
pid_t process_fork_blocked(void);

/* Waits for the child to end. Returns NULL if it exited with status 0; else
 * how it ended, in words, in static memory. */
const char *process_wait(pid_t child);

/* How a process ended, in words, from the status of waitpid(2). NULL for an
 * exit with status 0. In static memory. */
const char *process_end_text(int status);

#endif
