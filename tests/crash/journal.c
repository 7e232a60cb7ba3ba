/* Preloaded into a program: writes down, in order, whatever it does to files below JOURNAL_ROOT.
 *
 * A record is one line of text, `operation\tpath\tother or offset\tlength\n`, and `length` bytes behind it. Paths are those
 * at the moment of the operation, so an open file that is renamed goes on under its new name. All processes append to
 * the file JOURNAL; one write call a record keeps them apart.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(name) *)dlsym(RTLD_NEXT, #name))

static int journal(void) {
    static int opened = -1;
    if (opened < 0) {
        const char *path = getenv("JOURNAL");
        opened = path ? (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600) : -2;
    }
    return opened;
}

static int watched(const char *path) {
    const char *root = getenv("JOURNAL_ROOT");
    return root && path && !strncmp(path, root, strlen(root)) && (path[strlen(root)] == '/' || !path[strlen(root)]);
}

static void record(const char *operation, const char *path, const char *other, const void *data, size_t length) {
    if (!watched(path) || journal() < 0 || strstr(path, " (deleted)")) return;
    int kept = errno;
    char head[2 * PATH_MAX + 64];
    int size = snprintf(head, sizeof head, "%s\t%s\t%s\t%zu\n", operation, path, other, length);
    struct iovec parts[2] = {{head, (size_t)size}, {(void *)data, length}};
    syscall(SYS_writev, journal(), parts, length ? 2 : 1);
    errno = kept;
}

static const char *path_of(int fd, char *buffer) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, buffer, PATH_MAX - 1);
    buffer[size < 0 ? 0 : size] = 0;
    return buffer;
}

static const char *absolute(int folder, const char *path, char *buffer) {
    char base[PATH_MAX];
    if (path[0] == '/') return path;
    if (folder == AT_FDCWD) { if (!getcwd(base, sizeof base)) return path; }
    else path_of(folder, base);
    snprintf(buffer, 2 * PATH_MAX, "%s/%s", base, path);
    return buffer;
}

static void wrote(int fd, const void *data, ssize_t length, off_t offset) {
    char path[PATH_MAX], at[32];
    if (length <= 0 || !watched(path_of(fd, path))) return;
    snprintf(at, sizeof at, "%lld", (long long)offset);
    record("write", path, at, data, (size_t)length);
}

ssize_t write(int fd, const void *data, size_t length) {
    ssize_t done = REAL(write)(fd, data, length);
    if (done > 0 && fd > 2) wrote(fd, data, done, lseek(fd, 0, SEEK_CUR) - done);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t length, off_t offset) {
    ssize_t done = REAL(pwrite64)(fd, data, length, offset);
    wrote(fd, data, done, offset);
    return done;
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return pwrite64(fd, data, length, offset); }

ssize_t writev(int fd, const struct iovec *parts, int count) {
    ssize_t done = REAL(writev)(fd, parts, count), rest = done;
    if (done <= 0 || fd <= 2) return done;
    off_t at = lseek(fd, 0, SEEK_CUR) - done;
    for (int each = 0; each < count && rest > 0; each++) {
        ssize_t length = (ssize_t)parts[each].iov_len < rest ? (ssize_t)parts[each].iov_len : rest;
        wrote(fd, parts[each].iov_base, length, at);
        at += length;
        rest -= length;
    }
    return done;
}

/* Copies inside the kernel would not be seen: whoever tries one falls back to reading and writing. */
ssize_t sendfile64(int out, int in, off64_t *offset, size_t count) { errno = ENOSYS; return -1; }
ssize_t sendfile(int out, int in, off_t *offset, size_t count) { errno = ENOSYS; return -1; }
ssize_t copy_file_range(int in, off64_t *from, int out, off64_t *to, size_t length, unsigned flags) { errno = ENOSYS; return -1; }

static int opened(int fd, int flags) {
    char path[PATH_MAX];
    if (fd < 0 || !(flags & O_CREAT) || (flags & O_TMPFILE) == O_TMPFILE) return fd;
    record(flags & O_TRUNC ? "truncate" : "create", path_of(fd, path), "0", "", 0);
    return fd;
}

#define OPENING(name, ...) \
    mode_t mode = 0; \
    if (flags & O_CREAT) { va_list more; va_start(more, flags); mode = (mode_t)va_arg(more, int); va_end(more); } \
    return opened(REAL(name)(__VA_ARGS__, flags, mode), flags)

int open(const char *path, int flags, ...) { OPENING(open, path); }
int open64(const char *path, int flags, ...) { OPENING(open64, path); }
int openat(int folder, const char *path, int flags, ...) { OPENING(openat, folder, path); }
int openat64(int folder, const char *path, int flags, ...) { OPENING(openat64, folder, path); }

int ftruncate64(int fd, off_t length) {
    char path[PATH_MAX], at[32];
    int done = REAL(ftruncate64)(fd, length);
    snprintf(at, sizeof at, "%lld", (long long)length);
    if (!done) record("truncate", path_of(fd, path), at, "", 0);
    return done;
}
int ftruncate(int fd, off_t length) { return ftruncate64(fd, length); }

int fsync(int fd) {
    char path[PATH_MAX];
    int done = REAL(fsync)(fd);
    if (!done) record("sync", path_of(fd, path), "", "", 0);
    return done;
}
int fdatasync(int fd) {
    char path[PATH_MAX];
    int done = REAL(fdatasync)(fd);
    if (!done) record("sync", path_of(fd, path), "", "", 0);
    return done;
}

int renameat(int from, const char *old, int to, const char *new) {
    char one[2 * PATH_MAX], other[2 * PATH_MAX];
    const char *before = absolute(from, old, one);
    int done = REAL(renameat)(from, old, to, new);
    if (!done) record("rename", before, absolute(to, new, other), "", 0);
    return done;
}
int rename(const char *old, const char *new) { return renameat(AT_FDCWD, old, AT_FDCWD, new); }

int linkat(int from, const char *old, int to, const char *new, int flags) {
    char one[2 * PATH_MAX], other[2 * PATH_MAX];
    int done = REAL(linkat)(from, old, to, new, flags);
    if (!done) record("link", absolute(from, old, one), absolute(to, new, other), "", 0);
    return done;
}
int link(const char *old, const char *new) { return linkat(AT_FDCWD, old, AT_FDCWD, new, 0); }

int symlinkat(const char *target, int folder, const char *path) {
    char whole[2 * PATH_MAX];
    int done = REAL(symlinkat)(target, folder, path);
    if (!done) record("symlink", absolute(folder, path, whole), target, "", 0);
    return done;
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }

int unlinkat(int folder, const char *path, int flags) {
    char whole[2 * PATH_MAX];
    const char *gone = absolute(folder, path, whole);
    int done = REAL(unlinkat)(folder, path, flags);
    if (!done) record("remove", gone, "", "", 0);
    return done;
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdirat(int folder, const char *path, mode_t mode) {
    char whole[2 * PATH_MAX];
    int done = REAL(mkdirat)(folder, path, mode);
    if (!done) record("mkdir", absolute(folder, path, whole), "", "", 0);
    return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }
