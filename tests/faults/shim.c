/* Fail, shorten, stop or kill at the Nth file operation of a process. Loaded by LD_PRELOAD; inactive until fault_arm().

   Only operations on paths below `under` count, and of those only the ones whose path contains `match`. Every process
   that calls fault_fresh() gets a page of its own, which it shares with the children that it forks later: the parent
   fills it in, the child arms itself, the parent reads the counts. */

#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN, CREATE, READ, WRITE, FSYNC, LINK, RENAME, UNLINK, MKDIR, LIST, CLOSE, TRUNCATE, CHMOD, LOCK, STAT, THREAD, OPS };
enum { COUNT, ERRNO, SHORT, KILL, KILL_AFTER, STOP };

struct state {
    int op, action, error, sticky;
    long nth;
    long foreign_uid;
    char under[512], match[128], foreign[128];
    /* results */
    long counts[OPS];
    long matched, fired, connections, logged;
    char fired_at[512], connected_to[128];
    char log[1 << 18]; /* a letter for the operation, and the path, per line */
};

static struct state *state;
static int active;

struct state *fault_fresh(void) {
    state = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    return state;
}

void fault_arm(int on) { active = on; }

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

/* The path of a descriptor; 0 where it has none. */
static int path_of(int fd, char *path, size_t size) {
    char name[64];
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    static ssize_t (*real)(const char *, char *, size_t);
    if (!real) real = dlsym(RTLD_NEXT, "readlink");
    int saved = errno;
    ssize_t length = real(name, path, size - 1);
    errno = saved;
    if (length <= 0) return 0;
    path[length] = 0;
    return path[0] == '/';
}

static int concerns(int folder, const char *path, char *whole, size_t size) {
    if (!active || !state || !path) return 0;
    if (path[0] != '/' && folder != AT_FDCWD) {
        char at[512];
        if (!path_of(folder, at, sizeof at)) return 0;
        snprintf(whole, size, "%s/%s", at, path);
    } else if (path[0] != '/') {
        snprintf(whole, size, "%s/%s", state->under, path);
    } else {
        snprintf(whole, size, "%s", path);
    }
    return strncmp(whole, state->under, strlen(state->under)) == 0;
}

static void note(int op, const char *whole) {
    long size = strlen(whole) + 2, at = __sync_fetch_and_add(&state->logged, size);
    if (at + size >= (long)sizeof state->log) return;
    state->log[at] = 'a' + op;
    memcpy(state->log + at + 1, whole, size - 2);
    state->log[at + size - 1] = '\n';
}

/* What to do at an operation: 0 go on, 1 fail with errno set, 2 go on but shortened, 3 go on and die. */
static int decide(int op, const char *whole) {
    __sync_fetch_and_add(&state->counts[op], 1);
    if (state->action == COUNT) note(op, whole);
    if (op != state->op || !strstr(whole, state->match)) return 0;
    long number = __sync_add_and_fetch(&state->matched, 1);
    if (!(number == state->nth || (state->sticky && number > state->nth && state->nth))) return 0;
    if (state->action == COUNT) return 0;
    if (!__sync_fetch_and_add(&state->fired, 1)) snprintf(state->fired_at, sizeof state->fired_at, "%s", whole);
    switch (state->action) {
    case ERRNO: errno = state->error; return 1;
    case SHORT: return 2;
    case KILL: kill(getpid(), SIGKILL); return 0;
    case KILL_AFTER: return 3;
    default: kill(getpid(), SIGSTOP); return 0;
    }
}

static int at_path(int op, int folder, const char *path) {
    char whole[1024];
    return concerns(folder, path, whole, sizeof whole) ? decide(op, whole) : 0;
}

static int at_fd(int op, int fd) {
    char path[512], whole[1024];
    if (!active || !state || fd <= 2 || !path_of(fd, path, sizeof path)) return 0;
    return concerns(AT_FDCWD, path, whole, sizeof whole) ? decide(op, whole) : 0;
}

#define FINISH(type, call) \
    do { type result = (call); if (what == 3) kill(getpid(), SIGKILL); return result; } while (0)

static int opening(int flags) { return (flags & (O_CREAT | O_TRUNC)) || (flags & O_ACCMODE) != O_RDONLY ? CREATE : OPEN; }

#define OPENING(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name); \
        va_list list; va_start(list, flags); mode_t mode = va_arg(list, mode_t); va_end(list); \
        int what = at_path(opening(flags), AT_FDCWD, path); \
        if (what == 1) return -1; \
        FINISH(int, real(path, flags, mode)); \
    }
