/* csapp.h - robust I/O, sockets and wrappers around system calls.
 *
 * The interface of the book "Computer Systems: A Programmer's Perspective" by Bryant and
 * O'Hallaron, 3rd edition, written afresh: a program from the book compiles unchanged.
 *
 * Lower case (rio_*, sio_*, open_*) returns the error: it never prints and never ends the
 * program (sio_error, whose purpose that is, excepted). Unless a comment says otherwise the
 * result of a failure is -1 with errno set.
 *
 * Capital = the lower-case function or the system call of that name, with its arguments and
 * results, but a failure ends the program: one line on standard error, exit status 1. So
 * capitals are for start-up and for programs that may die; a server that must outlive a bad
 * client uses lower case. Only what differs from the system's manual is said below.
 *
 * A call interrupted by a signal (EINTR) is taken up again, in lower case and in Capital,
 * except in standard I/O, and where a signal is what one waits for: Pause, Sleep, Sigsuspend.
 */
#ifndef CSAPP_H
#define CSAPP_H

/* gcc -std=c11 hides all but ISO C: ask for POSIX.1-2008 and the old BSD names. */
#ifndef _DEFAULT_SOURCE
#define _DEFAULT_SOURCE
#endif

/* A program from the book includes this header alone, so it brings in what they all use. */
#include <arpa/inet.h>
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SA_RESTART
#error "include csapp.h before any system header: it selects what they declare"
#endif

/* ---- Types and constants ---- */

typedef struct sockaddr SA;     /* for the casts of socket addresses */
typedef void handler_t(int);    /* a signal handler */

#define MAXLINE 8192            /* bytes: a line of text, its NUL included */
#define MAXBUF 8192             /* bytes: an I/O buffer */
#define LISTENQ 1024            /* connections waiting for accept */

/* New files: mode rw-rw-rw-; with this umask, rw-r--r--. */
#define DEF_MODE (S_IRUSR | S_IWUSR | S_IRGRP | S_IWGRP | S_IROTH | S_IWOTH)
#define DEF_UMASK (S_IWGRP | S_IWOTH)

extern char **environ;
#ifndef h_errno                 /* a macro where threads have one each */
extern int h_errno;             /* set by the obsolete name look-ups only */
#endif

/* ---- Errors: say it and exit(1) ---- */

/* glibc has another gai_error, which <netdb.h> declares under _GNU_SOURCE. */
#define gai_error csapp_gai_error

/* Each prints "msg: reason" on standard error, as one line by one write(2), and ends the
 * program. Control characters become spaces; of each part 1000 bytes are kept. */
_Noreturn void unix_error(const char *msg);             /* reason: errno */
_Noreturn void posix_error(int code, const char *msg);  /* code: an errno value returned */
_Noreturn void gai_error(int code, const char *msg);    /* code: getaddrinfo's, getnameinfo's */
_Noreturn void app_error(const char *msg);              /* no reason, msg alone */
_Noreturn void dns_error(const char *msg);              /* reason: h_errno; obsolete */

/* ---- Processes ---- */

pid_t Fork(void);
void Execve(const char *filename, char *const argv[], char *const envp[]);
pid_t Wait(int *status);                /* to have no child is a failure */
pid_t Waitpid(pid_t pid, int *status, int options);
void Kill(pid_t pid, int signum);
void Pause(void);                       /* returns after a handler ran; never fails */
unsigned int Sleep(unsigned int secs);  /* result: seconds not slept; never fails */
unsigned int Alarm(unsigned int secs);  /* result: seconds left of the old one; never fails */
void Setpgid(pid_t pid, pid_t pgid);
pid_t Getpgrp(void);

/* ---- Signals ---- */

/* Installs handler (or SIG_IGN, SIG_DFL) for signum and returns the one before. System calls
 * that it interrupts are restarted (SA_RESTART); only signum is blocked while it runs. */
handler_t *Signal(int signum, handler_t *handler);

