//===- Reading.cpp - Programs read as operations of StableHLO ------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// Each value of the program that is read has a marker, which uses the value and
// what it is read as. A pattern that raises the latter replaces this operand of
// the marker, and so one sees which values of the program were raised.
//
//===----------------------------------------------------------------------===//

#include "Reading.h"

#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/Interfaces/SideEffectInterfaces.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

static bool isReading(Operation *op) {
  return op && op->getName().getDialectNamespace() ==
                   ReadingDialect::getDialectNamespace();
}

static bool isMarker(Operation *op) { return isNamed(op, "moe_reading.value"); }

/// Returns the number of a result of the reading; -1 for others, and for those
/// that patterns made.
static int64_t idOf(Value value) {
  Operation *op = value.getDefiningOp();
  auto id = isReading(op) ? op->getAttrOfType<IntegerAttr>("id") : nullptr;
  return id ? 4 * id.getInt() + cast<OpResult>(value).getResultNumber() : -1;
}

//===----------------------------------------------------------------------===//
// Reading
//===----------------------------------------------------------------------===//

void Reader::read(Block &block) {
  for (Operation &op : llvm::make_early_inc_range(block)) {
    b.setInsertionPointAfter(&op);
    if (readTorch(&op, *this) || readLinalg(&op, *this))
      wasRead.insert(&op);
  }
}

Value Reader::tensor(Value value) {
  if (Value known = tensors.lookup(value))
    return known;
  RankedTensorType type = tensorTypeOf(value.getType());
  if (!type || isTorchNone(value))
    return {};
  if (isa<RankedTensorType>(value.getType()))
    return tensors[value] = value;
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointAfterValue(value);
  return tensors[value] = asTensor(b, value);
}

void Reader::set(Value value, Value tensor) {
  tensors[value] = tensor;
  Operation *marker = create("value", {tensor, value}, {});
  marker->setAttr("of", b.getI64IntegerAttr(idOf(tensor)));
  markers.push_back(marker);
}

void Reader::setChosen(Value value, Value tensor) {
  set(value, tensor);
  chosen.push_back(value);
}

void Reader::setUnstable(Value value, Value tensor) {
  set(value, tensor);
  unstable.push_back(value);
}

//===----------------------------------------------------------------------===//
// Raised values
//===----------------------------------------------------------------------===//

/// Returns a value that is no operation's of the reading: that of the program,
/// or of new operations; null if there is neither.
Value Reader::materialize(Value value) {
  Operation *op = value.getDefiningOp();
  if (!isReading(op))
    return value;
  Value &made = materialized[value];
  if (made)
    return made;
  OpBuilder::InsertionGuard guard(b);
  // A softmax is one operation here, which gates know.
  Value original = isNamed(op, "moe_reading.softmax")
                       ? Value()
                       : originals.lookup(idOf(value));
  if (original) {
    b.setInsertionPointAfterValue(original);
    Value tensor = asTensor(b, original);
    if (tensor.getType() == value.getType())
      return materialized[value] = tensor;
  }
  SmallVector<Value> operands;
  for (Value operand : op->getOperands()) {
    operands.push_back(materialize(operand));
    if (!operands.back())
      return {};
  }
  b.setInsertionPoint(op);
  return materialized[value] = lowerReading(b, op, operands);
}

/// True for a softmax of the weights of a gate, which may become part of it.
static bool isOfGate(Value value) {
  Operation *op = definedBy(value, "moe_reading.softmax");
  if (!op)
    return false;
  Value of = op->getOperand(0);
  while (Operation *convert = definedBy(of, "moe_reading.convert"))
    of = convert->getOperand(0);
  return of.getDefiningOp<GateOp>();
}

std::string Reader::finish(Block &block, bool isSorted) {
  // A top-k whose weights or ids are those of a gate.
  llvm::SmallPtrSet<Operation *, 4> raisedChoices;
  auto isUnchanged = [&](Operation *marker) {
    int64_t of = marker->getAttrOfType<IntegerAttr>("of").getInt();
    return of < 0 || (idOf(marker->getOperand(0)) == of &&
                      !isOfGate(marker->getOperand(0)));
  };
  auto sourceOfChoice = [&](Operation *marker) -> Operation * {
    return llvm::is_contained(chosen, marker->getOperand(1))
               ? marker->getOperand(1).getDefiningOp()
               : nullptr;
  };
  for (Operation *marker : markers)
    if (Operation *source = sourceOfChoice(marker);
        source && !isUnchanged(marker))
      raisedChoices.insert(source);
  SmallVector<Operation *> changed;
  for (Operation *marker : markers) {
    if (!isUnchanged(marker) ||
        raisedChoices.contains(sourceOfChoice(marker))) {
      changed.push_back(marker);
      continue;
    }
    int64_t of = marker->getAttrOfType<IntegerAttr>("of").getInt();
    if (of >= 0)
      originals.insert({of, marker->getOperand(1)});
  }
  // What new operations use.
  SmallVector<OpOperand *> uses;
  block.walk([&](Operation *op) {
    if (isReading(op) || isReading(op->getParentOp()))
      return;
    for (OpOperand &operand : op->getOpOperands())
      if (isReading(operand.get().getDefiningOp()))
        uses.push_back(&operand);
  });
  for (OpOperand *use : uses) {
    Value value = materialize(use->get());
    if (!value)
      return ("'" + use->get().getDefiningOp()->getName().getStringRef() +
              "' has no operations here")
          .str();
    use->set(value);
  }
  for (Operation *marker : changed) {
    Value value = materialize(marker->getOperand(0)),
          original = marker->getOperand(1);
    if (!value)
      return "a result has no operations here";
    b.setInsertionPoint(marker);
    Value made = asForeign(b, value, original.getType());
    original.replaceUsesWithIf(
        made, [](OpOperand &use) { return !isMarker(use.getOwner()); });
  }
  // Nothing uses the reading any more.
  for (Operation &op :
       llvm::make_early_inc_range(llvm::reverse(block.getOperations())))
    if (isMarker(&op))
      op.erase();
  for (Operation &op :
       llvm::make_early_inc_range(llvm::reverse(block.getOperations())))
    if (isReading(&op) || isOpTriviallyDead(&op) ||
        (op.use_empty() &&
         (wasRead.contains(&op) || isNamed(&op, "torch_c.to_builtin_tensor") ||
          isNamed(&op, "torch_c.from_builtin_tensor"))))
      op.erase();
  // Equal ids would be in another order than ours.
  for (Value value : unstable) {
    if (!isSorted)
      break;
    // Erased with the operation that nothing uses.
    bool isLeft = llvm::any_of(block, [&](Operation &op) {
      return llvm::is_contained(op.getResults(), value) && !value.use_empty();
    });
    if (isLeft)
      return "the order of a sort that is not stable is used elsewhere";
  }
  return "";
}
