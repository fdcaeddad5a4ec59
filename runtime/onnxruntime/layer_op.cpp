//===- layer_op.cpp - Layers in sessions of ONNX Runtime ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// The operator `Layer` of the domain `moe.mlir`, for the CPU. Its inputs are
// those of a compiled function, then its weights, which must be constants; its
// outputs are those of the function. Attributes:
//
//   artifact       the bytes of an artifact, or
//   artifact_path  the file of one
//   function       the name of its function, if it has several
//   num_threads    of moe_rt_context_options_t; 0 by default
//
//===----------------------------------------------------------------------===//

#include "ort_api.h"

#include "moe_rt/moe_rt.h"

#include <array>
#include <memory>
#include <string>
#include <vector>

namespace moe::ort {
namespace {

constexpr size_t maxRank = 8;

//===----------------------------------------------------------------------===//
// Errors
//===----------------------------------------------------------------------===//

Status *fail(const Api &api, const std::string &message,
             ErrorCode code = INVALID_ARGUMENT) {
  return api.createStatus(code, ("moe: " + message).c_str());
}

Status *convert(const Api &api, moe_rt_status_t status) {
  if (!status)
    return nullptr;
  ErrorCode code = FAIL;
  switch (moe_rt_status_code(status)) {
  case MOE_RT_INVALID_ARGUMENT:
  case MOE_RT_OUT_OF_RANGE:
    code = INVALID_ARGUMENT;
    break;
  case MOE_RT_NOT_FOUND:
    code = NO_SUCHFILE;
    break;
  case MOE_RT_UNIMPLEMENTED:
    code = NOT_IMPLEMENTED;
    break;
  default:
    break;
  }
  Status *result = fail(api, moe_rt_status_message(status), code);
  moe_rt_status_free(status);
  return result;
}

#define MOE_ORT_TRY(expression)                                                \
  if (Status *status = (expression))                                           \
    return status;

//===----------------------------------------------------------------------===//
// Tensors
//===----------------------------------------------------------------------===//

bool typeOf(ElementType type, DLDataType &out) {
  switch (type) {
  case FLOAT:
    out = {kDLFloat, 32, 1};
    return true;
  case FLOAT16:
    out = {kDLFloat, 16, 1};
    return true;
  case DOUBLE:
    out = {kDLFloat, 64, 1};
    return true;
  case BFLOAT16:
    out = {kDLBfloat, 16, 1};
    return true;
  case FLOAT8E4M3FN:
    out = {10, 8, 1};
    return true;
  case FLOAT8E5M2:
    out = {12, 8, 1};
    return true;
  case BOOL:
    out = {6, 8, 1};
    return true;
  case INT8:
    out = {kDLInt, 8, 1};
    return true;
  case INT16:
    out = {kDLInt, 16, 1};
    return true;
  case INT32:
    out = {kDLInt, 32, 1};
    return true;
  case INT64:
    out = {kDLInt, 64, 1};
    return true;
  case UINT8:
    out = {kDLUInt, 8, 1};
    return true;
  case UINT16:
    out = {kDLUInt, 16, 1};
    return true;
  case UINT32:
    out = {kDLUInt, 32, 1};
    return true;
  case UINT64:
    out = {kDLUInt, 64, 1};
    return true;
  default:
    return false;
  }
}

struct Tensor {
  DLTensor dl = {};
  std::array<int64_t, maxRank> shape = {};
};

Status *describe(const Api &api, const Value *value, const char *name,
                 Tensor &out) {
  if (!value)
    return fail(api, std::string("expected '") + name + "', got none");
  TensorInfo *raw = nullptr;
  MOE_ORT_TRY(api.tensorInfo(value, &raw))
  auto release = [&api](TensorInfo *info) { api.releaseTensorInfo(info); };
  std::unique_ptr<TensorInfo, decltype(release)> info(raw, release);
  ElementType type = UNDEFINED;
  size_t rank = 0;
  MOE_ORT_TRY(api.elementType(info.get(), &type))
  MOE_ORT_TRY(api.rank(info.get(), &rank))
  if (rank > maxRank || !typeOf(type, out.dl.dtype))
    return fail(api, std::string("'") + name +
                         "' has a type or a rank that no layer takes");
  MOE_ORT_TRY(api.shape(info.get(), out.shape.data(), rank))
  out.dl.ndim = static_cast<int32_t>(rank);
  out.dl.shape = out.shape.data();
  out.dl.device = {kDLCPU, 0};
  return api.tensorData(value, &out.dl.data);
}

//===----------------------------------------------------------------------===//
// The kernel: one layer
//===----------------------------------------------------------------------===//

class Kernel {
public:
  explicit Kernel(const Api &api) : api(api) {}
  Kernel(const Kernel &) = delete;
  Kernel &operator=(const Kernel &) = delete;
  ~Kernel() {
    moe_rt_layer_destroy(layer);
    moe_rt_module_destroy(module);
    moe_rt_context_destroy(context);
  }

