/* confine.c - confinement by Landlock (landlock(7)). The serving parent prepares it, and
 * each of its children then needs two system calls; the tracker confines itself. Children
 * that inherited one from the parent would save 9 us. But processes in the same confinement
 * may signal and trace each other.
 *
 * A seccomp filter would leave less: no UDP, no Unix sockets, no chmod. The parent needs
 * what it would refuse, so each child would have to put it on, which takes 22 us. A client costs
 * 100 to 250 us in all. */
#define _GNU_SOURCE
#include "base/confine.h"

#include <stdint.h>
#include <unistd.h>
#if defined(__linux__) && !defined(PORTABLE)
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

/* The kernel's interface, which is the same on all architectures. The headers of the
 * libc are not used: they may be older than the kernel. */
enum { CREATE_RULESET = 444, ADD_RULE = 445, RESTRICT_SELF = 446 };
enum { ASK_VERSION = 1, RULE_PATH_BENEATH = 1 };
#define READ_FILE (UINT64_C(1) << 2)

struct ruleset {
	uint64_t files, net, scoped;	/* rights that are refused without a rule */
};

struct __attribute__((packed)) path_rule {
	uint64_t allowed;
	int32_t fd;
};

/* What each version of Landlock can refuse. */
static size_t refuse_all(struct ruleset *r, long version)
{
	static const unsigned file_rights[] = {0, 13, 14, 15, 15, 16};
	unsigned rights = file_rights[version < 5 ? version : 5];

	r->files = (UINT64_C(1) << rights) - 1;
	r->net = version >= 4 ? 3 : 0;		/* bind and connect, TCP */
	r->scoped = version >= 6 ? 3 : 0;	/* abstract sockets, signals */
	return version >= 6 ? 24 : version >= 4 ? 16 : 8;
}

int confine_prepare(const int files[], size_t count)
{
	struct ruleset ruleset;
	long version = syscall(CREATE_RULESET, NULL, (size_t)0, ASK_VERSION);

	if (version < 1 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -1;
	size_t size = refuse_all(&ruleset, version);
	int fd = (int)syscall(CREATE_RULESET, &ruleset, size, 0);
	for (size_t i = 0; fd >= 0 && i < count; i++) {
		struct path_rule rule = {.allowed = READ_FILE, .fd = files[i]};
		if (syscall(ADD_RULE, fd, RULE_PATH_BENEATH, &rule, 0) < 0) {
			close(fd);
			fd = -1;
		}
	}
	return fd;
}

int confine_self(int confinement)
{
	if (confinement < 0)
		return 0;
	if (syscall(RESTRICT_SELF, confinement, 0) < 0)
		return -1;
	close(confinement);
	setrlimit(RLIMIT_NPROC, &(struct rlimit){0});	/* less is always allowed */
	return 0;
}

#else

int confine_prepare(const int files[], size_t count)
{
	(void)files;
	(void)count;
	return -1;
}

int confine_self(int confinement)
{
	(void)confinement;
	return 0;
}

#endif