OPENING(open)
OPENING(open64)

#define OPENING_AT(name) \
    int name(int folder, const char *path, int flags, ...) { \
        REAL(name); \
        va_list list; va_start(list, flags); mode_t mode = va_arg(list, mode_t); va_end(list); \
        int what = at_path(opening(flags), folder, path); \
        if (what == 1) return -1; \
        FINISH(int, real(folder, path, flags, mode)); \
    }
OPENING_AT(openat)
OPENING_AT(openat64)

#define FORTIFIED(name, plain) int name(const char *path, int flags) { return plain(path, flags, 0); }
FORTIFIED(__open_2, open)
FORTIFIED(__open64_2, open64)

#define FOPENING(name) \
    FILE *name(const char *path, const char *mode) { \
        REAL(name); \
        int what = at_path(mode[0] == 'r' && !strchr(mode, '+') ? OPEN : CREATE, AT_FDCWD, path); \
        if (what == 1) return NULL; \
        FINISH(FILE *, real(path, mode)); \
    }
FOPENING(fopen)
FOPENING(fopen64)

#define ON_FD(op, type, name, parameters, arguments, shorter) \
    type name parameters { \
        REAL(name); \
        int what = at_fd(op, fd); \
        if (what == 1) return -1; \
        if (what == 2) { shorter; } \
        FINISH(type, real arguments); \
    }
ON_FD(READ, ssize_t, read, (int fd, void *data, size_t size), (fd, data, size), if (size > 1) size /= 2)
ON_FD(READ, ssize_t, pread64, (int fd, void *data, size_t size, off64_t at), (fd, data, size, at), if (size > 1) size /= 2)
ON_FD(WRITE, ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size), if (size > 1) size /= 2)
ON_FD(WRITE, ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at), if (size > 1) size /= 2)
ON_FD(WRITE, ssize_t, writev, (int fd, const struct iovec *parts, int count), (fd, parts, count), if (count > 1) count = 1)
ON_FD(FSYNC, int, fsync, (int fd), (fd), )
ON_FD(FSYNC, int, fdatasync, (int fd), (fd), )
ON_FD(TRUNCATE, int, ftruncate, (int fd, off_t size), (fd, size), )
ON_FD(TRUNCATE, int, ftruncate64, (int fd, off64_t size), (fd, size), )
ON_FD(TRUNCATE, int, posix_fallocate, (int fd, off_t at, off_t size), (fd, at, size), )
ON_FD(CHMOD, int, fchmod, (int fd, mode_t mode), (fd, mode), )
ON_FD(CHMOD, int, futimens, (int fd, const struct timespec times[2]), (fd, times), )
ON_FD(LOCK, int, flock, (int fd, int how), (fd, how), )

int close(int fd) {
    REAL(close);
    int what = at_fd(CLOSE, fd);
    int result = real(fd); /* the descriptor is gone also where close fails */
    if (what == 1) { errno = state->error; return -1; }
    if (what == 3) kill(getpid(), SIGKILL);
    return result;
}

ssize_t sendfile64(int fd, int from, off64_t *at, size_t size) {
    REAL(sendfile64);
    int what = at_fd(WRITE, fd);
    if (what == 1) return -1;
    FINISH(ssize_t, real(fd, from, at, what == 2 && size > 1 ? size / 2 : size));
}

ssize_t copy_file_range(int from, off64_t *at, int fd, off64_t *to, size_t size, unsigned flags) {
    REAL(copy_file_range);
    int what = at_fd(WRITE, fd);
    if (what == 1) return -1;
    FINISH(ssize_t, real(from, at, fd, to, what == 2 && size > 1 ? size / 2 : size, flags));
}

#define ON_PATH(op, name, parameters, arguments, folder, path) \
    int name parameters { \
        REAL(name); \
        int what = at_path(op, folder, path); \
        if (what == 1) return -1; \
        FINISH(int, real arguments); \
    }
