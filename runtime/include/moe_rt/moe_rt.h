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
//  * No exception and no abort crosses this boundary; there is no global state
//    but the threads that contexts share.
//  * Objects are reference-free: destroy layers before their module, modules
//    before their context. A context, module or layer may be used from several
//    threads at once for calls; creation and destruction are not concurrent
//    with calls on the same object. moe_rt_layer_call on one layer may run
//    concurrently when each call brings its own workspace.
//  * Tensors cross as DLTensor, row-major and compact. `T` is the number of
//    tokens: the extent of every dynamic dimension of a layer's signature.
//  * A context is for the CPU or for one NVIDIA GPU, "the device". All tensors
//    and workspaces of its layers are there; their elements are never read on
//    the host. What a call on a device does apart from one on the CPU stands
//    under "Calls on a device".
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

/// Version of this interface and of the entry points inside an artifact.
///
///   int32_t moe_entry_<f>(void **args, const moe_rt_executor_t *executor);
///   int64_t moe_workspace_<f>(int64_t tokens);
///
/// `args` has a pointer to the memref descriptor of each argument of the
/// metadata, in its order, then one to that of the workspace. The executor is
/// never NULL. The entry returns 0 unless it fails.
///
/// In a variant for a device the entry has a `const moe_rt_launcher_t *`
/// (moe_rt/launcher.h) in the executor's place. It runs on the host, where it
/// starts kernels; what the descriptors point to is memory of the device.
#define MOE_RT_ABI_VERSION 3

//===----------------------------------------------------------------------===//
// Status
//===----------------------------------------------------------------------===//

typedef enum {
  MOE_RT_OK = 0,
  MOE_RT_INVALID_ARGUMENT = 3,    // a tensor, a count or a pointer is wrong
  MOE_RT_NOT_FOUND = 5,           // no such file, function or symbol
  MOE_RT_RESOURCE_EXHAUSTED = 8,  // memory, or a workspace that is too small
  MOE_RT_FAILED_PRECONDITION = 9, // this CPU or driver cannot run it
  MOE_RT_OUT_OF_RANGE = 11,       // T outside the declared range
  MOE_RT_UNIMPLEMENTED = 12,
  MOE_RT_INTERNAL = 13,
  MOE_RT_DATA_LOSS = 15, // a damaged or foreign artifact
} moe_rt_code_t;

typedef struct moe_rt_status_s *moe_rt_status_t;

/// Code of a status; MOE_RT_OK for NULL.
MOE_RT_API moe_rt_code_t moe_rt_status_code(moe_rt_status_t status);
/// Message of a status, owned by it; "" for NULL.
MOE_RT_API const char *moe_rt_status_message(moe_rt_status_t status);
/// Name of a code, e.g. "INVALID_ARGUMENT".
MOE_RT_API const char *moe_rt_code_name(moe_rt_code_t code);
MOE_RT_API void moe_rt_status_free(moe_rt_status_t status);

//===----------------------------------------------------------------------===//
// Context
//===----------------------------------------------------------------------===//

typedef struct moe_rt_context_s moe_rt_context_t;

/// Allocator for what the runtime owns on the host: workspaces that a caller
/// did not bring and prepared weights. `alignment` is a power of two: 2 MiB for
/// what has at least that size, so that it can lie in huge pages. NULL
/// functions mean the C library's. Both are called until the context is
/// destroyed.
typedef struct {
  void *user;
  void *(*allocate)(void *user, size_t bytes, size_t alignment);
  void (*release)(void *user, void *memory, size_t bytes);
} moe_rt_allocator_t;

typedef struct {
  size_t struct_size; // sizeof(moe_rt_context_options_t)
  moe_rt_allocator_t allocator;
  /// Threads that a call may use, its own included; 0 stands for the cores that
  /// this process may use: those of its affinity, but no more than its cgroups
  /// give it time for (cpu.max, cpu.cfs_quota_us).
  int64_t num_threads;
  /// Runs the tasks of calls instead of threads of the runtime; may be NULL, is
  /// copied. num_threads must be 0 beside it. moe_rt/openmp.h has one.
  const moe_rt_executor_t *executor;
  /// Where layers run: all zero, or {kDLCPU, 0}, stands for the CPU,
  /// {kDLCUDA, i} for the NVIDIA GPU that the driver counts as i.
  DLDevice device;
} moe_rt_context_options_t;