  Status *create(const KernelInfo *info) {
    std::string artifact, path, function;
    int64_t threads = 0;
    readString(info, "artifact", artifact);
    readString(info, "artifact_path", path);
    readString(info, "function", function);
    if (Status *status = api.integerAttribute(info, "num_threads", &threads)) {
      api.releaseStatus(status);
      threads = 0;
    }
    if (artifact.empty() == path.empty())
      return fail(api, "expected one of the attributes 'artifact' and "
                       "'artifact_path'");
    moe_rt_context_options_t options = {};
    options.struct_size = sizeof(options);
    options.num_threads = threads;
    MOE_ORT_TRY(convert(api, moe_rt_context_create(&options, &context)))
    MOE_ORT_TRY(convert(
        api, path.empty() ? moe_rt_module_load_memory(context, artifact.data(),
                                                      artifact.size(), &module)
                          : moe_rt_module_load(context, path.c_str(), &module)))
    if (function.empty()) {
      if (moe_rt_module_function_count(module) != 1)
        return fail(api, "expected the attribute 'function': the artifact has "
                         "several");
      function = moe_rt_module_function_name(module, 0);
    }
    MOE_ORT_TRY(readSignature(function, MOE_RT_INPUT, inputs))
    MOE_ORT_TRY(readSignature(function, MOE_RT_OUTPUT, outputs))
    std::vector<moe_rt_tensor_info_t> weights;
    MOE_ORT_TRY(readSignature(function, MOE_RT_WEIGHT, weights))
    size_t given = 0, results = 0;
    MOE_ORT_TRY(api.inputCount(info, &given))
    MOE_ORT_TRY(api.outputCount(info, &results))
    if (given != inputs.size() + weights.size() || results != outputs.size())
      return fail(api, "'" + function + "' has " +
                           std::to_string(inputs.size()) + " inputs, " +
                           std::to_string(weights.size()) + " weights and " +
                           std::to_string(outputs.size()) + " outputs, got " +
                           std::to_string(given) + " inputs and " +
                           std::to_string(results) + " outputs");
    // The session keeps its constants as long as its kernels.
    std::vector<Tensor> tensors(weights.size());
    std::vector<DLTensor> bound;
    for (size_t i = 0; i < weights.size(); ++i) {
      int isConstant = 0;
      const Value *value = nullptr;
      MOE_ORT_TRY(
          api.constantInput(info, inputs.size() + i, &isConstant, &value))
      if (!isConstant)
        return fail(api, std::string("weight '") + weights[i].name +
                             "': expected a constant");
      MOE_ORT_TRY(describe(api, value, weights[i].name, tensors[i]))
      bound.push_back(tensors[i].dl);
    }
    return convert(api,
                   moe_rt_layer_create(module, function.c_str(), bound.data(),
                                       bound.size(), &layer));
  }

