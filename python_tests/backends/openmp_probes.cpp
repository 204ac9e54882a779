// Parallel regions with a race and without, by name: what the build under ThreadSanitizer must tell apart.
#include <omp.h>

#include <cstdio>
#include <cstring>

namespace {

constexpr int kSize = 64, kThreads = 4;
int numbers[kSize], doubled[kSize], total;

void fill(bool wait, bool dynamic) {
#pragma omp parallel num_threads(kThreads)
    {
        if (dynamic) {
#pragma omp for schedule(dynamic) nowait
            for (int i = 0; i < kSize; ++i) numbers[i] = i;
        } else {
#pragma omp for schedule(static) nowait
            for (int i = 0; i < kSize; ++i) numbers[i] = i;
        }
        if (wait) {
#pragma omp barrier
        }
#pragma omp for schedule(static)
        for (int i = 0; i < kSize; ++i) doubled[i] = 2 * numbers[kSize - 1 - i];
    }
}

void add(bool reduce) {
    int sum = 0;
    if (reduce) {
#pragma omp parallel for num_threads(kThreads) schedule(dynamic, 4) reduction(+ : sum)
        for (int i = 0; i < kSize; ++i) sum += i;
    } else {
#pragma omp parallel for num_threads(kThreads) schedule(dynamic, 4)
        for (int i = 0; i < kSize; ++i) sum += i;
    }
    total = sum;
}

// One scratch row for each thread, as the kernels have them, or one for all.
void scratch(bool own) {
    int rows[kThreads] = {};
#pragma omp parallel for num_threads(kThreads) schedule(dynamic)
    for (int i = 0; i < kSize; ++i) {
        rows[own ? omp_get_thread_num() : 0] += i;
        doubled[i] = rows[own ? omp_get_thread_num() : 0];
    }
}

}  // namespace

int main(int, char** argv) {
    const auto is = [argv](const char* name) { return std::strcmp(argv[1], name) == 0; };
    if (is("barrier")) fill(true, false);
    if (is("barrier after a dynamic loop")) fill(true, true);
    if (is("no barrier")) fill(false, false);
    if (is("no barrier after a dynamic loop")) fill(false, true);
    if (is("sum by reduction")) add(true);
    if (is("sum without reduction")) add(false);
    if (is("scratch of each thread")) scratch(true);
    if (is("scratch of all")) scratch(false);
    std::printf("%d %d\n", total, doubled[0]);
}
