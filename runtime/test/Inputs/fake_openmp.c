/*===- fake_openmp.c - An OpenMP runtime with LLVM's interface alone ------===*\
|*
|* Licensed under the Apache License v2.0 with LLVM Exceptions.
|* SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
|*
|* Without GOMP_parallel, as on systems other than Linux.
|*
\*===----------------------------------------------------------------------===*/

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

typedef void (*body_t)(int32_t *thread, int32_t *thread_of_team, void *data);

static __thread int threads = 1, in_parallel;

void omp_set_num_threads(int count) { threads = count; }
int omp_get_max_threads(void) { return threads; }
int omp_in_parallel(void) { return in_parallel; }

typedef struct {
  int32_t number;
  body_t body;
  void *data;
} member_t;

static void *run(void *argument) {
  member_t *member = argument;
  in_parallel = 1;
  member->body(&member->number, &member->number, member->data);
  in_parallel = 0;
  return NULL;
}

/* A team of two. */
void __kmpc_fork_call(const int32_t *location, int32_t count, body_t body,
                      void *data) {
  member_t first = {0, body, data}, second = {1, body, data};
  pthread_t thread;
  /* The caller's flags say that it follows this interface. */
  if (location[1] != 2 || count != 1 || threads != 2 ||
      pthread_create(&thread, NULL, run, &second) != 0)
    abort();
  run(&first);
  pthread_join(thread, NULL);
}
