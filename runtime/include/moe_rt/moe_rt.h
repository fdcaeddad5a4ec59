//===- moe_rt.h - Load and run compiled MoE layers --------------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// The C interface of the runtime. It needs neither LLVM nor MLIR.
//
//   moe_rt_context_t *context;     allocator, threads, device
//   moe_rt_module_t *module;       one artifact, checked and loaded
//   moe_rt_layer_t *layer;         one function of it with its weights bound
//   moe_rt_layer_workspace_bytes(layer, T, &bytes);
//   moe_rt_layer_call(layer, inputs, n, outputs, m, workspace, bytes);
//
// Conventions:
//  * A function that can fail returns a moe_rt_status_t: NULL is success, any
//    other value carries a code and a message and is freed by
//    moe_rt_status_free. Out-parameters come last and are untouched on failure.
//  * No function throws or aborts; the only global state is the threads that
//    contexts share.
//  * Objects are not reference-counted: destroy layers before their module,
//    modules before their context. A context, module or layer may be used from
//    several threads at once for calls; creation and destruction are not
//    concurrent with calls on the same object. moe_rt_layer_call on one layer
//    may run concurrently if each call has its own workspace.
//  * Tensors are passed as DLTensor, row-major and compact. `T` is the number
//  of
//    tokens: the extent of every dynamic dimension of a layer's signature.
//  * A context is for the CPU or for one NVIDIA GPU, "the device". All tensors
//    and workspaces of its layers are there; their elements are never read on
//    the host. "Calls on a device" describes the differences from calls on the
//    CPU.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_MOE_RT_H
#define MOE_RT_MOE_RT_H

#include "moe_rt/dlpack.h"
#include "moe_rt/executor.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define MOE_RT_API
#else
#define MOE_RT_API __attribute__((visibility("default")))
#endif

