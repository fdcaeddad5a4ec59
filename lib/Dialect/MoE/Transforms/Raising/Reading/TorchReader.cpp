//===- TorchReader.cpp - Operations of torch-mlir ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "TorchReader.h"

#include "llvm/ADT/StringSet.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

StringRef mlir::moe::raising::torchName(Operation *op) {
  StringRef name = op->getName().getStringRef();
  if (name == "torch.operator") {
    auto of = op->getAttrOfType<StringAttr>("name");
    name = of ? of.getValue() : StringRef();
  }
  return name.consume_front("torch.") ? name : StringRef();
}

bool mlir::moe::raising::readTorch(Operation *op, Reader &reader) {
  static const llvm::StringMap<TorchRule> rules = [] {
    llvm::StringMap<TorchRule> rules;
    addTorchViews(rules);
    addTorchIndices(rules);
    addTorchNumbers(rules);
    return rules;
  }();
  StringRef name = torchName(op);
  // What has no tensors is read by those that use it, and goes with them.
  static const llvm::StringSet<> read{"aten._assert_tensor_metadata",
                                      "aten.chunk",
                                      "aten.mul.int",
                                      "aten.size.int",
                                      "aten.split.Tensor",
                                      "aten.split.sizes",
                                      "aten.split_with_sizes",
                                      "aten.unbind.int",
                                      "prim.ListConstruct"};
  if (name.starts_with("constant.") || read.contains(name))
    return true;
  auto rule = name.empty() ? rules.end() : rules.find(name);
  if (rule == rules.end())
    return false;
  TorchReader torch(op, reader);
  return rule->second(torch);
}

//===----------------------------------------------------------------------===//
// Operands
//===----------------------------------------------------------------------===//

static std::optional<double> numberOf(Value value) {
  Operation *op = value.getDefiningOp();
  if (!op || !torchName(op).starts_with("constant."))
    return std::nullopt;
  Attribute attribute = op->getAttr("value");
  if (auto integer = dyn_cast_if_present<IntegerAttr>(attribute))
    return integer.getType().isInteger(1)
               ? double(integer.getValue().getZExtValue())
               : double(integer.getValue().getSExtValue());
  if (auto number = dyn_cast_if_present<FloatAttr>(attribute))
    return number.getValueAsDouble();
  return std::nullopt;
}

std::optional<double> TorchReader::number(unsigned i) const {
  return i < op->getNumOperands() ? numberOf(op->getOperand(i)) : std::nullopt;
}

static std::optional<int64_t> integerOf(Value value) {
  Operation *op = value.getDefiningOp();
  if (!op || !torchName(op).starts_with("constant."))
    return std::nullopt;
  // Not as a double: the last row may be 2⁶³ − 1.
  auto integer = dyn_cast_if_present<IntegerAttr>(op->getAttr("value"));
  return integer ? std::optional(integer.getValue().getSExtValue())
                 : std::nullopt;
}

std::optional<int64_t> TorchReader::integer(unsigned i) const {
  return i < op->getNumOperands() ? integerOf(op->getOperand(i)) : std::nullopt;
}

std::optional<bool> TorchReader::flag(unsigned i, bool otherwise) const {
  if (!isGiven(i))
    return otherwise;
  std::optional<double> found = number(i);
  return found ? std::optional(*found != 0) : std::nullopt;
}

std::optional<SmallVector<int64_t>> TorchReader::integers(unsigned i) const {
  Operation *from =
      i < op->getNumOperands() ? op->getOperand(i).getDefiningOp() : nullptr;
  if (!isNamed(from, "torch.prim.ListConstruct"))
    return std::nullopt;
  SmallVector<int64_t> found;
  for (Value each : from->getOperands()) {
    std::optional<int64_t> integer = integerOf(each);
    if (!integer)
      return std::nullopt;
    found.push_back(*integer);
  }
  return found;
}

std::optional<int64_t> TorchReader::dim(unsigned i, int64_t rank) const {
  std::optional<int64_t> given = integer(i);
  if (!given || *given < -rank || *given >= rank)
    return std::nullopt;
  return *given < 0 ? *given + rank : *given;
}

SmallVector<Value> TorchReader::list(unsigned i) const {
  SmallVector<Value> found;
  Operation *from =
      i < op->getNumOperands() ? op->getOperand(i).getDefiningOp() : nullptr;
  if (isNamed(from, "torch.prim.ListConstruct"))
    for (Value each : from->getOperands())
      found.push_back(isTorchNone(each) ? Value() : r.tensor(each));
  return found;
}

Value TorchReader::in(unsigned i, RankedTensorType type) {
  if (std::optional<double> constant = number(i))
    return r.splat(type, *constant);
  Value value = in(i);
  if (!value || tensorOf(value).getRank() > type.getRank())
    return {};
  return r.broadcast(r.convert(value, type.getElementType()), type.getShape());
}

std::pair<Value, int64_t> TorchReader::sizeOf(Value integer) const {
  Operation *from = integer.getDefiningOp();
  if (isNamed(from, "torch.aten.size.int") && from->getNumOperands() == 2 &&
      integerOf(from->getOperand(1)) == 0)
    return {r.tensor(from->getOperand(0)), 1};
  if (isNamed(from, "torch.aten.mul.int") && from->getNumOperands() == 2)
    for (unsigned i : {0u, 1u})
      if (std::optional<int64_t> factor = integerOf(from->getOperand(1 - i))) {
        auto [like, of] = sizeOf(from->getOperand(i));
        return {like, of * *factor};
      }
  return {Value(), 1};
}

std::pair<Value, int64_t> TorchReader::firstSize(unsigned i) const {
  Operation *from =
      i < op->getNumOperands() ? op->getOperand(i).getDefiningOp() : nullptr;
  if (!isNamed(from, "torch.prim.ListConstruct") || from->getNumOperands() == 0)
    return {Value(), 1};
  return sizeOf(from->getOperand(0));
}

//===----------------------------------------------------------------------===//
// Results
//===----------------------------------------------------------------------===//

bool TorchReader::set(Value tensor) {
  RankedTensorType type = out();
  if (!tensor || !type)
    return false;
  tensor = r.convert(tensor, type.getElementType());
  if (tensorOf(tensor).getRank() != type.getRank())
    return false;
  r.set(result(), tensor);
  return true;
}
