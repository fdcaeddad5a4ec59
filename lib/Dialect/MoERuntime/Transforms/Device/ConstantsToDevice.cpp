//===- ConstantsToDevice.cpp - Constants that the device can read ---------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A constant buffer is data of the program, on the host. On a device its elements
// are written where they are used: most are a zero that something is added to.
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

/// Elements that are worth a store each.
static constexpr int64_t mostElements = 1024;

/// Replace a constant buffer by one that is written.
static LogicalResult write(memref::GetGlobalOp op) {
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
    if (elements.getNumElements() > mostElements)
      return op.emitOpError("expected at most ")
             << mostElements << " elements in a constant for a device, got "
             << elements.getNumElements() << "; make it a weight";
    int64_t number = 0;
    for (Attribute value : elements.getValues<Attribute>()) {
      SmallVector<Value> indices;
      int64_t rest = number++;
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
        function.walk(
            [&](memref::GetGlobalOp op) { constants.push_back(op); });
    });
    for (memref::GetGlobalOp op : constants)
      if (failed(write(op)))
        return signalPassFailure();
  }
};
} // namespace
