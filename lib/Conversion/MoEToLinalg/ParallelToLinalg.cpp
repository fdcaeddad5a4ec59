//===- ParallelToLinalg.cpp - Which rows go to which rank -----------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// moe.keep, moe.place, moe.partition and moe.collect. They work on ids, a few
// bytes a token, so that plain loops suffice.
//
//===----------------------------------------------------------------------===//

#include "Lowering.h"
#include "TensorBuilder.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/SCF/IR/SCF.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
/// Builds loops that count and list choices.
class ListBuilder : public TensorBuilder {
public:
  using TensorBuilder::TensorBuilder;

  Value isValid(Value id) {
    return arith::CmpIOp::create(*this, arith::CmpIPredicate::sge, id, i32(0));
  }
  /// Fills a tensor of i32.
  Value filled(ArrayRef<OpFoldResult> sizes, int64_t value) {
    return fill(sizes, i32(value));
  }
  /// Runs `body` on the tensors if `condition` is true.
  SmallVector<Value>
  when(Value condition, ValueRange values,
       llvm::function_ref<SmallVector<Value>(ValueRange)> body) {
    auto choice = scf::IfOp::create(*this, values.getTypes(), condition,
                                    /*withElseRegion=*/true);
    OpBuilder::InsertionGuard guard(*this);
    setInsertionPointToStart(choice.thenBlock());
    scf::YieldOp::create(*this, body(values));
    setInsertionPointToStart(choice.elseBlock());
    scf::YieldOp::create(*this, values);
    return llvm::to_vector_of<Value>(choice.getResults());
  }
  /// Adds 1 to counts[at].
  Value increment(Value counts, Value at) {
    return insert(arith::AddIOp::create(*this, extract(counts, at), i32(1)),
                  counts, at);
  }
  /// Returns the exclusive prefix sum of counts.
  Value starts(Value counts) {
    SmallVector<Value> inits{empty(sizes(counts), getI32Type()), i32(0)};
    return loop(dim(counts, 0), inits,
                [&](Value i, ValueRange iters) -> SmallVector<Value> {
                  Value next = arith::AddIOp::create(*this, iters[1],
                                                     extract(counts, i));
                  return {insert(iters[1], iters[0], i), next};
                })[0];
  }
  /// The indices [entry / columns, entry % columns] of an entry of a list.
  SmallVector<Value> indicesOf(Value entry, int64_t columns) {
    Value width = index(columns);
    return {arith::DivUIOp::create(*this, entry, width),
            arith::RemUIOp::create(*this, entry, width)};
  }
};
} // namespace

SmallVector<Value> mlir::moe::lowerToLinalg(KeepOp op, OpBuilder &builder) {
  ListBuilder b(op.getLoc(), builder);
  auto routed = RouteOp::create(
      b, op.getIds(), op.getWeights(), op.getNumExperts(), op.getCapacityAttr(),
      op.getPriority(), op.getOverflow(), op.getChoicesAttr());
  return {b.map({op.getIds(), routed.getPositions()}, b.getI32Type(),
                [&](ValueRange v) -> Value {
                  return arith::SelectOp::create(b, b.isValid(v[1]), v[0],
                                                 b.i32(-1));
                })};
}

SmallVector<Value> mlir::moe::lowerToLinalg(PlaceOp op, OpBuilder &builder) {
  ListBuilder b(op.getLoc(), builder);
  Value placement = op.getPlacement();
  ArrayRef<int64_t> shape = op.getPlacement().getType().getShape();
  return {b.map(op.getIds(), b.getI32Type(), [&](ValueRange v) -> Value {
    Value valid = b.inRange(v[0], shape[0]);
    Value expert = b.toIndex(arith::SelectOp::create(b, valid, v[0], b.i32(0)));
    // Of n slots the token takes number t mod n.
    Value column = b.index(0);
    if (shape[1] > 1) {
      Value count = b.index(0);
      for (int64_t r = 0; r < shape[1]; ++r) {
        Value slot = b.extract(placement, {expert, b.index(r)});
        count = arith::AddIOp::create(
            b, count,
            arith::IndexCastUIOp::create(b, b.getIndexType(), b.isValid(slot)));
      }
      count = arith::MaxUIOp::create(b, count, b.index(1));
      column = arith::RemUIOp::create(b, linalg::IndexOp::create(b, 0), count);
    }
    Value slot = b.extract(placement, {expert, column});
    return arith::SelectOp::create(b, valid, slot, b.i32(-1));
  })};
}

namespace {
/// Lists the tokens for each rank.
class Partitioner {
public:
  Partitioner(PartitionOp op, OpBuilder &builder)
      : op(op), b(op.getLoc(), builder), choices(op.getTopK()) {}
  SmallVector<Value> run();

private:
  /// Calls `body` with token, choice, rank and whether this is the first choice
  /// of the token on that rank.
  SmallVector<Value> forEachSlot(
      ValueRange inits,
      llvm::function_ref<SmallVector<Value>(Value t, Value k, Value rank,
                                            Value isFirst, ValueRange iters)>
          body);
  Value slotOf(Value t, Value k) { return b.extract(op.getSlots(), {t, k}); }
  Value isOn(Value slot, Value rank);
  SmallVector<Value> list(Value t, Value rank, ValueRange iters);

  PartitionOp op;
  ListBuilder b;
  int64_t choices;
};
} // namespace

Value Partitioner::isOn(Value slot, Value rank) {
  Value its = arith::DivUIOp::create(b, slot, b.i32(op.getNumSlots()));
  Value same = arith::CmpIOp::create(b, arith::CmpIPredicate::eq, its, rank);
  return arith::AndIOp::create(b, b.isValid(slot), same);
}

