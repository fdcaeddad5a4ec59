//===- HostBuilder.h - Builder of host code ---------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Short names for the `index` arithmetic with which the host computes grids and
// scalar arguments of launches.
//
//===----------------------------------------------------------------------===//

#ifndef MOE_LIB_CONVERSION_MOETOGPU_BUILDER_HOSTBUILDER_H
#define MOE_LIB_CONVERSION_MOETOGPU_BUILDER_HOSTBUILDER_H

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/ImplicitLocOpBuilder.h"

namespace mlir::moe {

class HostBuilder : public ImplicitLocOpBuilder {
public:
  using ImplicitLocOpBuilder::ImplicitLocOpBuilder;

  Value index(int64_t value) {
    return arith::ConstantIndexOp::create(*this, value);
  }
  Value i1(bool value) { return arith::ConstantIntOp::create(*this, value, 1); }
  Value i32(int64_t value) {
    return arith::ConstantIntOp::create(*this, value, 32);
  }
  /// Converts an `index` to i32.
  Value toI32(Value index) {
    return arith::IndexCastOp::create(*this, getI32Type(), index);
  }

  Value add(Value x, Value y) { return arith::AddIOp::create(*this, x, y); }
  Value sub(Value x, Value y) { return arith::SubIOp::create(*this, x, y); }
  Value mul(Value x, Value y) { return arith::MulIOp::create(*this, x, y); }
  Value mul(Value x, int64_t y) { return mul(x, index(y)); }
  Value div(Value x, Value y) { return arith::DivUIOp::create(*this, x, y); }
  Value ceilDiv(Value x, Value y) {
    return arith::CeilDivUIOp::create(*this, x, y);
  }
  Value ceilDiv(Value x, int64_t y) {
    return y == 1 ? x : arith::CeilDivSIOp::create(*this, x, index(y));
  }
  Value min(Value x, Value y) { return arith::MinUIOp::create(*this, x, y); }
  Value max(Value x, Value y) { return arith::MaxUIOp::create(*this, x, y); }

  Value atMost(Value x, Value y) {
    return compare(arith::CmpIPredicate::ule, x, y);
  }
  Value greater(Value x, Value y) {
    return compare(arith::CmpIPredicate::ugt, x, y);
  }
  Value equal(Value x, Value y) {
    return compare(arith::CmpIPredicate::eq, x, y);
  }
  Value notEqual(Value x, Value y) {
    return compare(arith::CmpIPredicate::ne, x, y);
  }
  Value both(Value x, Value y) { return arith::AndIOp::create(*this, x, y); }
  Value either(Value x, Value y) { return arith::OrIOp::create(*this, x, y); }
  Value logicalNot(Value x) {
    return arith::XOrIOp::create(*this, x, i1(true));
  }
  Value select(Value condition, Value x, Value y) {
    return arith::SelectOp::create(*this, condition, x, y);
  }

  /// Returns the extent of a tensor along `dim`.
  Value extent(Value tensor, int64_t dim) {
    return getValueOrCreateConstantIndexOp(*this, getLoc(),
                                           mixedExtent(tensor, dim));
  }
  /// The same, as an attribute if it is static.
  OpFoldResult mixedExtent(Value tensor, int64_t dim) {
    return tensor::getMixedSize(*this, getLoc(), tensor, dim);
  }
  Value empty(ArrayRef<OpFoldResult> shape, Type element) {
    return tensor::EmptyOp::create(*this, shape, element);
  }

private:
  Value compare(arith::CmpIPredicate predicate, Value x, Value y) {
    return arith::CmpIOp::create(*this, predicate, x, y);
  }
};

} // namespace mlir::moe

#endif // MOE_LIB_CONVERSION_MOETOGPU_BUILDER_HOSTBUILDER_H