void Sigprocmask(int how, const sigset_t *set, sigset_t *oldset);
void Sigemptyset(sigset_t *set);
void Sigfillset(sigset_t *set);
void Sigaddset(sigset_t *set, int signum);
void Sigdelset(sigset_t *set, int signum);
int Sigismember(const sigset_t *set, int signum);
int Sigsuspend(const sigset_t *set);    /* result: -1 with EINTR, after a handler ran */

/* ---- Output from signal handlers: async-signal-safe ---- */

/* sio_puts writes the string s, sio_putl the decimal digits of v, both to standard output
 * and in full. Result: bytes written. errno may change: a handler saves and restores it. */
ssize_t sio_puts(const char *s);
ssize_t sio_putl(long v);

/* Prints s as unix_error does, without a reason, and ends the program by _exit(1). */
_Noreturn void sio_error(const char *s);

/* Capital: a failure ends the program by sio_error, so these are as safe in a handler. */
ssize_t Sio_puts(const char *s);
ssize_t Sio_putl(long v);
_Noreturn void Sio_error(const char *s);

/* ---- Unix I/O ---- */

int Open(const char *pathname, int flags, mode_t mode);
ssize_t Read(int fd, void *buf, size_t count);          /* may be short, as read(2) */
ssize_t Write(int fd, const void *buf, size_t count);   /* may be short, as write(2) */
off_t Lseek(int fd, off_t offset, int whence);
void Close(int fd);
int Dup2(int oldfd, int newfd);
void Stat(const char *pathname, struct stat *st);
void Fstat(int fd, struct stat *st);

/* Taken up again after a signal; where select(2) does not count timeout down (Linux does)
 * it then waits for the whole of it again. */
int Select(int nfds, fd_set *readfds, fd_set *writefds, fd_set *exceptfds,
           struct timeval *timeout);

/* ---- Directories ---- */

DIR *Opendir(const char *name);
struct dirent *Readdir(DIR *dirp);      /* NULL at the end of the directory */
int Closedir(DIR *dirp);

/* ---- Memory ---- */

void *Mmap(void *addr, size_t length, int prot, int flags, int fd, off_t offset);
void Munmap(void *addr, size_t length);

/* The caller owns the result and frees it. Size 0 is no failure, but may give NULL. */
void *Malloc(size_t size);
void *Realloc(void *ptr, size_t size);
void *Calloc(size_t nmemb, size_t size);
void Free(void *ptr);

/* ---- Standard I/O ---- */

FILE *Fopen(const char *pathname, const char *mode);
FILE *Fdopen(int fd, const char *mode);
void Fclose(FILE *stream);
char *Fgets(char *buf, int size, FILE *stream);         /* NULL at end of file */
void Fputs(const char *s, FILE *stream);
size_t Fread(void *buf, size_t size, size_t nmemb, FILE *stream); /* short at end of file */
void Fwrite(const void *buf, size_t size, size_t nmemb, FILE *stream);

/* ---- Sockets ---- */

int Socket(int domain, int type, int protocol);
void Setsockopt(int fd, int level, int optname, const void *optval, socklen_t optlen);
void Bind(int fd, const struct sockaddr *addr, socklen_t addrlen);
void Listen(int fd, int backlog);
void Connect(int fd, const struct sockaddr *addr, socklen_t addrlen);

/* A client that hung up before it was accepted (ECONNABORTED) is passed over. */
int Accept(int fd, struct sockaddr *addr, socklen_t *addrlen);

/* ---- Names and addresses ---- */

/* Freeaddrinfo frees the list that Getaddrinfo stores in *list. */
void Getaddrinfo(const char *host, const char *service, const struct addrinfo *hints,
                 struct addrinfo **list);
void Freeaddrinfo(struct addrinfo *list);
void Getnameinfo(const struct sockaddr *addr, socklen_t addrlen, char *host, socklen_t hostlen,
                 char *service, socklen_t servicelen, int flags);
void Inet_ntop(int family, const void *addr, char *text, socklen_t textlen);
void Inet_pton(int family, const char *text, void *addr); /* text malformed: a failure */