/// `options` may be NULL. Threads start with the first call that needs them,
/// sleep while there is nothing to do, and block all signals. Contexts with
/// num_threads 0 share them; those of another end with it. One call at a time
/// has the use of them; one that comes meanwhile, or finds that calls of other
/// contexts leave it too few cores, runs on its own thread, and a thread of
/// those rests for it. In a child of fork() there are none: if no call ran at
/// the time of the fork, the child may use the context, with calls on their own
/// thread; a context that it creates has threads.
///
/// A context for a device opens the driver, libcuda.so.1 or the library that
/// the environment variable MOE_CUDA_LIBRARY names, which must support
/// CUDA 12.0; nothing else of CUDA is needed. It shares the device's primary
/// context with the rest of the process. Without driver or device it is refused
/// with the reason (MOE_RT_FAILED_PRECONDITION).
MOE_RT_API moe_rt_status_t moe_rt_context_create(
    const moe_rt_context_options_t *options, moe_rt_context_t **out);
/// Release the workspaces that no call uses, on the device, too: the context
/// keeps them for calls to come, on the CPU as many as there were calls at the
/// same time (16 at most), each as large as a call needed. Calls may run
/// meanwhile.
MOE_RT_API void moe_rt_context_trim(moe_rt_context_t *context);
MOE_RT_API void moe_rt_context_destroy(moe_rt_context_t *context);

//===----------------------------------------------------------------------===//
// Module
//===----------------------------------------------------------------------===//

typedef struct moe_rt_module_s moe_rt_module_t;

/// Load an artifact from a file or from memory (copied). Magic, versions, size,
/// checksum, target and signatures are verified before any of its code runs.
MOE_RT_API moe_rt_status_t moe_rt_module_load(moe_rt_context_t *context,
                                              const char *path,
                                              moe_rt_module_t **out);
MOE_RT_API moe_rt_status_t moe_rt_module_load_memory(moe_rt_context_t *context,
                                                     const void *data,
                                                     size_t size,
                                                     moe_rt_module_t **out);

/// Finds the address of an entry point by its name; NULL if there is none.
typedef void *(*moe_rt_resolve_fn)(void *user, const char *symbol);

/// Make a module of code that is already in memory (a JIT): `metadata` is what
/// an artifact carries (JSON), `resolve` is called during this call only.
MOE_RT_API moe_rt_status_t moe_rt_module_create(
    moe_rt_context_t *context, const char *metadata, size_t metadata_size,
    moe_rt_resolve_fn resolve, void *user, moe_rt_module_t **out);
MOE_RT_API void moe_rt_module_destroy(moe_rt_module_t *module);

/// The metadata of the module, JSON, NUL-terminated, owned by the module.
MOE_RT_API const char *moe_rt_module_metadata(const moe_rt_module_t *module);
/// Which element of its `variants` the context runs: the first that it can.
MOE_RT_API size_t moe_rt_module_variant(const moe_rt_module_t *module);
MOE_RT_API size_t moe_rt_module_function_count(const moe_rt_module_t *module);
/// Name of function `index`, owned by the module; NULL if out of range.
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

/// One tensor of a signature. Pointers are owned by the module.
typedef struct {
  const char *name;
  moe_rt_role_t role;
  DLDataType dtype;
  int32_t ndim;
  const int64_t *shape; // -1 is T
  uint32_t alignment;   // bytes that the data pointer must be aligned to
  int64_t num_experts;  // > 0: elements are expert ids in [-1, num_experts)
  bool retained;        // a weight that calls read where moe_rt_layer_create
                        // found it
} moe_rt_tensor_info_t;

typedef struct moe_rt_layer_s moe_rt_layer_t;

/// Number of tensors of one role of a function, and their descriptions.
MOE_RT_API moe_rt_status_t moe_rt_function_tensor_count(
    const moe_rt_module_t *module, const char *function, moe_rt_role_t role,
    size_t *out);
