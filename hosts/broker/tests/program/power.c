/* Logs what a program writes to files and sockets, and when it syncs files. It is preloaded;
   POWER_LOG names the log, and POWER_DIRECTORY the directory of the files.

   A record is a kind, a file or socket (8 bytes), an offset (8), a length (4), and data:
     W write to a file   T new length of a file (the offset)   N output of a socket
     B begin of a sync   S end of a sync, with the tree: "id path\n", 0 for a directory */

#define _GNU_SOURCE
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static int log_file = -1;
static char listing[1 << 20];
static size_t listed;

static void record(char kind, uint64_t id, uint64_t offset, const struct iovec *parts, int count,
                   size_t length) {
    char header[21];
    uint32_t size = length;
    header[0] = kind;
    memcpy(header + 1, &id, 8);
    memcpy(header + 9, &offset, 8);
    memcpy(header + 17, &size, 4);
    if (log_file < 0)
        log_file = syscall(SYS_openat, AT_FDCWD, getenv("POWER_LOG"),
                           O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (syscall(SYS_write, log_file, header, sizeof header) < 0) abort();
    for (int i = 0; i < count && length > 0; i++) {
        size_t part = parts[i].iov_len < length ? parts[i].iov_len : length;
        if (syscall(SYS_write, log_file, parts[i].iov_base, part) < 0) abort();
        length -= part;
    }
}

/* The number of a file stays the same when it is renamed, and no later file has it. */
static uint64_t number(int directory, const char *path, int flags, mode_t *mode) {
    struct statx it;
    if (statx(directory, path, flags, STATX_BASIC_STATS | STATX_BTIME, &it) < 0) return 0;
    if (mode) *mode = it.stx_mode;
    uint64_t born = it.stx_btime.tv_sec * 1000000000ull + it.stx_btime.tv_nsec;
    return born * 1000003 + it.stx_ino;
}

static int list(const char *path, const struct stat *it, int type, struct FTW *place) {
    (void)place;
    (void)it;
    unsigned long long id = type == FTW_D ? 0 : number(AT_FDCWD, path, 0, NULL);
    if (type == FTW_D || id != 0)
        listed += snprintf(listing + listed, sizeof listing - listed, "%llu %s\n", id, path);
    if (listed >= sizeof listing) abort();
    return 0;
}

/* Logs what a call has written. */
static ssize_t wrote(int fd, off_t offset, const struct iovec *parts, int count, ssize_t size) {
    mode_t mode = 0;
    if (size <= 0) return size;
    uint64_t id = number(fd, "", AT_EMPTY_PATH, &mode);
    if (S_ISREG(mode) && offset < 0) offset = lseek(fd, 0, SEEK_CUR) - size;
    pthread_mutex_lock(&mutex);
    if (S_ISREG(mode)) record('W', id, offset, parts, count, size);
    if (S_ISSOCK(mode)) record('N', fd, 0, parts, count, size);
    pthread_mutex_unlock(&mutex);
    return size;
}

static int synced(long call, int fd) {
    mode_t mode = 0;
    uint64_t id = number(fd, "", AT_EMPTY_PATH, &mode);
    pthread_mutex_lock(&mutex);
    record('B', id, 0, NULL, 0, 0);
    pthread_mutex_unlock(&mutex);
    int result = syscall(call, fd);
    pthread_mutex_lock(&mutex);
    listed = 0;
    nftw(getenv("POWER_DIRECTORY"), list, 16, FTW_PHYS);
    struct iovec all = {listing, listed};
    if (result == 0) record('S', id, 0, &all, 1, listed);
    pthread_mutex_unlock(&mutex);
    return result;
}

static int truncated(int fd, off_t length) {
    int result = syscall(SYS_ftruncate, fd, length);
    pthread_mutex_lock(&mutex);
    if (result == 0) record('T', number(fd, "", AT_EMPTY_PATH, NULL), length, NULL, 0, 0);
    pthread_mutex_unlock(&mutex);
    return result;
}

ssize_t write(int fd, const void *data, size_t size) {
    struct iovec all = {(void *)data, size};
    return wrote(fd, -1, &all, 1, syscall(SYS_write, fd, data, size));
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    return wrote(fd, -1, parts, count, syscall(SYS_writev, fd, parts, count));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t offset) {
    struct iovec all = {(void *)data, size};
    return wrote(fd, offset, &all, 1, syscall(SYS_pwrite64, fd, data, size, offset));
}

ssize_t send(int fd, const void *data, size_t size, int flags) {
    struct iovec all = {(void *)data, size};
    return wrote(fd, 0, &all, 1, syscall(SYS_sendto, fd, data, size, flags, NULL, 0));
}

int fsync(int fd) { return synced(SYS_fsync, fd); }
int fdatasync(int fd) { return synced(SYS_fdatasync, fd); }
int ftruncate64(int fd, off_t length) { return truncated(fd, length); }
