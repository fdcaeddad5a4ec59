//===- moe_mpi.c - Groups of ranks on MPI ---------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// One source for every MPI since version 3. Rows are counted by a type of their
// size, so that an int counts 2^31 rows of any size: Open MPI has no calls with
// larger counts.
//
//===----------------------------------------------------------------------===//

#define _GNU_SOURCE
#include "moe_rt/mpi.h"

#include <dlfcn.h>
#include <limits.h>
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

enum { alignment = 64, hugePage = 2 << 20 };

/// A type of a row.
typedef struct {
  uint64_t bytes;
  MPI_Datatype type;
} row_type_t;

/// A collective that is pending: its messages.
typedef struct request_s {
  struct request_s *next; // of those that are free
  int count;              // of messages
  int capacity;
  MPI_Request *messages;
  MPI_Status *statuses;
  int *expected; // rows of each message that is received; -1: not checked
  MPI_Datatype type;
} request_t;

typedef struct {
  MPI_Comm comm;
  int rank, size;
  int tag, maxTag;
  row_type_t *types;
  int typeCount;
  request_t *idle;
  int failed;
  char message[MPI_MAX_ERROR_STRING + 64];
} engine_t;

static int initialised; // by this library

//===----------------------------------------------------------------------===//
// Errors
//===----------------------------------------------------------------------===//

static int32_t fail(engine_t *engine, const char *what) {
  engine->failed = 1;
  snprintf(engine->message, sizeof(engine->message), "%s", what);
  return -1;
}

/// The result of a call of MPI.
static int32_t check(engine_t *engine, int code) {
  if (code == MPI_SUCCESS)
    return 0;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  if (MPI_Error_string(code, text, &length) != MPI_SUCCESS)
    snprintf(text, sizeof(text), "MPI error %d", code);
  text[strcspn(text, "\n")] = 0;
  return fail(engine, text);
}

//===----------------------------------------------------------------------===//
// Requests and types
//===----------------------------------------------------------------------===//

static void freeRequest(request_t *request) {
  if (!request)
    return;
  free(request->messages);
  free(request->statuses);
  free(request->expected);
  free(request);
}

static request_t *takeRequest(engine_t *engine) {
  request_t *request = engine->idle;
  if (request) {
    engine->idle = request->next;
    request->count = 0;
    return request;
  }
  request = calloc(1, sizeof(*request));
  if (!request)
    return NULL;
  request->capacity = 2 * engine->size;
  size_t capacity = (size_t)request->capacity;
  request->messages = malloc(capacity * sizeof(MPI_Request));
  request->statuses = malloc(capacity * sizeof(MPI_Status));
  request->expected = malloc(capacity * sizeof(int));
  if (request->messages && request->statuses && request->expected)
    return request;
  freeRequest(request);
  return NULL;
}

/// The type of a row. Types stay, as messages that are pending need theirs: a
/// layer has few.
static int32_t findType(engine_t *engine, uint64_t bytes, MPI_Datatype *out) {
  for (int i = 0; i < engine->typeCount; ++i)
    if (engine->types[i].bytes == bytes) {
      *out = engine->types[i].type;
      return 0;
    }
  if (bytes > INT_MAX)
    return fail(engine, "a row has more than 2^31-1 bytes");
  row_type_t *types = realloc(engine->types, ((size_t)engine->typeCount + 1) *
                                                 sizeof(row_type_t));
  if (!types)
    return fail(engine, "out of memory");
  engine->types = types;
  row_type_t *place = &types[engine->typeCount];
  if (check(engine, MPI_Type_contiguous((int)bytes, MPI_BYTE, &place->type)) <
          0 ||
      check(engine, MPI_Type_commit(&place->type)) < 0)
    return -1;
  place->bytes = bytes;
  ++engine->typeCount;
  *out = place->type;
  return 0;
}

//===----------------------------------------------------------------------===//
// The functions of a communicator
//===----------------------------------------------------------------------===//

static void *allocate(void *user, uint64_t bytes) {
  (void)user;
  void *memory = NULL;
  size_t aligned = bytes < hugePage ? alignment : hugePage;
  if (bytes > SIZE_MAX / 2 || posix_memalign(&memory, aligned, (size_t)bytes))
    return NULL;
#if defined(__linux__)
  if (aligned == hugePage)
    (void)madvise(memory, (size_t)bytes, MADV_HUGEPAGE);
#endif
  return memory;
}

static void release(void *user, void *memory, uint64_t bytes) {
  (void)user;
  (void)bytes;
  free(memory);
}

static int32_t counts(void *user, const int64_t *send, int64_t *receive,
                      int32_t each, void *stream, void **out) {
  (void)stream;
  engine_t *engine = user;
  request_t *request = takeRequest(engine);
  if (!request)
    return fail(engine, "out of memory");
  if (check(engine,
            MPI_Ialltoall(send, each, MPI_INT64_T, receive, each, MPI_INT64_T,
                          engine->comm, &request->messages[0])) < 0)
    return -1;
  request->expected[0] = -1;
  request->count = 1;
  *out = request;
  return 0;
}