MOE_RT_API moe_rt_status_t moe_rt_function_tensor_info(
    const moe_rt_module_t *module, const char *function, moe_rt_role_t role,
    size_t index, moe_rt_tensor_info_t *out);
/// The inclusive range of T that the function was compiled for.
MOE_RT_API moe_rt_status_t
moe_rt_function_token_range(const moe_rt_module_t *module, const char *function,
                            int64_t *min_tokens, int64_t *max_tokens);

/// Bind `count` weights, in signature order, to a function of `module`. Those
/// that the code wants in another layout are prepared here, once, into memory
/// of the layer. Calls read the others where they are: a weight whose
/// information says `retained` must outlive the layer, any other may be freed
/// after this call. `function` NULL means the only function of the module.
/// On a device, what writes the weights must have run, or be on the legacy
/// default stream: no other is waited for.
MOE_RT_API moe_rt_status_t moe_rt_layer_create(moe_rt_module_t *module,
                                               const char *function,
                                               const DLTensor *weights,
                                               size_t count,
                                               moe_rt_layer_t **out);

/// Reads a part of a weight to `data`, row-major and compact: the `count`
/// elements of its first dimension from `first` on (experts, where it has one
/// for each), `bytes` bytes. Returns 0, or anything else if it cannot. Called
/// from several threads at once.
typedef int32_t (*moe_rt_read_weight_fn)(void *user, size_t weight,
                                         int64_t first, int64_t count,
                                         void *data, uint64_t bytes);

/// Like moe_rt_layer_create, with weights that are read piece by piece, so that
/// never more than a few experts are in memory beside what the layer keeps: it
/// keeps all that its calls read. `read` is called during this call only.
MOE_RT_API moe_rt_status_t moe_rt_layer_create_from_source(
    moe_rt_module_t *module, const char *function, moe_rt_read_weight_fn read,
    void *user, moe_rt_layer_t **out);
MOE_RT_API void moe_rt_layer_destroy(moe_rt_layer_t *layer);

/// Bytes of weights in memory of the layer, on the device if it has one: what
/// was prepared, and what was kept of a source.
MOE_RT_API uint64_t moe_rt_layer_weight_bytes(const moe_rt_layer_t *layer);

/// Bytes of workspace that a call with `tokens` tokens needs; a call never uses
/// more. On a device what the dispatches report lies there, too.
MOE_RT_API moe_rt_status_t moe_rt_layer_workspace_bytes(
    const moe_rt_layer_t *layer, int64_t tokens, uint64_t *out);

/// Run the layer. T comes from the inputs (from the outputs where no input has
/// a dynamic dimension; it is the largest allowed where nothing has one).
/// Everything is checked before anything is written. Where no output has an
/// element, as is usual with T = 0, none of the code runs.
/// `workspace`, aligned to 64 bytes, may be NULL: then the context provides it,
/// from its allocator or left by a call before. Outputs may overlap neither
/// inputs, weights, workspace nor each other.
MOE_RT_API moe_rt_status_t
moe_rt_layer_call(moe_rt_layer_t *layer, const DLTensor *inputs,
                  size_t input_count, DLTensor *outputs, size_t output_count,
                  void *workspace, uint64_t workspace_bytes);

//===----------------------------------------------------------------------===//
// Calls on a device
//===----------------------------------------------------------------------===//
//
// A workspace is memory of the device, aligned to 256 bytes. Without one the
// context provides it from a pool of memory of its own. Expert ids and booleans
// are not looked at before a call: the kernels check ids, and what they find is
// an error of the call, known once it has run.
//
// moe_rt_layer_call runs on the legacy default stream and returns when the
// outputs are there, as on the CPU. It follows what blocking streams were given
// before; what a non-blocking one writes must have run. While a stream of the
// device is captured, use moe_rt_layer_call_on_stream.

