// Functions of newer versions of glibc that the static libstdc++ of this machine's GCC calls.
#include <stdlib.h>
#include <sys/random.h>

char __libc_single_threaded = 0;  // false is always correct, and only costs an atomic operation

unsigned arc4random(void) {
    unsigned value;
    if (getrandom(&value, sizeof value, 0) != sizeof value) abort();
    return value;
}
