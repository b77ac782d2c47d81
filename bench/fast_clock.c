/* Preloaded into redis-server, makes its wall clock run FAST_CLOCK times as fast.
 *
 * Redis' LRU tells keys apart by the second in which they were last used. A trace of weeks that is
 * replayed in seconds would leave it nothing to go by, and make it look worse than it is. Only
 * gettimeofday is replaced: it is where that clock comes from. */
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>

int gettimeofday(struct timeval *restrict result, void *restrict zone) {
    static long long start;
    struct timespec now;
    long long us;

    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    us = now.tv_sec * 1000000LL + now.tv_nsec / 1000;
    if (start == 0)
        start = us;
    us = start + (us - start) * atoll(getenv("FAST_CLOCK"));
    result->tv_sec = us / 1000000;
    result->tv_usec = us % 1000000;
    return 0;
}
