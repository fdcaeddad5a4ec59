//===- checkpoint.h - Tensors in files ----------------------------*- C -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Reads the weights of layers from files: open, list, bind, close. Its
// conventions are those of moe_rt.h.
//
// The library detects the format of a file; it supports .safetensors and .gguf
// (versions 2 and 3, little-endian). Files are mapped, not read; changing one
// while it is open is not supported. Headers are checked when a file is opened,
// before they are used.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_CHECKPOINT_H
#define MOE_RT_CHECKPOINT_H

#include "moe_rt/moe_rt.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct moe_rt_checkpoint_s moe_rt_checkpoint_t;

/// A tensor, row-major and compact. The checkpoint owns the pointers.
///
/// A block-quantised tensor of a .gguf file is one of bytes: `type` is ggml's
/// name of the format, e.g. "q4_0", "q6_K" or "mxfp4", `dtype` is u8, and the
/// last extent is in bytes: those of the blocks of a row.
typedef struct {
  const char *name;
  const char *type; // of its elements, e.g. "bf16"
  DLDataType dtype; // `bits` is 0 if DLPack has no such type
  int32_t ndim;
  const int64_t *shape;
  const void *data; // read-only, of any alignment
  uint64_t bytes;
} moe_rt_checkpoint_tensor_t;

/// Opens a .safetensors file, the index of several (.index.json), or the
/// directory of a Hugging Face model: with `model.safetensors`, with an index,
/// or with .safetensors files without common names. An index can only name
/// files in its own directory; they are opened when one of their tensors is
/// first requested. Or opens a .gguf file; of one that is split
/// (NAME-00001-of-00003.gguf), any part opens all, which are in one directory.
/// Shapes are row-major, which is the reverse of what the file has: the experts
/// of a layer are [E, N, K]. Fails with MOE_RT_NOT_FOUND if a file does not
/// exist and MOE_RT_DATA_LOSS if it is damaged.
MOE_RT_API moe_rt_status_t moe_rt_checkpoint_open(const char *path,
                                                  moe_rt_checkpoint_t **out);
/// Closes a checkpoint; layers created from it stay valid.
MOE_RT_API void moe_rt_checkpoint_close(moe_rt_checkpoint_t *checkpoint);

/// Returns the number of tensors.
MOE_RT_API size_t
moe_rt_checkpoint_tensor_count(const moe_rt_checkpoint_t *checkpoint);
/// Returns the name of tensor `index`, in the order of names; NULL if out of
/// range.
MOE_RT_API const char *
moe_rt_checkpoint_tensor_name(const moe_rt_checkpoint_t *checkpoint,
                              size_t index);
/// Finds the tensor with that name. Thread-safe.
MOE_RT_API moe_rt_status_t
moe_rt_checkpoint_find(moe_rt_checkpoint_t *checkpoint, const char *name,
                       moe_rt_checkpoint_tensor_t *out);

/// Creates a layer and binds the weights of a function, NULL for the only one.
/// Each weight is read from the tensors that the module names as its source,
/// which are stacked if there are several, else from the tensor with its name.
/// All are found and checked before the first is read. Types must agree, except
/// that integers of a weight have no sign: u8 is i8, as in moe_rt_layer_create.
/// Shapes must agree, except that a source may merge adjacent dimensions of its
/// weight, or split one.
///
/// Weights that calls read stay mapped if they are aligned and the context is
/// for the CPU; others are copied to memory of the layer, or read expert by
/// expert if the code needs another layout. The checkpoint may be closed
/// afterwards. Thread-safe.
MOE_RT_API moe_rt_status_t moe_rt_layer_create_from_checkpoint(
    moe_rt_module_t *module, const char *function,
    moe_rt_checkpoint_t *checkpoint, moe_rt_layer_t **out);

#ifdef __cplusplus
} // extern "C"
#endif

#endif // MOE_RT_CHECKPOINT_H
