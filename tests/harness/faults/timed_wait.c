/* What libfaketime leaves out: the timed wait of C11, by which librdkafka sleeps.
 *
 * As the kernel has it, a wait until a time of the wall clock ends when that clock says so: turned ahead, at once; turned
 * back, later by as much. The clock is looked at every few milliseconds, through libfaketime. */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <threads.h>
#include <time.h>

#define LOOK_EVERY_NS 10000000L
#define SECOND_NS 1000000000L

static int passed(const struct timespec *until) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    return now.tv_sec > until->tv_sec || (now.tv_sec == until->tv_sec && now.tv_nsec >= until->tv_nsec);
}

int cnd_timedwait(cnd_t *condition, mtx_t *mutex, const struct timespec *until) {
    while (!passed(until)) {
        struct timespec look;
        clock_gettime(CLOCK_MONOTONIC, &look);
        look.tv_nsec += LOOK_EVERY_NS;
        if (look.tv_nsec >= SECOND_NS) {
            look.tv_nsec -= SECOND_NS;
            look.tv_sec += 1;
        }
        int error = pthread_cond_clockwait((pthread_cond_t *)condition, (pthread_mutex_t *)mutex, CLOCK_MONOTONIC, &look);
        if (error != ETIMEDOUT)
            return error == 0 ? thrd_success : thrd_error;
    }
    return thrd_timedout;
}
