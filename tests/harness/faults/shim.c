/* Preloaded into a program: makes its disk fail or slow, as a control file says.
 *
 * In: WEIR_SHIM names a file of five 64-bit numbers, shared in memory:
 *   0 mode     0 nothing, 1 EIO once at the next fsync, 2 EIO at every fsync, 3 every fsync takes `delay` ms longer,
 *              4 ENOSPC at every write
 *   1 delay    ms
 *   2 inside   fsyncs going on now
 *   3 done     fsyncs that ended well
 *   4 failed   calls that were made to fail
 * Only files below WEIR_SHIM_DIR are hurt. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

enum { MODE, DELAY, INSIDE, DONE, FAILED, WORDS };
static _Atomic uint64_t *control;
static const char *below;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("WEIR_SHIM");
    below = getenv("WEIR_SHIM_DIR");
    int fd = path && below ? open(path, O_RDWR) : -1;
    if (fd < 0) return;
    void *at = mmap(NULL, WORDS * sizeof(uint64_t), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (at != MAP_FAILED) control = at;
}

static int concerns(int fd) {
    char link[64], path[4096];
    if (!control) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strncmp(path, below, strlen(below)) == 0;
}

static int synced(int fd, const char *name) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    if (!concerns(fd)) return real(fd);
    uint64_t once = 1;
    if (control[MODE] == 2 || atomic_compare_exchange_strong(&control[MODE], &once, 0)) {
        control[FAILED]++;
        errno = EIO;
        return -1;
    }
    control[INSIDE]++;
    if (control[MODE] == 3) {
        uint64_t ms = control[DELAY];
        struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
        nanosleep(&pause, NULL);
    }
    int result = real(fd);
    control[INSIDE]--;
    if (result == 0) control[DONE]++;
    return result;
}

int fsync(int fd) { return synced(fd, "fsync"); }
int fdatasync(int fd) { return synced(fd, "fdatasync"); }

static int full(int fd) {
    if (!concerns(fd) || control[MODE] != 4) return 0;
    control[FAILED]++;
    errno = ENOSPC;
    return 1;
}

ssize_t write(int fd, const void *data, size_t count) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    return full(fd) ? -1 : real(fd, data, count);
}

static ssize_t written_at(int fd, const void *data, size_t count, off_t at) {
    static ssize_t (*real)(int, const void *, size_t, off_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t, off_t))dlsym(RTLD_NEXT, "pwrite64");
    return full(fd) ? -1 : real(fd, data, count, at);
}
ssize_t pwrite(int fd, const void *data, size_t count, off_t at) { return written_at(fd, data, count, at); }
ssize_t pwrite64(int fd, const void *data, size_t count, off_t at) { return written_at(fd, data, count, at); }
