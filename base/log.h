/* log.h - messages for people, on standard error.
 *
 * Each event is one line, and each line is one write, so that the lines of several
 * processes never mix. A line begins with the program's name. In a process that has
 * a role, the role and the process number follow.
 *
 * A reader that stops reading can't stop a process: a line that can't be written
 * within a second is lost. The lines after it are lost at once, until one can be
 * written; then a line tells how many were lost. */
#ifndef LOG_H
#define LOG_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __GNUC__
#define LOG_FORMAT_AT(text, args) __attribute__((format(printf, text, args)))
#define LOG_NORETURN __attribute__((noreturn))
#else
#define LOG_FORMAT_AT(text, args)
#define LOG_NORETURN
#endif
#define LOG_FORMAT LOG_FORMAT_AT(1, 2)

enum log_level { LOG_QUIET, LOG_NORMAL, LOG_VERBOSE };

/* Sets the program's name. Call it before anything else. The text is kept, not
 * copied. Standard descriptors that are closed are opened to /dev/null. Otherwise the
 * next file to be opened, perhaps a data file, would become standard error and
 * receive the messages. */
void log_program(const char *name);

/* Sets the role of this process, which its messages show; NULL for none. Kept, not
 * copied. */
void log_role(const char *role);

/* Sets what is printed: errors only; information, too; details, too. */
void log_set_level(enum log_level level);
enum log_level log_get_level(void);

/* From now on each line begins with the time, in UTC. */
void log_timestamps(void);

/* For what went wrong. log_warn adds the text of errno. Both keep errno. */
LOG_FORMAT void log_warn(const char *format, ...);
LOG_FORMAT void log_warnx(const char *format, ...);

/* For an error that may repeat with each client: returns true at most every 10 s.
 * The caller keeps one *said_ms for each kind of error, 0 at first. */
bool log_may_say(int64_t *said_ms);

/* Information, printed unless quiet; details, printed only if verbose. */
LOG_FORMAT void log_info(const char *format, ...);
LOG_FORMAT void log_debug(const char *format, ...);

/* Like log_info, for a signal handler: a text that needs no cleaning. */
void log_in_handler(const char *text);

/* What somebody asked for, printed at any level. */
LOG_FORMAT void log_status(const char *format, ...);

/* Like log_warn and log_warnx. Then the process exits: fatal with
 * exits_for(errno), fatalx with EXIT_UNABLE (base/exits.h). */
LOG_NORETURN LOG_FORMAT void fatal(const char *format, ...);
LOG_NORETURN LOG_FORMAT void fatalx(const char *format, ...);

/* Replaces control characters, and bytes that are not UTF-8, by '?', in place: a
 * terminal could take them for commands. All messages are cleaned. */
void log_clean(char *text);

/* From now on this process never waits until a line can be written, except in fatal:
 * for a process that clients wait for. Children inherit this. */
void log_never_wait(void);

/* Counts lost lines in *lost, 0 at first. If that is memory shared with the processes
 * forked later, this process also reports the lines that those have lost. */
void log_share_lost(atomic_uint *lost);

/* Reports how many lines were lost, if any were, and if the report can be written at
 * once. Returns whether there is still something to report. */
bool log_tell_lost(void);

/* Whether standard error is a terminal that can erase a line, so that one can be
 * redrawn: not where TERM is "dumb" or is not set. */
bool log_on_terminal(void);

/* Draws a line that is to be redrawn on the terminal. What can't be written at once
 * is left out. The next message of this process erases the line first. */
void log_draw(const char *text, size_t size);

/* Erases the line that log_draw has drawn, if any; after log_beside_drawn, also one
 * that another process may have drawn. A signal handler may call it. */
void log_erase(void);

/* Tells that another process redraws a line on the terminal (or no longer does): from
 * now on each message of this process erases that line first. Nothing changes where no
 * line is redrawn. Children inherit this. */
void log_beside_drawn(bool drawn_beside);

#endif
