//===- ort_api.h - What is used of ONNX Runtime's C interface --*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// ONNX Runtime passes its functions as one table, to which versions only
// append, so the place of a function is that of every later version. Its
// packages for Python have no header, hence this declaration of what custom
// operators need.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ONNXRUNTIME_ORT_API_H
#define MOE_ONNXRUNTIME_ORT_API_H

#include <cstddef>
#include <cstdint>

namespace moe::ort {

/// The version of the interface that is asked for: that of release 1.16.
constexpr uint32_t version = 16;

struct Status;
struct Value;
struct TensorInfo;
struct KernelInfo;
struct KernelContext;
struct SessionOptions;
struct Domain;
struct CustomOp;

enum ErrorCode {
  FAIL = 1,
  INVALID_ARGUMENT = 2,
  NO_SUCHFILE = 3,
  NOT_IMPLEMENTED = 9,
};

/// Element types, as in onnx.proto.
enum ElementType {
  UNDEFINED = 0,
  FLOAT = 1,
  UINT8 = 2,
  INT8 = 3,
  UINT16 = 4,
  INT16 = 5,
  INT32 = 6,
  INT64 = 7,
  BOOL = 9,
  FLOAT16 = 10,
  DOUBLE = 11,
  UINT32 = 12,
  UINT64 = 13,
  BFLOAT16 = 16,
  FLOAT8E4M3FN = 17,
  FLOAT8E5M2 = 19,
};

enum Characteristic { VARIADIC = 2 };

/// The table of functions.
struct Api {
  void *functions[250];

  template <size_t index, typename Result = Status *, typename... Arguments>
  Result call(Arguments... arguments) const {
    return reinterpret_cast<Result (*)(Arguments...)>(functions[index])(
        arguments...);
  }

  Status *createStatus(ErrorCode code, const char *message) const {
    return call<0>(code, message);
  }
  Status *createDomain(const char *name, Domain **out) const {
    return call<26>(name, out);
  }
  Status *addOperator(Domain *domain, const CustomOp *op) const {
    return call<27>(domain, op);
  }
  Status *addDomain(SessionOptions *options, Domain *domain) const {
    return call<28>(options, domain);
  }
  Status *tensorData(const Value *value, void **out) const {
    return call<51>(value, out);
  }
  Status *elementType(const TensorInfo *info, ElementType *out) const {
    return call<60>(info, out);
  }
  Status *rank(const TensorInfo *info, size_t *out) const {
    return call<61>(info, out);
  }
  Status *shape(const TensorInfo *info, int64_t *out, size_t rank) const {
    return call<62>(info, out, rank);
  }
  Status *tensorInfo(const Value *value, TensorInfo **out) const {
    return call<65>(value, out);
  }
  Status *integerAttribute(const KernelInfo *info, const char *name,
                           int64_t *out) const {
    return call<86>(info, name, out);
  }
  /// With `out` null, only the size, which includes a NUL.
  Status *stringAttribute(const KernelInfo *info, const char *name, char *out,
                          size_t *size) const {
    return call<87>(info, name, out, size);
  }
  Status *input(const KernelContext *context, size_t index,
                const Value **out) const {
    return call<90>(context, index, out);
  }
  Status *output(KernelContext *context, size_t index, const int64_t *shape,
                 size_t rank, Value **out) const {
    return call<91>(context, index, shape, rank, out);
  }
  void releaseStatus(Status *status) const { call<93, void>(status); }
  void releaseTensorInfo(TensorInfo *info) const { call<99, void>(info); }
  Status *inputCount(const KernelInfo *info, size_t *out) const {
    return call<230>(info, out);
  }
  Status *outputCount(const KernelInfo *info, size_t *out) const {
    return call<231>(info, out);
  }
  Status *constantInput(const KernelInfo *info, size_t index, int *isConstant,
                        const Value **out) const {
    return call<249>(info, index, isConstant, out);
  }
};

struct ApiBase {
  const Api *(*getApi)(uint32_t version);
  const char *(*getVersionString)();
};

/// An operator, up to what version 16 of the interface reads.
struct CustomOp {
  uint32_t version;
  void *(*createKernelV1)(const CustomOp *, const Api *, const KernelInfo *);
  const char *(*name)(const CustomOp *);
  const char *(*executionProvider)(const CustomOp *);
  ElementType (*inputType)(const CustomOp *, size_t);
  size_t (*inputTypeCount)(const CustomOp *);
  ElementType (*outputType)(const CustomOp *, size_t);
  size_t (*outputTypeCount)(const CustomOp *);
  void (*computeV1)(void *, KernelContext *);
  void (*destroyKernel)(void *);
  Characteristic (*inputCharacteristic)(const CustomOp *, size_t);
  Characteristic (*outputCharacteristic)(const CustomOp *, size_t);
  int (*inputMemoryType)(const CustomOp *, size_t);
  int (*variadicInputMinArity)(const CustomOp *);
  int (*variadicInputHomogeneity)(const CustomOp *);
  int (*variadicOutputMinArity)(const CustomOp *);
  int (*variadicOutputHomogeneity)(const CustomOp *);
  Status *(*createKernel)(const CustomOp *, const Api *, const KernelInfo *,
                          void **);
  Status *(*compute)(void *, KernelContext *);
};

} // namespace moe::ort

#endif // MOE_ONNXRUNTIME_ORT_API_H