/// Enqueue a call on `stream`, a CUstream of the device's primary context (NULL
/// is the legacy default stream), and return without waiting for it. Tensors,
/// workspace and layer must stay until the call has run. Nothing is allocated
/// on the device if the caller brings a workspace, so the call can be captured
/// in a graph, which may be replayed with other contents of the same tensors;
/// without one, allocation and release become part of the graph.
///
/// It starts with moe_rt_layer_poll's look at the calls before: if one of them
/// failed, this call returns that error and does not run. On the CPU `stream`
/// must be NULL, and this is moe_rt_layer_call.
MOE_RT_API moe_rt_status_t moe_rt_layer_call_on_stream(
    moe_rt_layer_t *layer, const DLTensor *inputs, size_t input_count,
    DLTensor *outputs, size_t output_count, void *workspace,
    uint64_t workspace_bytes, void *stream);

/// The same, for the first `*live_tokens` of the T tokens alone: an i32 in the
/// device's memory, which the kernels read when they run. A graph captured with
/// the largest T may so be replayed with fewer tokens: only this number has to
/// be written. What is below 0 counts as 0, what is above T as T. Rows of the
/// outputs that belong to no live token have unspecified contents; what the
/// inputs hold there does not matter to the others, but ids that are inputs
/// must be valid. NULL means all of them. Layers in which a token's result
/// depends on the others, such as those with a capacity, and those that run in
/// chunks are refused.
MOE_RT_API moe_rt_status_t moe_rt_layer_call_live_on_stream(
    moe_rt_layer_t *layer, const DLTensor *inputs, size_t input_count,
    DLTensor *outputs, size_t output_count, void *workspace,
    uint64_t workspace_bytes, void *stream, const int32_t *live_tokens);

/// The first error that calls of moe_rt_layer_call_on_stream had on the device
/// since the last poll, among those that have run, replays of graphs included:
/// those that moe_rt_layer_call would have returned. Waits for nothing and
/// disturbs no capture. An error that leaves the device unusable, such as a
/// wrong address, is returned by every poll. NULL on the CPU.
MOE_RT_API moe_rt_status_t moe_rt_layer_poll(moe_rt_layer_t *layer);

//===----------------------------------------------------------------------===//
// Statistics
//===----------------------------------------------------------------------===//

/// What one dispatch of a layer has done since the last reset.
typedef struct {
  int64_t num_experts;
  int64_t top_k; // choices of each token; 0 where that is unknown
  const int64_t *tokens_per_expert; // [num_experts], owned by the layer, valid
                                    // until the next moe_rt_layer_statistics
                                    // for this dispatch
  int64_t calls;
  int64_t choices; // choices that named an expert
  int64_t dropped; // of those, how many found it full
  int64_t padding; // rows computed beyond the rows of tokens; 0 where the
                   // code does not count them
} moe_rt_statistics_t;

/// Calls that failed are not counted. On a device a replay of a graph counts as
/// the calls in it do, and to read or to reset statistics waits for all work of
/// the device's primary context. While a stream is captured that cannot be:
/// moe_rt_layer_statistics is refused, and a capture of another thread may end
/// there; moe_rt_layer_reset_statistics does nothing.
MOE_RT_API size_t moe_rt_layer_dispatch_count(const moe_rt_layer_t *layer);
MOE_RT_API moe_rt_status_t moe_rt_layer_statistics(moe_rt_layer_t *layer,
                                                   size_t dispatch,
                                                   moe_rt_statistics_t *out);
MOE_RT_API void moe_rt_layer_reset_statistics(moe_rt_layer_t *layer);

/// With `enabled` 0, calls that begin from now on need not be counted. On a
/// device that saves a kernel and the clearing of what it reads, in layers
/// whose routing cannot be wrong: experts are chosen by a gate, and none is
/// ever full. All calls are counted at first.
MOE_RT_API void moe_rt_layer_enable_statistics(moe_rt_layer_t *layer,
                                               int enabled);

/// Version of the library, e.g. "0.1.0".
MOE_RT_API const char *moe_rt_version(void);
/// MOE_RT_ABI_VERSION of the library, for callers that open it at run time.
MOE_RT_API int32_t moe_rt_abi_version(void);

#ifdef __cplusplus
}
#endif

#endif // MOE_RT_MOE_RT_H