ON_PATH(LINK, link, (const char *from, const char *to), (from, to), AT_FDCWD, to)
ON_PATH(LINK, linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags), b, to)
ON_PATH(LINK, symlink, (const char *from, const char *to), (from, to), AT_FDCWD, to)
ON_PATH(RENAME, rename, (const char *from, const char *to), (from, to), AT_FDCWD, to)
ON_PATH(RENAME, renameat, (int a, const char *from, int b, const char *to), (a, from, b, to), b, to)
ON_PATH(RENAME, renameat2, (int a, const char *from, int b, const char *to, unsigned flags), (a, from, b, to, flags), b, to)
ON_PATH(UNLINK, unlink, (const char *path), (path), AT_FDCWD, path)
ON_PATH(UNLINK, unlinkat, (int a, const char *path, int flags), (a, path, flags), a, path)
ON_PATH(UNLINK, rmdir, (const char *path), (path), AT_FDCWD, path)
ON_PATH(MKDIR, mkdir, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path)
ON_PATH(MKDIR, mkdirat, (int a, const char *path, mode_t mode), (a, path, mode), a, path)
ON_PATH(TRUNCATE, truncate, (const char *path, off_t size), (path, size), AT_FDCWD, path)
ON_PATH(CHMOD, chmod, (const char *path, mode_t mode), (path, mode), AT_FDCWD, path)
ON_PATH(CHMOD, utimensat, (int a, const char *path, const struct timespec times[2], int flags), (a, path, times, flags), a, path)

DIR *opendir(const char *path) {
    REAL(opendir);
    if (at_path(LIST, AT_FDCWD, path) == 1) return NULL;
    return real(path);
}

DIR *fdopendir(int fd) {
    REAL(fdopendir);
    if (at_fd(LIST, fd) == 1) return NULL;
    return real(fd);
}

/* Owners: whatever has `foreign` in its path belongs to somebody else. */

#define FOREIGN(found, uid, whole) \
    if (state->foreign[0] && strstr(whole, state->foreign)) (found)->uid = (unsigned)state->foreign_uid

#define STATTING(name, type, parameters, arguments, folder, path) \
    int name parameters { \
        REAL(name); \
        char whole[1024]; \
        int ours = concerns(folder, path, whole, sizeof whole); \
        if (ours && decide(STAT, whole) == 1) return -1; \
        int result = real arguments; \
        if (ours && result == 0) FOREIGN(found, st_uid, whole); \
        return result; \
    }
STATTING(stat, struct stat, (const char *path, struct stat *found), (path, found), AT_FDCWD, path)
STATTING(stat64, struct stat64, (const char *path, struct stat64 *found), (path, found), AT_FDCWD, path)
STATTING(lstat, struct stat, (const char *path, struct stat *found), (path, found), AT_FDCWD, path)
STATTING(lstat64, struct stat64, (const char *path, struct stat64 *found), (path, found), AT_FDCWD, path)
STATTING(fstatat, struct stat, (int a, const char *path, struct stat *found, int flags), (a, path, found, flags), a, path)
STATTING(fstatat64, struct stat64, (int a, const char *path, struct stat64 *found, int flags), (a, path, found, flags), a, path)

#define FSTATTING(name, type) \
    int name(int fd, type *found) { \
        REAL(name); \
        int result = real(fd, found); \
        char path[512]; \
        if (result == 0 && active && state && state->foreign[0] && path_of(fd, path, sizeof path)) FOREIGN(found, st_uid, path); \
        return result; \
    }
FSTATTING(fstat, struct stat)
FSTATTING(fstat64, struct stat64)

int statx(int a, const char *path, int flags, unsigned mask, struct statx *found) {
    REAL(statx);
    char whole[1024];
    int ours = concerns(a, path, whole, sizeof whole);
    int result = real(a, path, flags, mask, found);
    if (ours && result == 0) FOREIGN(found, stx_uid, whole);
    return result;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *how, void *(*start)(void *), void *with) {
    REAL(pthread_create);
    if (active && state && decide(THREAD, state->under) == 1) return EAGAIN;
    return real(thread, how, start, with);
}

/* No trial needs the network: what asks for it is noted, and gets nothing. */

static void noted(const char *name) {
    if (state) {
        __sync_fetch_and_add(&state->connections, 1);
        snprintf(state->connected_to, sizeof state->connected_to, "%s", name);
    }
}

int connect(int fd, const struct sockaddr *to, socklen_t size) {
    REAL(connect);
    if (active && to && (to->sa_family == AF_INET || to->sa_family == AF_INET6)) {
        noted("connect");
        errno = ENETUNREACH;
        return -1;
    }
    return real(fd, to, size);
}

ssize_t sendto(int fd, const void *data, size_t length, int flags, const struct sockaddr *to, socklen_t size) {
    REAL(sendto);
    if (active && to && (to->sa_family == AF_INET || to->sa_family == AF_INET6)) {
        noted("sendto");
        errno = ENETUNREACH;
        return -1;
    }
    return real(fd, data, length, flags, to, size);
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints, struct addrinfo **found) {
    REAL(getaddrinfo);
    if (active) {
        noted(node ? node : "getaddrinfo");
        return EAI_FAIL;
    }
    return real(node, service, hints, found);
}