#ifdef __cplusplus
extern "C" {
#endif

/// Version of this interface and of the entry points in artifacts.
///
///   int32_t moe_entry_<f>(void **args, const moe_rt_tasks_t *tasks);
///   int64_t moe_workspace_<f>(int64_t tokens);
///
/// `args` points to the memref descriptor of each argument of the metadata, in
/// order, then to that of the workspace. `tasks` (moe_rt/abi.h) begins with an
/// executor and is never NULL. The entry returns 0 on success.
///
/// In a variant for a device the entry takes a `const moe_rt_launcher_t *`
/// (moe_rt/launcher.h) instead of `tasks`. It runs on the host and
/// launches kernels; descriptors point to device memory.
#define MOE_RT_ABI_VERSION 4

//===----------------------------------------------------------------------===//
// Status
//===----------------------------------------------------------------------===//

typedef enum {
  MOE_RT_OK = 0,
  MOE_RT_INVALID_ARGUMENT = 3,    // invalid tensor, count or pointer
  MOE_RT_DEADLINE_EXCEEDED = 4,   // a rank of a group did not come in time
  MOE_RT_NOT_FOUND = 5,           // no such file, function or symbol
  MOE_RT_RESOURCE_EXHAUSTED = 8,  // out of memory, or workspace too small
  MOE_RT_FAILED_PRECONDITION = 9, // this CPU or driver cannot run it
  MOE_RT_OUT_OF_RANGE = 11,       // T outside the declared range
  MOE_RT_UNIMPLEMENTED = 12,
  MOE_RT_INTERNAL = 13,
  MOE_RT_UNAVAILABLE = 14, // the engine of a group failed
  MOE_RT_DATA_LOSS = 15,   // damaged file, or not an artifact
} moe_rt_code_t;

typedef struct moe_rt_status_s *moe_rt_status_t;

/// Returns the code of a status; MOE_RT_OK for NULL.
MOE_RT_API moe_rt_code_t moe_rt_status_code(moe_rt_status_t status);
/// Returns the message of a status, which owns it; "" for NULL.
MOE_RT_API const char *moe_rt_status_message(moe_rt_status_t status);
/// Returns the name of a code, e.g. "INVALID_ARGUMENT".
MOE_RT_API const char *moe_rt_code_name(moe_rt_code_t code);
MOE_RT_API void moe_rt_status_free(moe_rt_status_t status);

//===----------------------------------------------------------------------===//
// Context
//===----------------------------------------------------------------------===//

typedef struct moe_rt_context_s moe_rt_context_t;

/// Allocator for host memory of the runtime: prepared weights, and workspaces
/// that callers do not pass. `alignment` is a power of two: 2 MiB for blocks of
/// at least that size, so that they can use huge pages. NULL functions select
/// the C library's. Both may be called until the context is destroyed.
typedef struct {
  void *user;
  void *(*allocate)(void *user, size_t bytes, size_t alignment);
  void (*release)(void *user, void *memory, size_t bytes);
} moe_rt_allocator_t;

typedef struct {
  size_t struct_size; // sizeof(moe_rt_context_options_t)
  moe_rt_allocator_t allocator;
  /// Threads that a call may use, including its own. 0 selects the cores
  /// available to this process: those of its affinity, limited by the CPU time
  /// of its cgroups (cpu.max, cpu.cfs_quota_us).
  int64_t num_threads;
  /// Runs the tasks of calls instead of the runtime's threads; copied, may be
  /// NULL. Requires num_threads 0. moe_rt/openmp.h provides one.
  const moe_rt_executor_t *executor;
  /// Where layers run: {kDLCPU, 0}, or all zero, is the CPU; {kDLCUDA, i} is
  /// NVIDIA GPU i of the driver.
  DLDevice device;
} moe_rt_context_options_t;

/// Creates a context; `options` may be NULL. Threads start with the first call
/// that needs them, sleep when idle, and block all signals. Contexts with
/// num_threads 0 share them; threads of other contexts end with the context.
/// They are not bound to cores: one that finds itself on the core of another
/// thread of its call moves to a core of its affinity without one.
/// One call at a time uses the threads. A concurrent call, or one that finds
/// too few cores left by calls of other contexts, runs on its own thread, and
/// one of the pool's threads pauses for it. A child of fork() has no threads:
/// if no call ran during the fork, the child may use the context with calls on
/// their own thread; contexts that it creates have threads.
///
/// A context for a device opens the driver, libcuda.so.1 or the library in the
/// environment variable MOE_CUDA_LIBRARY, which must support CUDA 12.0; no
/// other part of CUDA is needed. It shares the device's primary context with
/// the rest of the process. Without a driver or device it fails with the reason
/// (MOE_RT_FAILED_PRECONDITION).
MOE_RT_API moe_rt_status_t moe_rt_context_create(
    const moe_rt_context_options_t *options, moe_rt_context_t **out);
/// Frees the workspaces that no call uses, including those on the device. The
/// context caches them for later calls: on the CPU one for each concurrent call
/// so far (at most 16), each as large as a call needed. Safe during calls.
MOE_RT_API void moe_rt_context_trim(moe_rt_context_t *context);
MOE_RT_API void moe_rt_context_destroy(moe_rt_context_t *context);

//===----------------------------------------------------------------------===//
// Module
//===----------------------------------------------------------------------===//

typedef struct moe_rt_module_s moe_rt_module_t;

/// Loads an artifact from a file, or from memory, which is copied. Magic,
/// versions, size, checksum, target and signatures are verified before any of
/// its code runs.
MOE_RT_API moe_rt_status_t moe_rt_module_load(moe_rt_context_t *context,
                                              const char *path,
                                              moe_rt_module_t **out);
MOE_RT_API moe_rt_status_t moe_rt_module_load_memory(moe_rt_context_t *context,
                                                     const void *data,
                                                     size_t size,
                                                     moe_rt_module_t **out);

/// Returns the address of an entry point by name, or NULL.
typedef void *(*moe_rt_resolve_fn)(void *user, const char *symbol);

/// Creates a module of code that is already in memory (a JIT). `metadata` is
/// the JSON of an artifact; `resolve` is only called during this call.
MOE_RT_API moe_rt_status_t moe_rt_module_create(
    moe_rt_context_t *context, const char *metadata, size_t metadata_size,
    moe_rt_resolve_fn resolve, void *user, moe_rt_module_t **out);
MOE_RT_API void moe_rt_module_destroy(moe_rt_module_t *module);

/// Returns the metadata of the module as JSON, NUL-terminated and owned by the
/// module.
MOE_RT_API const char *moe_rt_module_metadata(const moe_rt_module_t *module);
/// Returns the index of the variant that the context runs: the first supported
/// one.
MOE_RT_API size_t moe_rt_module_variant(const moe_rt_module_t *module);
MOE_RT_API size_t moe_rt_module_function_count(const moe_rt_module_t *module);
/// Returns the name of function `index`, owned by the module; NULL if out of
/// range.
MOE_RT_API const char *
moe_rt_module_function_name(const moe_rt_module_t *module, size_t index);

//===----------------------------------------------------------------------===//
// Layer
//===----------------------------------------------------------------------===//

typedef enum {
  MOE_RT_INPUT = 0,
  MOE_RT_WEIGHT = 1,
  MOE_RT_OUTPUT = 2,
} moe_rt_role_t;

/// A tensor of a signature. The module owns the pointers.
typedef struct {
  const char *name;
  moe_rt_role_t role;
  DLDataType dtype;
  int32_t ndim;
  const int64_t *shape; // -1 is T
  uint32_t alignment;   // required alignment of the data pointer, in bytes
  int64_t num_experts;  // > 0: elements are expert ids in [-1, num_experts)
  bool retained;        // calls read the weight at the address passed to
                        // moe_rt_layer_create
} moe_rt_tensor_info_t;

typedef struct moe_rt_layer_s moe_rt_layer_t;

/// Returns the number of tensors with a role in a function, and their
/// descriptions.
MOE_RT_API moe_rt_status_t moe_rt_function_tensor_count(
    const moe_rt_module_t *module, const char *function, moe_rt_role_t role,
    size_t *out);
MOE_RT_API moe_rt_status_t moe_rt_function_tensor_info(
    const moe_rt_module_t *module, const char *function, moe_rt_role_t role,
    size_t index, moe_rt_tensor_info_t *out);
/// Returns the inclusive range of T that the function was compiled for.
MOE_RT_API moe_rt_status_t
moe_rt_function_token_range(const moe_rt_module_t *module, const char *function,
                            int64_t *min_tokens, int64_t *max_tokens);

/// Creates a layer from `count` weights of a function, in signature order.
/// Weights for which the code needs another layout are prepared once, into
/// memory of the layer. Calls read the others in place: a weight that is
/// `retained` must outlive the layer, others may be freed after this call.
/// `function` NULL selects the only function of the module. A weight of type
/// i8, i16, i32 or i64 may also be a tensor of unsigned integers of that width:
/// the type says nothing of a sign. On a device, writes to the weights must
/// have completed or be on the legacy default stream; the call waits for no
/// other stream.
MOE_RT_API moe_rt_status_t moe_rt_layer_create(moe_rt_module_t *module,
                                               const char *function,
                                               const DLTensor *weights,
                                               size_t count,
                                               moe_rt_layer_t **out);

/// Reads a part of a weight to `data`, row-major and compact: `count` elements
/// of its first dimension (experts, if it has one) from `first` on, `bytes`
/// bytes in all. Returns 0 on success. Must be thread-safe.
typedef int32_t (*moe_rt_read_weight_fn)(void *user, size_t weight,
                                         int64_t first, int64_t count,
                                         void *data, uint64_t bytes);

/// Like moe_rt_layer_create, but reads weights in parts, so that at most a few
/// experts are in memory besides those that the layer keeps: it keeps all
/// weights that calls read. `read` is only called during this call.
MOE_RT_API moe_rt_status_t moe_rt_layer_create_from_source(
    moe_rt_module_t *module, const char *function, moe_rt_read_weight_fn read,
    void *user, moe_rt_layer_t **out);
MOE_RT_API void moe_rt_layer_destroy(moe_rt_layer_t *layer);

/// Gives a layer that was created from tensors other weights of its function,
/// as for moe_rt_layer_create, in the memory that it has: prepared weights
/// replace the ones before, and no memory is allocated for them. Statistics and
/// the profile go on; errors of moe_rt_layer_quantization_errors that were
/// returned before are invalid. Not concurrent with anything else on the layer.
/// On a device it first waits for all work of the device's primary context,
/// which is impossible while a stream is captured. After
/// MOE_RT_INVALID_ARGUMENT, or MOE_RT_FAILED_PRECONDITION (for a layer from a
/// source or a checkpoint, or during a capture), the layer is unchanged. After
/// any other error it may have no weights: then calls fail with
/// MOE_RT_FAILED_PRECONDITION until it gets some.
MOE_RT_API moe_rt_status_t moe_rt_layer_update(moe_rt_layer_t *layer,
                                               const DLTensor *weights,
                                               size_t count);

/// Returns the bytes of weights in memory of the layer, on its device if any:
/// prepared weights, and those kept from a source.
MOE_RT_API uint64_t moe_rt_layer_weight_bytes(const moe_rt_layer_t *layer);

/// Returns the relative error of each expert of a weight that the layer keeps
/// in a format that the compiler chose (`--quantize`): ‖kept − w‖ / ‖w‖ in the
/// Frobenius norm. `weight` is its index in the signature. `*count` is the
/// number of experts, or 0 for other weights; the layer owns `*errors`.
MOE_RT_API moe_rt_status_t
moe_rt_layer_quantization_errors(const moe_rt_layer_t *layer, size_t weight,
                                 const float **errors, size_t *count);

/// Returns the workspace that a call with `tokens` tokens needs at most, in
/// bytes. On a device it includes the reports of dispatches.
MOE_RT_API moe_rt_status_t moe_rt_layer_workspace_bytes(
    const moe_rt_layer_t *layer, int64_t tokens, uint64_t *out);

/// Runs the layer. T is that of the inputs, or of the outputs if no input has a
/// dynamic extent, or the largest allowed if no tensor has one. All arguments
/// are checked before anything is written. If all outputs are empty, as is
/// usual with T = 0, no code runs. `workspace`, aligned to 64 bytes, may be
/// NULL: the context then provides one, from its allocator or from an earlier
/// call. Outputs must not overlap inputs, weights, the workspace or each other.
MOE_RT_API moe_rt_status_t
moe_rt_layer_call(moe_rt_layer_t *layer, const DLTensor *inputs,
                  size_t input_count, DLTensor *outputs, size_t output_count,
                  void *workspace, uint64_t workspace_bytes);

//===----------------------------------------------------------------------===//
// Calls on a device
//===----------------------------------------------------------------------===//
//
// The workspace is device memory, aligned to 256 bytes. Without one the context
// allocates it from its own memory pool. Expert ids and booleans are not
// checked before a call: kernels check ids, and an invalid id is an error that
// is known after the call has run.
//
// moe_rt_layer_call runs on the legacy default stream and returns after the
// outputs are written, as on the CPU. It is ordered after earlier work of
// blocking streams; writes by non-blocking streams must have completed. While a
// stream of the device is captured, use moe_rt_layer_call_on_stream.

/// Enqueues a call on `stream`, a CUstream of the device's primary context
/// (NULL is the legacy default stream), and returns without waiting. Tensors,
/// workspace and layer must stay valid until the call has run. With a workspace
/// of the caller nothing is allocated on the device, so that the call can be
/// captured in a graph, which may be replayed with other contents of the same
/// tensors; otherwise allocation and release become part of the graph.
///
/// First polls earlier calls like moe_rt_layer_poll: if one failed, this call
/// returns its error and does not run. On the CPU `stream` must be NULL, and
/// the call is moe_rt_layer_call.
MOE_RT_API moe_rt_status_t moe_rt_layer_call_on_stream(
    moe_rt_layer_t *layer, const DLTensor *inputs, size_t input_count,
    DLTensor *outputs, size_t output_count, void *workspace,
    uint64_t workspace_bytes, void *stream);

/// Like moe_rt_layer_call_on_stream, but only for the first `*live_tokens` of
/// the T tokens: an i32 in device memory that kernels read when they run. A
/// graph captured with the largest T can thus be replayed with fewer tokens by
/// writing this value. It is clamped to [0, T]. Output rows of other tokens
/// have unspecified contents, and their input rows do not affect the live ones,
/// but ids in inputs must be valid. NULL means that all are live. Fails for
/// layers in which tokens depend on one another, such as those with a capacity,
/// and for those that run in chunks.
MOE_RT_API moe_rt_status_t moe_rt_layer_call_live_on_stream(
    moe_rt_layer_t *layer, const DLTensor *inputs, size_t input_count,
    DLTensor *outputs, size_t output_count, void *workspace,
    uint64_t workspace_bytes, void *stream, const int32_t *live_tokens);

/// Returns the first error of calls by moe_rt_layer_call_on_stream that have
/// run on the device since the last poll, including replays of graphs; errors
/// are those of moe_rt_layer_call. Does not wait and does not disturb a
/// capture. An error that leaves the device unusable, such as an invalid
/// address, is returned by every poll. Returns NULL on the CPU.
MOE_RT_API moe_rt_status_t moe_rt_layer_poll(moe_rt_layer_t *layer);

//===----------------------------------------------------------------------===//
// Statistics
//===----------------------------------------------------------------------===//

/// Counts of one dispatch of a layer since the last reset.
typedef struct {
  int64_t num_experts;
  int64_t top_k;                    // choices of each token; 0 if unknown
  const int64_t *tokens_per_expert; // [num_experts], owned by the layer, valid
                                    // until the next moe_rt_layer_statistics
                                    // for this dispatch
  int64_t calls;
  int64_t choices; // choices with a valid expert
  int64_t dropped; // of those, choices beyond the capacity
  int64_t padding; // rows computed beyond the rows of tokens; 0 if the
                   // code does not count them
} moe_rt_statistics_t;

/// Statistics exclude calls that failed. On a device each replay of a graph
/// counts like the calls in it, and reading or resetting statistics waits for
/// all work of the device's primary context. That is impossible while a stream
/// is captured: moe_rt_layer_statistics then fails, and may invalidate a
/// capture in another thread; moe_rt_layer_reset_statistics has no effect.
MOE_RT_API size_t moe_rt_layer_dispatch_count(const moe_rt_layer_t *layer);
MOE_RT_API moe_rt_status_t moe_rt_layer_statistics(moe_rt_layer_t *layer,
                                                   size_t dispatch,
                                                   moe_rt_statistics_t *out);
MOE_RT_API void moe_rt_layer_reset_statistics(moe_rt_layer_t *layer);

/// Enables or disables statistics of later calls; initially enabled. On a
/// device, disabling saves a kernel and the clearing of its input for layers
/// whose routing is always valid: a gate chooses the experts, and none has a
/// capacity.
MOE_RT_API void moe_rt_layer_enable_statistics(moe_rt_layer_t *layer,
                                               int enabled);

//===----------------------------------------------------------------------===//
// Profile
//===----------------------------------------------------------------------===//

/// Times of one stage of a layer since the last reset. On the CPU a stage is
/// what the code does for an operation, or several in one loop; on a device it
/// is a kernel.
typedef struct {
  const char *name;    // owned by the layer
  const char *kernels; // that a stage on the CPU calls, separated by ", "
  int64_t calls;       // in which the stage ran
  int64_t runs;        // more than `calls` where a call runs in chunks
  int64_t total_nanoseconds;
  const int64_t *samples; // nanoseconds in each of the last calls, in no order;
                          // owned by the layer, valid until the next
                          // moe_rt_layer_profile for this stage
  size_t sample_count;    // at most 4096
} moe_rt_stage_profile_t;

/// In place of the index of a stage: whole calls, in which checks and what
/// precedes the first stage are included.
#define MOE_RT_WHOLE_CALL ((size_t)-1)

/// Enables or disables the profile of later calls; initially disabled. On a
/// device, events between kernels measure them, a call waits until they have
/// run, and calls on a stream that is captured are not profiled. Fails with
/// MOE_RT_FAILED_PRECONDITION for a driver without events.
MOE_RT_API moe_rt_status_t moe_rt_layer_enable_profile(moe_rt_layer_t *layer,
                                                       int enabled);
/// Returns the number of stages: 0 for code that has none.
MOE_RT_API size_t moe_rt_layer_stage_count(const moe_rt_layer_t *layer);
/// Reads the times of a stage, or of the whole call. Calls that failed are not
/// counted.
MOE_RT_API moe_rt_status_t moe_rt_layer_profile(moe_rt_layer_t *layer,
                                                size_t stage,
                                                moe_rt_stage_profile_t *out);
MOE_RT_API void moe_rt_layer_reset_profile(moe_rt_layer_t *layer);

/// Returns the version of the library, e.g. "0.1.0".
MOE_RT_API const char *moe_rt_version(void);
/// Returns MOE_RT_ABI_VERSION of the library, for callers that load it at run
/// time.
MOE_RT_API int32_t moe_rt_abi_version(void);

#ifdef __cplusplus
}
#endif

#endif // MOE_RT_MOE_RT_H
