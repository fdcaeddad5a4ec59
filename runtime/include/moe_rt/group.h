//===- group.h - Layers over several ranks ----------------------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Expert parallelism: each rank of a group holds some of the experts of a layer
// and calls it with its own tokens. Tokens travel to their experts and the
// results back, by an engine that the host has (MPI, a process group of
// PyTorch, threads), which it describes in a moe_rt_communicator_t. The runtime
// links none of them. Conventions are those of moe_rt.h.
//
//   moe_rt_group_create(context, &communicator, &options, &group);
//   moe_rt_layer_create_parallel(module, "layer", group, table, weights, n,
//                                &layer);
//   moe_rt_layer_call(layer, inputs, n, outputs, m, NULL, 0);
//
// moe_rt_group_create, the creation of a layer, moe_rt_layer_call and
// moe_rt_layer_move are collective: every rank of the group makes the same ones
// in the same order, a rank without tokens too (T = 0). Before rows move, the
// ranks agree on one another's state: if any of them refuses or does something
// else, all of them return an error that names it, and the group stays usable.
// A rank that does not come, or an engine that fails, is an error of all the
// others within the deadline; the group is then dead, and later calls fail at
// once.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_GROUP_H
#define MOE_RT_GROUP_H

#include "moe_rt/checkpoint.h"
#include "moe_rt/moe_rt.h"