/// Start to send or receive rows from `begin` on.
static int32_t addMessage(engine_t *engine, request_t *request, int receives,
                          char *buffer, int64_t rows, int64_t begin,
                          uint64_t rowBytes, int rank) {
  if (rows == 0)
    return 0;
  if (rows > INT_MAX)
    return fail(engine, "a rank sends more than 2^31-1 rows to another");
  char *address = buffer + (uint64_t)begin * rowBytes;
  MPI_Request *message = &request->messages[request->count];
  int code = receives ? MPI_Irecv(address, (int)rows, request->type, rank,
                                  engine->tag, engine->comm, message)
                      : MPI_Isend(address, (int)rows, request->type, rank,
                                  engine->tag, engine->comm, message);
  if (check(engine, code) < 0)
    return -1;
  request->expected[request->count++] = receives ? (int)rows : -1;
  return 0;
}

/// Begin messages with a tag of their own: several exchanges may be pending.
static request_t *beginMessages(engine_t *engine, uint64_t rowBytes) {
  request_t *request = takeRequest(engine);
  if (!request) {
    fail(engine, "out of memory");
    return NULL;
  }
  if (findType(engine, rowBytes, &request->type) < 0)
    return NULL;
  engine->tag = engine->tag < engine->maxTag ? engine->tag + 1 : 0;
  return request;
}

static int32_t exchange(void *user, const void *send, const int64_t *sendRows,
                        const int64_t *sendBegins, void *receive,
                        const int64_t *receiveRows,
                        const int64_t *receiveBegins, uint64_t rowBytes,
                        void *stream, void **out) {
  (void)stream;
  engine_t *engine = user;
  request_t *request = beginMessages(engine, rowBytes);
  if (!request)
    return -1;
  // Receives first; ranks begin with different ones.
  for (int i = 1; i < engine->size; ++i) {
    int from = (engine->rank - i + engine->size) % engine->size;
    if (addMessage(engine, request, 1, receive, receiveRows[from],
                   receiveBegins[from], rowBytes, from) < 0)
      return -1;
  }
  for (int i = 1; i < engine->size; ++i) {
    int to = (engine->rank + i) % engine->size;
    if (addMessage(engine, request, 0, (char *)send, sendRows[to],
                   sendBegins[to], rowBytes, to) < 0)
      return -1;
  }
  int self = engine->rank;
  if (sendRows[self] != receiveRows[self])
    return fail(engine, "a rank sends another number of rows to itself than "
                        "it expects");
  if (sendRows[self] > 0)
    memcpy((char *)receive + (uint64_t)receiveBegins[self] * rowBytes,
           (const char *)send + (uint64_t)sendBegins[self] * rowBytes,
           (uint64_t)sendRows[self] * rowBytes);
  *out = request;
  return 0;
}

static int32_t gather(void *user, const void *send, void *receive,
                      const int64_t *rows, uint64_t rowBytes, void *stream,
                      void **out) {
  (void)stream;
  engine_t *engine = user;
  request_t *request = beginMessages(engine, rowBytes);
  if (!request)
    return -1;
  int64_t begin = 0, own = rows[engine->rank];
  for (int r = 0; r < engine->size; ++r) {
    if (r == engine->rank) {
      if (own > 0)
        memcpy((char *)receive + (uint64_t)begin * rowBytes, send,
               (uint64_t)own * rowBytes);
    } else if (addMessage(engine, request, 1, receive, rows[r], begin, rowBytes,
                          r) < 0) {
      return -1;
    }
    begin += rows[r];
  }
  for (int i = 1; i < engine->size; ++i)
    if (addMessage(engine, request, 0, (char *)send, own, 0, rowBytes,
                   (engine->rank + i) % engine->size) < 0)
      return -1;
  *out = request;
  return 0;
}

static int32_t test(void *user, void *tested) {
  engine_t *engine = user;
  request_t *request = tested;
  int done = 1;
  if (request->count > 0) {
    int code = MPI_Testall(request->count, request->messages, &done,
                           request->statuses);
    if (code != MPI_SUCCESS) {
      // The message that failed says why.
      int class = MPI_SUCCESS;
      MPI_Error_class(code, &class);
      if (class == MPI_ERR_IN_STATUS)
        for (int i = 0; i < request->count; ++i) {
          int own = request->statuses[i].MPI_ERROR;
          if (own != MPI_SUCCESS && own != MPI_ERR_PENDING)
            code = own;
        }
      return check(engine, code);
    }
  }
  if (!done)
    return 0;
  for (int i = 0; i < request->count; ++i) {
    int rows = 0;
    if (request->expected[i] < 0)
      continue;
    MPI_Get_count(&request->statuses[i], request->type, &rows);
    if (rows != request->expected[i]) {
      char text[160];
      snprintf(text, sizeof(text),
               "rank %d sends %d rows to rank %d, which "
               "expects %d",
               request->statuses[i].MPI_SOURCE, rows, engine->rank,
               request->expected[i]);
      return fail(engine, text);
    }
  }
  request->next = engine->idle;
  engine->idle = request;
  return 1;
}

