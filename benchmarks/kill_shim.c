/* Faults at the n-th file operation of a process, for benchmarks.kill. Loaded by LD_PRELOAD, armed by a call.

   Counted: what changes files below `root`: write, fsync, rename, unlink, mkdir, truncate, the creation of a file, and
   their relatives. Operations elsewhere pass and are not counted. Linux and glibc (or musl) only. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { COUNT, KILL, TORN, EIO_ONCE, EIO_ON, ENOSPC_ON };
enum { GO, HALF, AFTER }; /* what decide() says: do it; do half of it and die; do it and die */

static char root[PATH_MAX];
static size_t root_length;
static int kind = COUNT;
static long at = 0;
static atomic_long done = 0;

/* Count operations below `folder` from here on; with the at-th of them, counted from 1, something happens. */
void fault_arm(const char *folder, int what, long number)
{
    root_length = strlen(folder);
    memcpy(root, folder, root_length + 1);
    kind = what;
    at = number;
    atomic_store(&done, 0);
}

void fault_disarm(void) { root_length = 0; }

long fault_count(void) { return atomic_load(&done); }

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static int below(const char *path)
{
    return root_length && !strncmp(path, root, root_length) && (path[root_length] == '/' || !path[root_length]);
}

static int fd_below(int fd)
{
    char link[64], path[PATH_MAX];
    if (!root_length) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return below(path);
}

static int at_below(int folder, const char *path)
{
    char here[PATH_MAX];
    if (!root_length || !path) return 0;
    if (path[0] == '/') return below(path);
    if (folder != AT_FDCWD) return fd_below(folder);
    return getcwd(here, sizeof here) && below(here);
}

static void die(void)
{
    kill(getpid(), SIGKILL);
    for (;;) pause();
}

/* Count one operation. Returns GO, HALF or AFTER; -1 with errno set when it must fail. */
static int decide(int takes_room)
{
    long number = atomic_fetch_add(&done, 1) + 1;
    if (kind == COUNT || number < at) return GO;
    if (kind == ENOSPC_ON && takes_room) {
        if (number == at) return HALF;
        errno = ENOSPC;
        return -1;
    }
    if (kind == EIO_ON || (kind == EIO_ONCE && number == at)) {
        errno = EIO;
        return -1;
    }
    if (number != at) return GO;
    if (kind == KILL) die();
    return kind == TORN ? AFTER : GO;
}

/* What is written half before a kill, or before the disk is full; at least one byte, so that it is torn. */
static size_t half(size_t bytes) { return bytes > 1 ? bytes / 2 : bytes; }

#define SIMPLE(condition, takes_room, call) \
    if (!(condition)) return call; \
    int say = decide(takes_room); \
    if (say < 0) return -1; \
    if (say == HALF) { errno = ENOSPC; return -1; } \
    __typeof__(call) result = call; \
    if (say == AFTER) die(); \
    return result

#define WRITING(fd, bytes, call_half, call) \
    if (!fd_below(fd)) return call; \
    int say = decide(1); \
    if (say < 0) return -1; \
    if (say == GO) return call; \
    ssize_t result = call_half; \
    if (say == AFTER) die(); \
    return result

ssize_t write(int fd, const void *data, size_t bytes)
{
    REAL(write);
    WRITING(fd, bytes, real(fd, data, half(bytes)), real(fd, data, bytes));
}

ssize_t pwrite(int fd, const void *data, size_t bytes, off_t where)
{
    REAL(pwrite);
    WRITING(fd, bytes, real(fd, data, half(bytes), where), real(fd, data, bytes, where));
}

ssize_t pwrite64(int fd, const void *data, size_t bytes, off64_t where)
{
    REAL(pwrite64);
    WRITING(fd, bytes, real(fd, data, half(bytes), where), real(fd, data, bytes, where));
}

ssize_t writev(int fd, const struct iovec *data, int count)
{
    REAL(writev);
    WRITING(fd, count, real(fd, data, 1), real(fd, data, count));
}

ssize_t sendfile(int fd, int from, off_t *where, size_t bytes)
{
    REAL(sendfile);
    WRITING(fd, bytes, real(fd, from, where, half(bytes)), real(fd, from, where, bytes));
}

ssize_t sendfile64(int fd, int from, off64_t *where, size_t bytes)
{
    REAL(sendfile64);
    WRITING(fd, bytes, real(fd, from, where, half(bytes)), real(fd, from, where, bytes));
}

ssize_t copy_file_range(int from, off64_t *from_where, int fd, off64_t *where, size_t bytes, unsigned flags)
{
    REAL(copy_file_range);
    WRITING(fd, bytes, real(from, from_where, fd, where, half(bytes), flags),
            real(from, from_where, fd, where, bytes, flags));
}

int fsync(int fd)
{
    REAL(fsync);
    SIMPLE(fd_below(fd), 0, real(fd));
}

int fdatasync(int fd)
{
    REAL(fdatasync);
    SIMPLE(fd_below(fd), 0, real(fd));
}

int ftruncate(int fd, off_t bytes)
{
    REAL(ftruncate);
    SIMPLE(fd_below(fd), 0, real(fd, bytes));
}

int ftruncate64(int fd, off64_t bytes)
{
    REAL(ftruncate64);
    SIMPLE(fd_below(fd), 0, real(fd, bytes));
}

int rename(const char *from, const char *to)
{
    REAL(rename);
    SIMPLE(at_below(AT_FDCWD, to), 0, real(from, to));
}

int renameat(int from_folder, const char *from, int folder, const char *to)
{
    REAL(renameat);
    SIMPLE(at_below(folder, to), 0, real(from_folder, from, folder, to));
}

int renameat2(int from_folder, const char *from, int folder, const char *to, unsigned flags)
{
    REAL(renameat2);
    SIMPLE(at_below(folder, to), 0, real(from_folder, from, folder, to, flags));
}

int link(const char *from, const char *to)
{
    REAL(link);
    SIMPLE(at_below(AT_FDCWD, to), 1, real(from, to));
}

int unlink(const char *path)
{
    REAL(unlink);
    SIMPLE(at_below(AT_FDCWD, path), 0, real(path));
}

int unlinkat(int folder, const char *path, int flags)
{
    REAL(unlinkat);
    SIMPLE(at_below(folder, path), 0, real(folder, path, flags));
}

int rmdir(const char *path)
{
    REAL(rmdir);
    SIMPLE(at_below(AT_FDCWD, path), 0, real(path));
}

int mkdir(const char *path, mode_t mode)
{
    REAL(mkdir);
    SIMPLE(at_below(AT_FDCWD, path), 1, real(path, mode));
}

int mkdirat(int folder, const char *path, mode_t mode)
{
    REAL(mkdirat);
    SIMPLE(at_below(folder, path), 1, real(folder, path, mode));
}

/* Only an open that may create a file is counted. */
#define OPENING(folder, path, call) \
    mode_t mode = 0; \
    if (flags & O_CREAT) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    } \
    SIMPLE((flags & O_CREAT) && at_below(folder, path), 1, call)

int open(const char *path, int flags, ...)
{
    REAL(open);
    OPENING(AT_FDCWD, path, real(path, flags, mode));
}

int open64(const char *path, int flags, ...)
{
    REAL(open64);
    OPENING(AT_FDCWD, path, real(path, flags, mode));
}

int openat(int folder, const char *path, int flags, ...)
{
    REAL(openat);
    OPENING(folder, path, real(folder, path, flags, mode));
}

int openat64(int folder, const char *path, int flags, ...)
{
    REAL(openat64);
    OPENING(folder, path, real(folder, path, flags, mode));
}
