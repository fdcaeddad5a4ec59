//===- QuantizeActivations.cpp - Rows of 8 bits ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "QuantizedKernel.h"
#include "moe/Conversion/MoEToCPU/MoEToCPU.h"
#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoE/IR/QuantizedRows.h"

#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"
#include "mlir/IR/Remarks.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOEQUANTIZEACTIVATIONS
#include "moe/Conversion/Passes.h.inc"
} // namespace mlir::moe

/// Returns why the rows of a matmul stay exact; empty if they do not.
static StringRef reasonToStayExact(GroupedMatmulOp op,
                                   const CPUDescription &cpu,
                                   std::optional<PackedFormat> format) {
  if (!format)
    return "the weights are not packed with a format";
  if (!hasInt8Kernel(cpu, *format))
    return "no kernel of this processor multiplies this format with integers";
  if (op.getK() % QuantizedRows::group != 0)
    return "a row has no whole groups of 32";
  return "";
}

static bool asksForInt8(GroupedMatmulOp op) {
  auto function = op->getParentOfType<func::FuncOp>();
  auto activations =
      function ? function->getAttrOfType<StringAttr>(activationsAttrName)
               : StringAttr();
  return activations && activations.getValue() == "int8";
}

bool mlir::moe::canQuantizeRows(GroupedMatmulOp op, const CPUDescription &cpu,
                                const PackedFormat &format) {
  return asksForInt8(op) && reasonToStayExact(op, cpu, format).empty();
}

/// Creates the rounded rows of a matmul.
static Value quantizeRows(GroupedMatmulOp op) {
  ImplicitLocOpBuilder b(op.getLoc(), op);
  int64_t rows = cast<ShapedType>(op.getLhs().getType()).getDimSize(0);
  int64_t bytes = QuantizedRows::getBytes(op.getK());
  auto type = RankedTensorType::get({rows, bytes}, b.getI8Type());
  SmallVector<OpFoldResult> sizes =
      tensor::getMixedSizes(b, b.getLoc(), op.getLhs());
  sizes[1] = b.getIndexAttr(bytes);
  Value init = tensor::EmptyOp::create(b, sizes, type.getElementType());
  return QuantizeRowsOp::create(b, type, op.getLhs(), init).getResult();
}

namespace {
struct MoEQuantizeActivations
    : moe::impl::MoEQuantizeActivationsBase<MoEQuantizeActivations> {
  using MoEQuantizeActivationsBase::MoEQuantizeActivationsBase;

  void runOnOperation() override {
    CPUDescription cpu{vectorBits, vectorRegisters, bf16Dot,
                       int8Dot,    bytePermute,     prefetchedPages};
    if (failed(cpu.verify(getOperation())))
      return signalPassFailure();
    getOperation().walk([&](GroupedMatmulOp op) {
      if (asksForInt8(op))
        run(op, cpu);
    });
  }

  void run(GroupedMatmulOp op, const CPUDescription &cpu) {
    if (!op.getResult() || op.hasQuantizedRows())
      return;
    std::optional<PackedFormat> packed;
    if (FormatAttr format =
            op.getPanels() ? op.getPanels()->getFormat() : FormatAttr())
      packed = PackedFormat::get(format);
    StringRef reason = reasonToStayExact(op, cpu, packed);
    if (!reason.empty()) {
      remark::missed(
          op.getLoc(),
          remark::RemarkOpts::name("ExactRows")
              .category("moe-quantize-activations")
              .function(op->getParentOfType<func::FuncOp>().getName()))
          << ("rows stay exact: " + reason).str();
      return;
    }
    op.getLhsMutable().assign(quantizeRows(op));
    ++numQuantized;
  }
};
} // namespace