/* Obsolete: IPv4 only, not safe in threads, gone from POSIX. Use Getaddrinfo, Getnameinfo. */
struct hostent *Gethostbyname(const char *name);
struct hostent *Gethostbyaddr(const void *addr, socklen_t addrlen, int family);

/* ---- Threads and semaphores ---- */

void Pthread_create(pthread_t *tid, const pthread_attr_t *attr, void *(*routine)(void *),
                    void *arg);
void Pthread_join(pthread_t tid, void **result);
void Pthread_cancel(pthread_t tid);
void Pthread_detach(pthread_t tid);
_Noreturn void Pthread_exit(void *result);
pthread_t Pthread_self(void);
void Pthread_once(pthread_once_t *once, void (*init)(void));

void Sem_init(sem_t *sem, int pshared, unsigned int value);
void P(sem_t *sem);     /* sem_wait */
void V(sem_t *sem);     /* sem_post */

/* ---- rio: robust I/O ---- */

/* Reads n bytes (at most SSIZE_MAX) into buf, as many read(2) calls as it takes. Result: n,
 * or fewer (down to 0) if the file ended first. After a failure some of buf may be written. */
ssize_t rio_readn(int fd, void *buf, size_t n);

/* Writes the n bytes (at most SSIZE_MAX) at buf. Result: n. After a failure some may be gone.
 * A write(2) that takes nothing is EIO. A peer that hung up raises SIGPIPE if not ignored. */
ssize_t rio_writen(int fd, const void *buf, size_t n);

#define RIO_BUFSIZE 8192        /* bytes */

/* A descriptor with a read buffer. All reading goes through one rio_t: it holds bytes that
 * the descriptor no longer gives. */
typedef struct {
	int rio_fd;
	int rio_cnt;            /* unread bytes in rio_buf */
	char *rio_bufptr;       /* the first of them */
	char rio_buf[RIO_BUFSIZE];
} rio_t;

/* Binds rp to fd, with an empty buffer; unread bytes of an earlier use are forgotten. fd
 * stays the caller's to close. Never fails. */
void rio_readinitb(rio_t *rp, int fd);

/* As rio_readn, through the buffer of rp. */
ssize_t rio_readnb(rio_t *rp, void *buf, size_t n);

/* Reads a line of at most maxlen - 1 bytes, its newline included, and puts a NUL after it; of
 * a longer line the rest stays for the next call. Result: bytes in buf without the NUL; a
 * line may contain NULs, so trust this more than strlen. The last line may lack its newline.
 * 0 at end of file. With maxlen 1 only the NUL fits: result 0, nothing read.
 * maxlen 0 is EINVAL. */
ssize_t rio_readlineb(rio_t *rp, void *buf, size_t maxlen);

ssize_t Rio_readn(int fd, void *buf, size_t n);
void Rio_writen(int fd, const void *buf, size_t n);
void Rio_readinitb(rio_t *rp, int fd);
ssize_t Rio_readnb(rio_t *rp, void *buf, size_t n);
ssize_t Rio_readlineb(rio_t *rp, void *buf, size_t maxlen);

/* ---- Opening connections: TCP over IPv4 and IPv6 ---- */

/* Both take a port as a number from 0 to 65535 or as a service name. Result: a stream socket,
 * close-on-exec, the caller's to close. Failure: -2 if host or port could not be resolved
 * (errno says nothing then), otherwise -1. Nothing stays open after a failure. */

/* Connects to host, a name or a numeric address, trying each of its addresses until one
 * answers. If none does, errno is that of the first, the one the system prefers. */
int open_clientfd(const char *host, const char *port);

/* Listens on port at all addresses of this machine, for IPv6 and IPv4 on one socket, or for
 * IPv4 alone where that cannot be had. Port 0 is any free port: ask getsockname which. The
 * address is reusable at once (SO_REUSEADDR). */
int open_listenfd(const char *port);

int Open_clientfd(const char *host, const char *port);
int Open_listenfd(const char *port);

#endif
