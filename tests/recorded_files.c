/* Preloaded into a process: notes what it does to files below RECORDED_ROOT in RECORDED_TO, each call that
 * succeeded with its bytes. `recorded_files.py` reads it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static int record_fd = -1;
static const char *root;

__attribute__((constructor)) static void begin(void) {
    root = getenv("RECORDED_ROOT");
    int fd = open(getenv("RECORDED_TO"), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
    record_fd = fcntl(fd, F_DUPFD_CLOEXEC, 500);
    close(fd);
}

static int is_below(const char *path) {
    size_t length = root ? strlen(root) : 0;
    return record_fd >= 0 && length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static void put(char kind, const char *path, uint64_t a, uint64_t b, const struct iovec *parts, int count, size_t size) {
    struct iovec all[IOV_MAX];
    struct { char kind, zero[3]; uint32_t path_length, size, unused; uint64_t a, b; } head =
        {kind, {0}, strlen(path), size, 0, a, b};
    int used = 2;
    all[0] = (struct iovec){&head, sizeof head};
    all[1] = (struct iovec){(void *)path, head.path_length};
    for (int i = 0; i < count && size && used < IOV_MAX; i++) {
        size_t length = parts[i].iov_len < size ? parts[i].iov_len : size;
        all[used++] = (struct iovec){parts[i].iov_base, length};
        size -= length;
    }
    ssize_t expected = sizeof head + head.path_length + head.size;
    if (size || syscall(SYS_writev, record_fd, all, used) != expected) abort();
}

static int path_of(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
    return length > 0 && is_below(path);
}

static int path_at(int directory, const char *name, char *path) {
    char base[PATH_MAX] = "";
    if (name[0] == '/') base[0] = 0;
    else if (directory == AT_FDCWD) { if (!getcwd(base, sizeof base)) return 0; }
    else path_of(directory, base);
    snprintf(path, PATH_MAX, name[0] == '/' ? "%s%s" : "%s/%s", base, name);
    return is_below(path);
}

static ssize_t wrote(int fd, const struct iovec *parts, int count, off_t offset, int flags, ssize_t done) {
    char path[PATH_MAX];
    int error = errno;
    if (done > 0 && path_of(fd, path)) {
        int durable = (fcntl(fd, F_GETFL) & O_DSYNC) || (flags & (RWF_DSYNC | RWF_SYNC));
        put('W', path, offset >= 0 ? offset : lseek(fd, 0, SEEK_CUR) - done, durable, parts, count, done);
    }
    errno = error;
    return done;
}

#define PARTS(buffer, size) ((struct iovec[]){{(void *)(buffer), (size)}})
ssize_t write(int fd, const void *buffer, size_t size) {
    return wrote(fd, PARTS(buffer, size), 1, -1, 0, syscall(SYS_write, fd, buffer, size));
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    return wrote(fd, parts, count, -1, 0, syscall(SYS_writev, fd, parts, count));
}
ssize_t pwrite64(int fd, const void *buffer, size_t size, off_t at) {
    return wrote(fd, PARTS(buffer, size), 1, at, 0, syscall(SYS_pwrite64, fd, buffer, size, at));
}
ssize_t pwrite(int fd, const void *buffer, size_t size, off_t at) { return pwrite64(fd, buffer, size, at); }
ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    return wrote(fd, parts, count, at, flags, syscall(SYS_pwritev2, fd, parts, count, at, 0L, flags));
}
ssize_t pwritev2(int fd, const struct iovec *parts, int count, off_t at, int flags) {
    return pwritev64v2(fd, parts, count, at, flags);
}
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) {
    return pwritev64v2(fd, parts, count, at, 0);
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    return pwritev64v2(fd, parts, count, at, 0);
}

static int changed(int fd, char kind, uint64_t a, uint64_t b, int status) {
    char path[PATH_MAX];
    int error = errno;
    if (status == 0 && path_of(fd, path)) put(kind, path, a, b, 0, 0, 0);
    errno = error;
    return status;
}
int fsync(int fd) { return changed(fd, 'S', 0, 0, syscall(SYS_fsync, fd)); }
int fdatasync(int fd) { return changed(fd, 'S', 0, 0, syscall(SYS_fdatasync, fd)); }
int ftruncate64(int fd, off_t size) { return changed(fd, 'T', size, 0, syscall(SYS_ftruncate, fd, size)); }
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int posix_fallocate64(int fd, off_t at, off_t size) {
    int status = changed(fd, 'A', at, size, syscall(SYS_fallocate, fd, 0, at, size));
    return status ? errno : 0;
}
int posix_fallocate(int fd, off_t at, off_t size) { return posix_fallocate64(fd, at, size); }

static int opened(int directory, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    int is_ours = path_at(directory, name, path);
    int was_there = is_ours && syscall(SYS_faccessat, directory, name, F_OK) == 0;
    int fd = syscall(SYS_openat, directory, name, flags, mode);
    int error = errno;
    if (fd >= 0 && is_ours && (flags & O_CREAT) && !was_there) put('O', path, flags, 0, 0, 0, 0);
    if (fd >= 0 && is_ours && (flags & O_TRUNC) && was_there) put('T', path, 0, 0, 0, 0, 0);
    errno = error;
    return fd;
}
#define MODE mode_t mode = 0; if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, mode_t); va_end(rest); }
int open64(const char *name, int flags, ...) { MODE return opened(AT_FDCWD, name, flags | O_LARGEFILE, mode); }
int open(const char *name, int flags, ...) { MODE return opened(AT_FDCWD, name, flags, mode); }
int openat64(int directory, const char *name, int flags, ...) { MODE return opened(directory, name, flags | O_LARGEFILE, mode); }
int openat(int directory, const char *name, int flags, ...) { MODE return opened(directory, name, flags, mode); }

static int named(int directory, const char *name, char kind, int status) {
    char path[PATH_MAX];
    int error = errno;
    if (status == 0 && path_at(directory, name, path)) put(kind, path, 0, 0, 0, 0, 0);
    errno = error;
    return status;
}
int mkdirat(int directory, const char *name, mode_t mode) {
    return named(directory, name, 'K', syscall(SYS_mkdirat, directory, name, mode));
}
int mkdir(const char *name, mode_t mode) { return mkdirat(AT_FDCWD, name, mode); }
int unlinkat(int directory, const char *name, int flags) {
    return named(directory, name, flags & AT_REMOVEDIR ? 'D' : 'U', syscall(SYS_unlinkat, directory, name, flags));
}
int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }
int renameat2(int from, const char *source, int to, const char *target, unsigned flags) {
    char before[PATH_MAX], after[PATH_MAX];
    int is_ours = path_at(from, source, before) | path_at(to, target, after);
    int status = syscall(SYS_renameat2, from, source, to, target, flags), error = errno;
    if (status == 0 && is_ours) put('R', before, 0, 0, PARTS(after, strlen(after)), 1, strlen(after));
    errno = error;
    return status;
}
int renameat(int from, const char *source, int to, const char *target) { return renameat2(from, source, to, target, 0); }
int rename(const char *source, const char *target) { return renameat2(AT_FDCWD, source, AT_FDCWD, target, 0); }

void *mmap64(void *where, size_t size, int protection, int flags, int fd, off_t at) {
    void *mapped = (void *)syscall(SYS_mmap, where, size, protection, flags, fd, at);
    char path[PATH_MAX];
    int error = errno;
    if (mapped != MAP_FAILED && (protection & PROT_WRITE) && (flags & MAP_SHARED) && fd >= 0 && path_of(fd, path))
        put('M', path, 0, 0, 0, 0, 0);
    errno = error;
    return mapped;
}
void *mmap(void *where, size_t size, int protection, int flags, int fd, off_t at) {
    return mmap64(where, size, protection, flags, fd, at);
}
