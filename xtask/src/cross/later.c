/* Fifteen years later, for a program on 32-bit ARM: what libfaketime does elsewhere. Debian 12's knows the 32-bit calls alone there, which
 * cannot count so far: here they fail, as they would then, and the 64-bit one answers. */
#include <errno.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

/* In seconds, as FAKETIME=+15y has it. */
#define LATER (15LL * 365 * 24 * 3600)

struct timespec64 {
    int64_t seconds;
    int32_t nanoseconds;
    int32_t padding;
};

static int is_wall_clock(clockid_t clock) {
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

int __clock_gettime64(clockid_t clock, struct timespec64 *now) {
    int result = (int)syscall(SYS_clock_gettime64, clock, now);
    if (result == 0 && is_wall_clock(clock)) now->seconds += LATER;
    return result;
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    if (!is_wall_clock(clock)) return (int)syscall(SYS_clock_gettime, clock, now);
    errno = EOVERFLOW;
    return -1;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    (void)now, (void)zone;
    errno = EOVERFLOW;
    return -1;
}

time_t time(time_t *now) {
    (void)now;
    errno = EOVERFLOW;
    return -1;
}