  Status *compute(KernelContext *call) {
    std::vector<Tensor> given(inputs.size()), results(outputs.size());
    std::vector<DLTensor> in, out;
    int64_t tokens = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Value *value = nullptr;
      MOE_ORT_TRY(api.input(call, i, &value))
      MOE_ORT_TRY(describe(api, value, inputs[i].name, given[i]))
      for (int d = 0; d < inputs[i].ndim && d < given[i].dl.ndim; ++d)
        if (inputs[i].shape[d] < 0)
          tokens = given[i].shape[d];
      in.push_back(given[i].dl);
    }
    for (size_t i = 0; i < outputs.size(); ++i) {
      const moe_rt_tensor_info_t &info = outputs[i];
      std::vector<int64_t> shape(info.shape, info.shape + info.ndim);
      for (int64_t &extent : shape)
        extent = extent < 0 ? tokens : extent;
      Value *value = nullptr;
      MOE_ORT_TRY(api.output(call, i, shape.data(), shape.size(), &value))
      MOE_ORT_TRY(describe(api, value, info.name, results[i]))
      out.push_back(results[i].dl);
    }
    // Without a workspace: the context keeps one for each concurrent call.
    return convert(api, moe_rt_layer_call(layer, in.data(), in.size(),
                                          out.data(), out.size(), nullptr, 0));
  }

private:
  // Leaves `out` empty without the attribute.
  void readString(const KernelInfo *info, const char *name, std::string &out) {
    size_t size = 0;
    Status *status = api.stringAttribute(info, name, nullptr, &size);
    if (!status) {
      out.resize(size);
      status = api.stringAttribute(info, name, out.data(), &size);
      out.resize(status || !size ? 0 : size - 1);
    }
    if (status)
      api.releaseStatus(status);
  }

  Status *readSignature(const std::string &function, moe_rt_role_t role,
                        std::vector<moe_rt_tensor_info_t> &out) {
    size_t count = 0;
    MOE_ORT_TRY(convert(api, moe_rt_function_tensor_count(
                                 module, function.c_str(), role, &count)))
    out.resize(count);
    for (size_t i = 0; i < count; ++i)
      MOE_ORT_TRY(convert(api, moe_rt_function_tensor_info(
                                   module, function.c_str(), role, i, &out[i])))
    return nullptr;
  }

  const Api &api;
  moe_rt_context_t *context = nullptr;
  moe_rt_module_t *module = nullptr;
  moe_rt_layer_t *layer = nullptr;
  std::vector<moe_rt_tensor_info_t> inputs, outputs; // the module owns names
};

//===----------------------------------------------------------------------===//
// The operator
//===----------------------------------------------------------------------===//

Status *createKernel(const CustomOp *, const Api *api, const KernelInfo *info,
                     void **out) {
  auto kernel = std::make_unique<Kernel>(*api);
  MOE_ORT_TRY(kernel->create(info))
  *out = kernel.release();
  return nullptr;
}

constexpr CustomOp layerOp = {
    version,
    nullptr,
    [](const CustomOp *) { return "Layer"; },
    [](const CustomOp *) { return "CPUExecutionProvider"; },
    [](const CustomOp *, size_t) { return UNDEFINED; },
    [](const CustomOp *) -> size_t { return 1; },
    [](const CustomOp *, size_t) { return UNDEFINED; },
    [](const CustomOp *) -> size_t { return 1; },
    nullptr,
    [](void *kernel) { delete static_cast<Kernel *>(kernel); },
    [](const CustomOp *, size_t) { return VARIADIC; },
    [](const CustomOp *, size_t) { return VARIADIC; },
    [](const CustomOp *, size_t) { return 0; },
    [](const CustomOp *) { return 1; },
    [](const CustomOp *) { return 0; },
    [](const CustomOp *) { return 1; },
    [](const CustomOp *) { return 0; },
    createKernel,
    [](void *kernel, KernelContext *context) {
      return static_cast<Kernel *>(kernel)->compute(context);
    },
};

} // namespace
} // namespace moe::ort

/// What ONNX Runtime calls in a library of custom operators.
extern "C" MOE_RT_API moe::ort::Status *
RegisterCustomOps(moe::ort::SessionOptions *options,
                  const moe::ort::ApiBase *base) {
  using namespace moe::ort;
  const Api *api = base->getApi(version);
  if (!api) {
    // An older release; version 1 has the two functions for this message.
    api = base->getApi(1);
    return fail(*api,
                std::string("expected ONNX Runtime 1.16 or later, got ") +
                    base->getVersionString(),
                NOT_IMPLEMENTED);
  }
  // Sessions of the process share it; it lives as long as this library.
  static Domain *domain = nullptr;
  static Status *failed = [&]() -> Status * {
    MOE_ORT_TRY(api->createDomain("moe.mlir", &domain))
    return api->addOperator(domain, &layerOp);
  }();
  if (failed)
    return fail(*api, "cannot create the domain moe.mlir", FAIL);
  return api->addDomain(options, domain);
}