#ifdef __cplusplus
extern "C" {
#endif

//===----------------------------------------------------------------------===//
// Communicator
//===----------------------------------------------------------------------===//

/// A bit of moe_rt_communicator_t::features: `peer` is there, for all ranks.
#define MOE_RT_COMMUNICATOR_PEER_MEMORY 1u
/// A bit of it: rows travel during calls of `test` only, as in most MPIs. While
/// a rank computes beside an exchange, a thread of the group calls it.
#define MOE_RT_COMMUNICATOR_POLLED 2u

/// What the runtime needs of an engine, as one rank sees it.
///
/// `counts`, `exchange` and `gather` are collective: all ranks make them in the
/// same order. They only start: they return 0 and a request, or a negative
/// number, and wait for no other rank. `test` then polls the request until it
/// is done; several may be pending, and they end in any order. Buffers come
/// from `allocate`; they belong to the engine until `test` has returned 1. The
/// arrays of rows may go when the function has returned, those of `counts` are
/// buffers. A group calls the functions from one thread at a time, and only
/// during its own collective functions and moe_rt_group_destroy.
///
/// Rows are `row_bytes` bytes of any type; how many there are may be zero, and
/// a buffer without rows may be NULL. `stream` is NULL on the CPU.
typedef struct {
  size_t struct_size; // sizeof(moe_rt_communicator_t)
  void *user;
  int32_t rank, size; // of this process, and of the group
  /// Consecutive ranks, from a multiple of it on, that share memory; 1 where
  /// that is unknown.
  int32_t node_size;
  uint32_t features; // MOE_RT_COMMUNICATOR_*
  DLDevice device;   // where buffers lie; all zero is the CPU

  /// Allocates a buffer, aligned to 64 bytes at least; NULL without memory.
  void *(*allocate)(void *user, uint64_t bytes);
  /// Frees a buffer. Never called for one of a request that has not ended, nor
  /// after a failure: the engine then frees it once no rank can reach it, or
  /// with the process.
  void (*release)(void *user, void *memory, uint64_t bytes);

  /// Sends `each` words to each rank, and receives as many from each:
  /// `send` and `receive` are [size, each].
  int32_t (*counts)(void *user, const int64_t *send, int64_t *receive,
                    int32_t each, void *stream, void **request);
  /// Sends rows to each rank and receives rows from each. Those for rank r are
  /// rows [send_begins[r], send_begins[r] + send_rows[r]) of `send`; those
  /// from rank r go to rows [receive_begins[r], receive_begins[r] +
  /// receive_rows[r]) of `receive`. All four arrays are [size].
  int32_t (*exchange)(void *user, const void *send, const int64_t *send_rows,
                      const int64_t *send_begins, void *receive,
                      const int64_t *receive_rows,
                      const int64_t *receive_begins, uint64_t row_bytes,
                      void *stream, void **request);
  /// Concatenates the rows of all ranks, in the order of ranks, on every rank:
  /// rows[r] are those of rank r.
  int32_t (*gather)(void *user, const void *send, void *receive,
                    const int64_t *rows, uint64_t row_bytes, void *stream,
                    void **request);
  /// Returns where this rank reads `memory`, an address of rank `rank` in a
  /// buffer of its own; NULL if it cannot. May be NULL.
  void *(*peer)(void *user, int32_t rank, void *memory);
  /// Returns 1 if the request is done, which ends it, 0 if it is pending, or a
  /// negative number if the engine has failed.
  int32_t (*test)(void *user, void *request);
  /// Lets the other ranks know, as far as the engine can, that this one has
  /// given up: their requests then fail. Ends no process. May be NULL.
  void (*abort)(void *user);
  /// Returns why the engine has failed, in words, or NULL. May be NULL.
  const char *(*message)(void *user);
} moe_rt_communicator_t;

/// Creates the communicators of `count` ranks that are threads of this process:
/// `out` has `count` elements. The threads may not be the same in every call,
/// but ranks must run at the same time.
MOE_RT_API moe_rt_status_t
moe_rt_thread_communicators_create(int32_t count, moe_rt_communicator_t *out);
/// Destroys them all, after the groups that use them.
MOE_RT_API void
moe_rt_thread_communicators_destroy(moe_rt_communicator_t *communicators);

//===----------------------------------------------------------------------===//
// Group
//===----------------------------------------------------------------------===//

typedef struct moe_rt_group_s moe_rt_group_t;

/// How rows travel.
typedef enum {
  /// By MOE_RT_WAY_PEER where all ranks can read the memory of one another,
  /// calls have one chunk, and no rank limits its memory. Where they cannot,
  /// by MOE_RT_WAY_ALL_GATHER for a layer of which 99 % of all tokens or more
  /// go to each rank, if each chooses its experts uniformly. Else by
  /// MOE_RT_WAY_ALL_TO_ALL.
  MOE_RT_WAY_AUTOMATIC = 0,
  /// By `exchange` of the communicator: the rows for each rank are packed.
  MOE_RT_WAY_ALL_TO_ALL = 1,
  /// Each rank reads the rows for it where they lie, in the memory of the
  /// others: that of the communicator (`peer`), or of processes of one machine,
  /// which the runtime then shares itself. The communicator only says who is
  /// ready. A copy of the caller's tokens is in memory, in rounds, too.
  MOE_RT_WAY_PEER = 2,
  /// All tokens go to all ranks, by `gather` of the communicator: nothing is
  /// packed, and a rank skips the tokens that have none of its experts. Results
  /// come home by `exchange`. For layers whose tokens go to nearly all ranks;
  /// those that save for a backward layer take ALL_TO_ALL. Not in rounds.
  MOE_RT_WAY_ALL_GATHER = 3
} moe_rt_way_t;

/// Which tokens a rank calls layers with.
typedef enum {
  /// Tokens of its own.
  MOE_RT_TOKENS_SHARDED = 0,
  /// The same tokens as all other ranks, as attention in tensor parallelism has
  /// them. Each rank is home of a slice, and gets the results of all tokens.
  MOE_RT_TOKENS_REPLICATED = 1
} moe_rt_tokens_t;

typedef struct {
  size_t struct_size; // sizeof(moe_rt_group_options_t)
  /// How long a rank waits for the others, in seconds, in each exchange; 0
  /// selects 60.
  double deadline_seconds;
  /// Bytes that a call may use at most, besides its tensors and weights; 0: as
  /// many as it needs. Where rows might need more, a call runs in rounds, which
  /// do not change its results. Ranks may have different limits.
  uint64_t memory_limit;
  /// How many chunks the tokens of a call travel and are computed in: a chunk
  /// is computed while the next one comes and results of the one before go
  /// home. Results do not change. A chunk has 16 tokens of all ranks at least;
  /// calls in rounds have none, and only the way ALL_TO_ALL takes more than
  /// one. The same on all ranks; 0 and 1 select one.
  int32_t chunks;
  /// A moe_rt_way_t, the same on all ranks. One that is not possible is an
  /// error of all of them.
  int32_t way;
  /// A moe_rt_tokens_t, the same on all ranks. Where tokens are replicated, how
  /// many there are is compared in each call, what they are is not. Outputs
  /// without a row for each token are MOE_RT_UNIMPLEMENTED; gradients of
  /// weights are sums over the slice of a rank.
  int32_t tokens;
} moe_rt_group_options_t;

/// Creates a group; `options` may be NULL. The communicator is copied: what
/// `user` points to must outlive the group. A `communicator` of NULL is a group
/// of one rank. Fails with MOE_RT_DEADLINE_EXCEEDED or MOE_RT_UNAVAILABLE if
/// the other ranks do not come.
MOE_RT_API moe_rt_status_t moe_rt_group_create(
    moe_rt_context_t *context, const moe_rt_communicator_t *communicator,
    const moe_rt_group_options_t *options, moe_rt_group_t **out);
/// Destroys a group, after its layers and before its context; waits for no
/// other rank.
MOE_RT_API void moe_rt_group_destroy(moe_rt_group_t *group);

MOE_RT_API int32_t moe_rt_group_rank(const moe_rt_group_t *group);
MOE_RT_API int32_t moe_rt_group_size(const moe_rt_group_t *group);
/// Returns the moe_rt_way_t that rows travel by, unless a layer has another one
/// (moe_rt_exchange_statistics_t).
MOE_RT_API int32_t moe_rt_group_way(const moe_rt_group_t *group);
/// Returns NULL if the group can be used, or the error that ended it. Waits for
/// nothing.
MOE_RT_API moe_rt_status_t moe_rt_group_status(moe_rt_group_t *group);

//===----------------------------------------------------------------------===//
// Parallel layers
//===----------------------------------------------------------------------===//

/// A layer that was compiled for several ranks.
typedef struct {
  int64_t experts;                // E
  int64_t slots;                  // L, the experts that a rank can hold
  int64_t replicas;               // the ranks that can hold the same expert
  int64_t min_tokens, max_tokens; // of one rank
} moe_rt_parallel_info_t;

/// Returns how many layers of the module are for several ranks. They are no
/// functions of moe_rt_module_function_name, but moe_rt_function_tensor_count,
/// moe_rt_function_tensor_info and moe_rt_function_token_range know their
/// names. Weights have the shape of all E experts.
MOE_RT_API size_t moe_rt_module_parallel_count(const moe_rt_module_t *module);
/// Returns the name of one, owned by the module; NULL if out of range.
MOE_RT_API const char *
moe_rt_module_parallel_name(const moe_rt_module_t *module, size_t index);
/// Describes one; `name` NULL selects the only one.
MOE_RT_API moe_rt_status_t moe_rt_parallel_info(const moe_rt_module_t *module,
                                                const char *name,
                                                moe_rt_parallel_info_t *out);

/// Creates a layer on a group from `count` weights of all E experts, in
/// signature order. `name` NULL selects the only layer for several ranks.
///
/// `table` is i32 [N, L] in memory of the host, the same on all ranks: the
/// expert of each slot of each rank, or -1 for an empty one. Each expert is on
/// one rank at least, and not twice on one. NULL gives each rank E/N experts in
/// order, the first E % N ranks one more.
///
/// The ranks agree on the artifact, the layer and the table before any weight
/// is read, and on success after it; the deadline begins when a rank is done.
/// Experts of other ranks are not read. Those of this rank are read in place
/// where the code allows it and they are neighbours in the order of slots:
/// such a weight must outlive the layer if it is `retained`. Others are copied.
///
/// moe_rt_layer_call, _workspace_bytes, _weight_bytes, _destroy and the profile
/// take the layer; moe_rt_layer_call_on_stream, too, with a stream of NULL on
/// the CPU. The layers of a group are called one at a time. Memory of a call is
/// the group's, and is kept for the next: a workspace that is passed is not
/// used. There are no statistics of dispatches, and moe_rt_layer_update is
/// MOE_RT_UNIMPLEMENTED: see moe_rt_layer_update_parallel_from_source.
MOE_RT_API moe_rt_status_t moe_rt_layer_create_parallel(
    moe_rt_module_t *module, const char *name, moe_rt_group_t *group,
    const DLTensor *table, const DLTensor *weights, size_t count,
    moe_rt_layer_t **out);

/// Likewise, reading the weights in parts as moe_rt_layer_create_from_source
/// does: `first` and `count` are experts of all E where a weight has them.
/// `read` is called for experts of this rank only.
MOE_RT_API moe_rt_status_t moe_rt_layer_create_parallel_from_source(
    moe_rt_module_t *module, const char *name, moe_rt_group_t *group,
    const DLTensor *table, moe_rt_read_weight_fn read, void *user,
    moe_rt_layer_t **out);

/// Likewise, from files, as moe_rt_layer_create_from_checkpoint does.
MOE_RT_API moe_rt_status_t moe_rt_layer_create_parallel_from_checkpoint(
    moe_rt_module_t *module, const char *name, moe_rt_group_t *group,
    const DLTensor *table, moe_rt_checkpoint_t *checkpoint,
    moe_rt_layer_t **out);

/// Gives a layer other weights, which are read as when it was created, in the
/// memory that it has; weights that are read in place may lie elsewhere. No
/// other rank takes part: a rank calls it before its next call of the layer, if
/// its weights have changed. After an error the layer may have no weights: then
/// calls and moves fail on all ranks, with MOE_RT_FAILED_PRECONDITION on this
/// one, until it gets some.
MOE_RT_API moe_rt_status_t moe_rt_layer_update_parallel_from_source(
    moe_rt_layer_t *layer, moe_rt_read_weight_fn read, void *user);

/// What a call of a layer has saved for its backward layer, on one rank.
typedef struct moe_rt_saved_s moe_rt_saved_t;

/// Calls a layer as moe_rt_layer_call does, and keeps what its backward layer
/// (`NAME_backward` of `moe-compile --backward`) needs: `*out`, which is to be
/// destroyed before the context. The tensors in it are no part of the group's
/// limit of memory; layers that save do not run in rounds. Fails with
/// MOE_RT_FAILED_PRECONDITION for a layer that saves nothing.
MOE_RT_API moe_rt_status_t moe_rt_layer_call_saving(
    moe_rt_layer_t *layer, const DLTensor *inputs, size_t input_count,
    DLTensor *outputs, size_t output_count, moe_rt_saved_t **out);

/// Calls a backward layer with what the same call of its layer has saved on
/// every rank, any number of times: anything else is an error on all of them.
/// The two layers have the same table of experts, and the calls the same
/// tokens. Gradients of experts are those of this rank's slots, zeros for an
/// empty slot; gradients of other weights are sums over the tokens of this
/// rank, which the caller adds up over the ranks.
MOE_RT_API moe_rt_status_t moe_rt_layer_call_saved(
    moe_rt_layer_t *layer, moe_rt_saved_t *saved, const DLTensor *inputs,
    size_t input_count, DLTensor *outputs, size_t output_count);

/// Returns the bytes of the tensors that are kept.
MOE_RT_API uint64_t moe_rt_saved_bytes(const moe_rt_saved_t *saved);
MOE_RT_API void moe_rt_saved_destroy(moe_rt_saved_t *saved);

/// Moves the experts of a layer to another placement; `table` as above, NULL
/// for the one without a table. Collective. The ranks send one another the
/// weights of experts that they did not have, as the code keeps them: nothing
/// is read or prepared again. Later calls have the results of a layer that was
/// created with the table.
///
/// The ranks agree on the layer and the table before a weight moves: an error
/// of one, such as a wrong table, is an error of all, and changes nothing. A
/// failure after it ends the group. Weights move an array at a time; during
/// the move a rank has, besides its weights, the elements of the largest array
/// of the experts that it sends and of those that it takes, which have to be
/// within the group's limit of memory. A weight that is read in place is copied
/// first where experts come. Not concurrent with calls of the layer; it has
/// MOE_RT_FAILED_PRECONDITION for a layer of one rank.
MOE_RT_API moe_rt_status_t moe_rt_layer_move(moe_rt_layer_t *layer,
                                             const DLTensor *table);

/// What the last call of a parallel layer moved, as this rank saw it; after
/// moe_rt_layer_move rows are experts.
typedef struct {
  int64_t rounds;                      // or chunks
  int64_t rows_sent, rows_received;    // of the exchanges towards the experts
  uint64_t bytes_sent, bytes_received; // by all exchanges, to other ranks
  int32_t way;                         // a moe_rt_way_t, that tokens left by
} moe_rt_exchange_statistics_t;

/// Reads them. Fails with MOE_RT_FAILED_PRECONDITION for another layer.
MOE_RT_API moe_rt_status_t moe_rt_layer_exchange_statistics(
    moe_rt_layer_t *layer, moe_rt_exchange_statistics_t *out);

#ifdef __cplusplus
} // extern "C"
#endif

#endif // MOE_RT_GROUP_H