SmallVector<Value> Partitioner::forEachSlot(
    ValueRange inits, llvm::function_ref<SmallVector<Value>(Value, Value, Value,
                                                            Value, ValueRange)>
                          body) {
  Value limit = b.i32(op.getNumSlots() * op.getNumRanks());
  auto ofChoice = [&](Value t, Value k, ValueRange iters) {
    Value slot = slotOf(t, k);
    // As unsigned: -1 is beyond all slots.
    Value valid =
        arith::CmpIOp::create(b, arith::CmpIPredicate::ult, slot, limit);
    return b.when(valid, iters, [&](ValueRange iters) {
      Value rank = arith::DivUIOp::create(b, slot, b.i32(op.getNumSlots()));
      Value before =
          b.loop(k, Value(arith::ConstantIntOp::create(b, 0, 1)),
                 [&](Value earlier, ValueRange found) -> SmallVector<Value> {
                   return {arith::OrIOp::create(
                       b, found[0], isOn(slotOf(t, earlier), rank))};
                 })[0];
      return body(t, k, rank, b.logicalNot(before), iters);
    });
  };
  return b.loop(b.dim(op.getSlots(), 0), inits, [&](Value t, ValueRange iters) {
    return b.loop(b.index(choices), iters, [&](Value k, ValueRange iters) {
      return ofChoice(t, k, iters);
    });
  });
}

/// Appends token `t` to the list for `rank`: iters are tokens, local and the
/// next entry for each rank.
SmallVector<Value> Partitioner::list(Value t, Value rank, ValueRange iters) {
  Value at = b.toIndex(rank);
  Value next = b.toIndex(b.extract(iters[2], at));
  SmallVector<Value> entry = b.indicesOf(next, choices);
  Value tokens = b.insert(b.toI32(t), iters[0], entry);
  Value local = b.loop(
      b.index(choices), iters[1],
      [&](Value k, ValueRange rows) -> SmallVector<Value> {
        Value slot = slotOf(t, k);
        Value its = arith::RemUIOp::create(b, slot, b.i32(op.getNumSlots()));
        its = arith::SelectOp::create(b, isOn(slot, rank), its, b.i32(-1));
        return {b.insert(its, rows[0], {entry[0], entry[1], k})};
      })[0];
  return {tokens, local, b.increment(iters[2], at)};
}

SmallVector<Value> Partitioner::run() {
  ReifiedRankedShapedTypeDims shapes;
  (void)op.reifyResultShapes(b, shapes); // cannot fail for this operation
  Value zeros = b.filled(shapes[2], 0);
  SmallVector<Value> counts =
      forEachSlot({zeros, zeros}, [&](Value t, Value k, Value rank,
                                      Value isFirst, ValueRange iters) {
        Value at = b.toIndex(rank);
        Value send = b.when(isFirst, iters[0],
                            [&](ValueRange values) -> SmallVector<Value> {
                              return {b.increment(values[0], at)};
                            })[0];
        return SmallVector<Value>{send, b.increment(iters[1], at)};
      });
  SmallVector<Value> inits{b.filled(shapes[0], -1), b.filled(shapes[1], -1),
                           b.starts(counts[0]), b.filled(shapes[3], -1),
                           b.starts(counts[1])};
  SmallVector<Value> lists =
      forEachSlot(inits, [&](Value t, Value k, Value rank, Value isFirst,
                             ValueRange iters) {
        SmallVector<Value> result =
            b.when(isFirst, iters.take_front(3),
                   [&](ValueRange values) { return list(t, rank, values); });
        Value at = b.toIndex(rank);
        result.push_back(b.insert(b.extract(iters[4], at), iters[3], {t, k}));
        result.push_back(b.increment(iters[4], at));
        return result;
      });
  return {lists[0], lists[1], counts[0], lists[3], counts[1]};
}

SmallVector<Value> mlir::moe::lowerToLinalg(PartitionOp op,
                                            OpBuilder &builder) {
  return Partitioner(op, builder).run();
}

SmallVector<Value> mlir::moe::lowerToLinalg(CollectOp op, OpBuilder &builder) {
  ListBuilder b(op.getLoc(), builder);
  int64_t choices = op.getPositions().getType().getDimSize(1);
  Value rows = b.dim(op.getPositions(), 0);
  // Order and returns, then the next entry of the list and the next row.
  SmallVector<Value> inits{b.filled(b.sizes(op.getPositions()), -1),
                           b.filled(b.sizes(op.getReceived()), 0), b.index(0),
                           b.index(0)};
  auto ofChoice = [&](Value rank, Value row, Value k,
                      ValueRange iters) -> SmallVector<Value> {
    Value position = b.extract(op.getPositions(), {row, k});
    return b.when(
        b.isValid(position), iters, [&](ValueRange v) -> SmallVector<Value> {
          Value order = b.insert(position, v[0], b.indicesOf(v[2], choices));
          return {order, b.increment(v[1], rank),
                  arith::AddIOp::create(b, v[2], b.index(1))};
        });
  };
  SmallVector<Value> lists = b.loop(
      b.dim(op.getReceived(), 0), inits, [&](Value rank, ValueRange iters) {
        Value first = iters[3];
        Value count = b.toIndex(b.extract(op.getReceived(), rank));
        count = b.clamp(count, arith::SubIOp::create(b, rows, first));
        SmallVector<Value> inner =
            b.loop(count, iters.take_front(3), [&](Value i, ValueRange iters) {
              Value row = arith::AddIOp::create(b, first, i);
              return b.loop(b.index(choices), iters,
                            [&](Value k, ValueRange iters) {
                              return ofChoice(rank, row, k, iters);
                            });
            });
        inner.push_back(arith::AddIOp::create(b, first, count));
        return inner;
      });
  return {lists[0], lists[1]};
}