static void abortAll(void *user) {
  engine_t *engine = user;
  engine->failed = 1;
#if defined(OPEN_MPI)
  // Only there: in builds of MPICH this call ends the process. Without
  // fault tolerance it returns an error, and the deadline is what there is.
  int (*revoke)(MPI_Comm) =
      (int (*)(MPI_Comm))dlsym(RTLD_DEFAULT, "MPIX_Comm_revoke");
  if (revoke)
    (void)revoke(engine->comm);
#endif
}

static const char *message(void *user) {
  engine_t *engine = user;
  return engine->message[0] ? engine->message : NULL;
}

//===----------------------------------------------------------------------===//
// The communicator
//===----------------------------------------------------------------------===//

static int create(MPI_Comm comm, engine_t *engine, int *nodeSize) {
  int code = MPI_Comm_dup(comm, &engine->comm);
  if (code != MPI_SUCCESS)
    return code;
  MPI_Comm_set_errhandler(engine->comm, MPI_ERRORS_RETURN);
  MPI_Comm_rank(engine->comm, &engine->rank);
  MPI_Comm_size(engine->comm, &engine->size);
  void *limit = NULL;
  int isSet = 0;
  MPI_Comm_get_attr(engine->comm, MPI_TAG_UB, &limit, &isSet);
  engine->maxTag = isSet ? *(int *)limit : 32767;

  // Ranks that share memory count as a node where each has as many, and they
  // are neighbours.
  MPI_Comm node;
  code = MPI_Comm_split_type(engine->comm, MPI_COMM_TYPE_SHARED, engine->rank,
                             MPI_INFO_NULL, &node);
  if (code != MPI_SUCCESS)
    return code;
  int size = 0, rank = 0;
  MPI_Comm_size(node, &size);
  MPI_Comm_rank(node, &rank);
  MPI_Comm_free(&node);
  int isRegular = engine->size % size == 0 && engine->rank % size == rank;
  int mine[3] = {size, -size, isRegular ? 0 : 1}, all[3];
  code = MPI_Allreduce(mine, all, 3, MPI_INT, MPI_MAX, engine->comm);
  if (code != MPI_SUCCESS)
    return code;
  *nodeSize = all[0] == -all[1] && all[2] == 0 ? size : 1;
  return MPI_SUCCESS;
}

int32_t moe_mpi_communicator_create(const void *comm,
                                    moe_rt_communicator_t *out) {
  int isInitialised = 0, provided;
  MPI_Initialized(&isInitialised);
  if (!isInitialised) {
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_MULTIPLE, &provided);
    if (code != MPI_SUCCESS)
      return code;
    initialised = 1;
  }
  engine_t *engine = calloc(1, sizeof(*engine));
  if (!engine)
    return MPI_ERR_NO_MEM;
  int nodeSize = 1;
  int code = create(comm ? *(const MPI_Comm *)comm : MPI_COMM_WORLD, engine,
                    &nodeSize);
  if (code != MPI_SUCCESS) {
    free(engine);
    return code;
  }
  // A thread of the group may call, where MPI permits it.
  int level = MPI_THREAD_SINGLE;
  MPI_Query_thread(&level);
  uint32_t features =
      level >= MPI_THREAD_SERIALIZED ? MOE_RT_COMMUNICATOR_POLLED : 0;
  moe_rt_communicator_t created = {
      sizeof(created), engine, engine->rank, engine->size, nodeSize,
      features,        {0},    allocate,     release,      counts,
      exchange,        gather, NULL,         test,         abortAll,
      message};
  created.device.device_type = kDLCPU;
  *out = created;
  return 0;
}

void moe_mpi_communicator_destroy(moe_rt_communicator_t *communicator) {
  if (!communicator || !communicator->user)
    return;
  engine_t *engine = communicator->user;
  communicator->user = NULL;
  // Messages that are pending may still arrive.
  if (engine->failed)
    return;
  for (int i = 0; i < engine->typeCount; ++i)
    MPI_Type_free(&engine->types[i].type);
  free(engine->types);
  while (engine->idle) {
    request_t *request = engine->idle;
    engine->idle = request->next;
    freeRequest(request);
  }
  MPI_Comm_free(&engine->comm);
  free(engine);
}

void moe_mpi_finalize(void) {
  int isFinalised = 0;
  MPI_Finalized(&isFinalised);
  if (initialised && !isFinalised)
    MPI_Finalize();
}
