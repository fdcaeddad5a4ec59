//===- ConstantsToDevice.cpp - Constants in device memory -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A constant buffer is a global of the host program. For a device it is
// initialized where it is used: most are zeros that an accumulation starts
// from.
//
//===----------------------------------------------------------------------===//

#include "moe/Dialect/MoE/IR/MoEABI.h"
#include "moe/Dialect/MoERuntime/Transforms/Passes.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

using namespace mlir;
using namespace mlir::moe;

namespace mlir::moe {
#define GEN_PASS_DEF_MOECONSTANTSTODEVICE
#include "moe/Dialect/MoERuntime/Transforms/Passes.h.inc"
} // namespace mlir::moe

/// The largest constant that is initialized with a store for each element.
static constexpr int64_t maxElements = 1024;

/// Replaces a constant buffer by an allocation that is initialized.
static LogicalResult materialize(memref::GetGlobalOp op) {
  auto global = SymbolTable::lookupNearestSymbolFrom<memref::GlobalOp>(
      op, op.getNameAttr());
  auto elements = dyn_cast_or_null<DenseElementsAttr>(
      global ? global.getInitialValue().value_or(Attribute()) : Attribute());
  if (!elements)
    return op.emitOpError("expected a constant with its elements");
  ImplicitLocOpBuilder b(op.getLoc(), op);
  auto type = op.getType();
  auto constant = [&](Attribute value) -> Value {
    return arith::ConstantOp::create(b, cast<TypedAttr>(value));
  };
  Value buffer = memref::AllocOp::create(
      b, MemRefType::get(type.getShape(), type.getElementType()));
  if (elements.isSplat()) {
    linalg::FillOp::create(b, constant(elements.getSplatValue<Attribute>()),
                           buffer);
  } else {
    if (elements.getNumElements() > maxElements)
      return op.emitOpError("expected at most ")
             << maxElements << " elements in a constant for a device, got "
             << elements.getNumElements() << "; make it a weight";
    int64_t next = 0;
    for (Attribute value : elements.getValues<Attribute>()) {
      SmallVector<Value> indices;
      int64_t rest = next++;
      for (int64_t extent : llvm::reverse(type.getShape())) {
        indices.push_back(arith::ConstantIndexOp::create(b, rest % extent));
        rest /= extent;
      }
      std::reverse(indices.begin(), indices.end());
      memref::StoreOp::create(b, constant(value), buffer, indices);
    }
  }
  op.replaceAllUsesWith(buffer);
  op.erase();
  return success();
}

namespace {
struct MoEConstantsToDevice
    : moe::impl::MoEConstantsToDeviceBase<MoEConstantsToDevice> {
  void runOnOperation() override {
    SmallVector<memref::GetGlobalOp> constants;
    getOperation().walk([&](func::FuncOp function) {
      if (isExported(function))
        function.walk([&](memref::GetGlobalOp op) { constants.push_back(op); });
    });
    for (memref::GetGlobalOp op : constants)
      if (failed(materialize(op)))
        return signalPassFailure();
  }
};
} // namespace
