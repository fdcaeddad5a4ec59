//===- Foreign.cpp - Operations of other dialects ------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "Foreign.h"

#include "mlir/Dialect/Linalg/IR/Linalg.h"
#include "mlir/Dialect/Tensor/IR/Tensor.h"
#include "mlir/IR/Remarks.h"
#include "mlir/Interfaces/FunctionInterfaces.h"

using namespace mlir;
using namespace mlir::moe;
using namespace mlir::moe::raising;

void mlir::moe::raising::remarkNotRaised(Operation *op, StringRef name,
                                         StringRef reason) {
  auto function = op->getParentOfType<FunctionOpInterface>();
  remark::missed(op->getLoc(),
                 remark::RemarkOpts::name(name)
                     .category("moe-raise")
                     .function(function ? function.getName() : ""))
      << ("not raised: '" + op->getName().getStringRef() + "': " + reason)
             .str();
}

//===----------------------------------------------------------------------===//
// Names and attributes
//===----------------------------------------------------------------------===//

constexpr StringLiteral stablehlo = "stablehlo.", chlo = "chlo.",
                        reading = "moe_reading.";

StringRef mlir::moe::raising::stablehloName(Operation *op) {
  StringRef name = op->getName().getStringRef();
  return name.consume_front(stablehlo) || name.consume_front(reading)
             ? name
             : StringRef();
}

bool mlir::moe::raising::isNamed(Operation *op, StringRef name) {
  if (!op)
    return false;
  StringRef of = op->getName().getStringRef();
  if (of == name)
    return true;
  return of.consume_front(reading) &&
         (name.consume_front(stablehlo) || name.consume_front(chlo)) &&
         of == name;
}

bool mlir::moe::raising::isRead(Operation *op) {
  return op && op->getName().getStringRef().starts_with(reading);
}

bool mlir::moe::raising::walkOutsideLinalg(
    Operation *root, llvm::function_ref<WalkResult(Operation *)> visit) {
  return root
      ->walk<WalkOrder::PreOrder>([&](Operation *op) {
        WalkResult result = visit(op);
        return result.wasInterrupted() || !isa<linalg::LinalgOp>(op)
                   ? result
                   : WalkResult::skip();
      })
      .wasInterrupted();
}

Operation *mlir::moe::raising::findMalformed(Operation *root) {
  // The operations that passes look at, and how many operands they have.
  static const llvm::StringMap<unsigned> operands{
      {"add", 2},         {"and", 2},
      {"clamp", 3},       {"compare", 2},
      {"concatenate", 1}, {"convert", 1},
      {"divide", 2},      {"dot_general", 2},
      {"gather", 2},      {"get_dimension_size", 1},
      {"exponential", 1}, {"dynamic_broadcast_in_dim", 2},
      {"iota", 0},        {"broadcast_in_dim", 1},
      {"maximum", 2},     {"dynamic_iota", 1},
      {"minimum", 2},     {"dynamic_reshape", 2},
      {"multiply", 2},    {"real_dynamic_slice", 4},
      {"reduce", 2},      {"remainder", 2},
      {"reshape", 1},     {"scatter", 3},
      {"select", 3},      {"sign", 1},
      {"slice", 1},       {"sort", 1},
      {"subtract", 2},    {"transpose", 1}};
  Operation *found = nullptr;
  walkOutsideLinalg(root, [&](Operation *op) {
    StringRef name = op->getName().getStringRef();
    auto expected =
        name.consume_front(stablehlo) ? operands.find(name) : operands.end();
    if (expected == operands.end())
      return WalkResult::advance();
    auto isTensor = [](Type type) { return isa<RankedTensorType>(type); };
    if (op->getNumOperands() >= expected->second && op->getNumResults() > 0 &&
        llvm::all_of(op->getOperandTypes(), isTensor) &&
        llvm::all_of(op->getResultTypes(), isTensor))
      return WalkResult::advance();
    found = op;
    return WalkResult::interrupt();
  });
  return found;
}

std::string mlir::moe::raising::textOf(Operation *op, StringRef attribute) {
  std::string text;
  if (auto string = op->getAttrOfType<StringAttr>(attribute))
    return string.str();
  if (Attribute value = op->getAttr(attribute)) {
    llvm::raw_string_ostream os(text);
    value.print(os);
  }
  return text;
}

/// Reads integers that are separated by commas.
static std::optional<SmallVector<int64_t>> readIntegers(StringRef text) {
  SmallVector<int64_t> integers;
  SmallVector<StringRef> parts;
  text.trim().split(parts, ',', /*MaxSplit=*/-1, /*KeepEmpty=*/false);
  for (StringRef part : parts)
    if (part.trim().getAsInteger(10, integers.emplace_back()))
      return std::nullopt;
  return integers;
}

std::string mlir::moe::raising::directionOf(Operation *op) {
  if (!isNamed(op, "stablehlo.compare"))
    return "";
  std::string text = textOf(op, "comparison_direction");
  return StringRef(text).rtrim('>').take_back(2).str();
}

std::optional<SmallVector<int64_t>>
mlir::moe::raising::integersIn(StringRef text, StringRef field) {
  for (size_t from = 0;;) {
    size_t at = text.find(field, from);
    if (at == StringRef::npos)
      return SmallVector<int64_t>();
    from = at + field.size();
    // The whole name, not the end of another.
    bool isWhole =
        at == 0 || !(llvm::isAlnum(text[at - 1]) || text[at - 1] == '_');
    StringRef rest = text.substr(from).ltrim();
    if (!isWhole || !rest.consume_front("="))
      continue;
    rest = rest.ltrim();
    int64_t integer;
    if (!rest.consume_front("[")) {
      if (rest.consumeInteger(10, integer))
        return std::nullopt;
      return SmallVector<int64_t>{integer};
    }
    return readIntegers(rest.take_until([](char c) { return c == ']'; }));
  }
}

std::optional<SmallVector<int64_t>>
mlir::moe::raising::integersOf(Attribute attribute) {
  SmallVector<int64_t> integers;
  if (auto array = dyn_cast_if_present<DenseI64ArrayAttr>(attribute))
    return llvm::to_vector(array.asArrayRef());
  if (auto integer = dyn_cast_if_present<IntegerAttr>(attribute))
    return SmallVector<int64_t>{integer.getInt()};
  if (auto dense = dyn_cast_if_present<DenseIntElementsAttr>(attribute)) {
    for (const APInt &value : dense.getValues<APInt>())
      integers.push_back(value.getSExtValue());
    return integers;
  }
  if (auto array = dyn_cast_if_present<ArrayAttr>(attribute)) {
    for (Attribute element : array) {
      auto integer = dyn_cast<IntegerAttr>(element);
      if (!integer)
        return std::nullopt;
      integers.push_back(integer.getInt());
    }
    return integers;
  }
  return std::nullopt;
}

std::optional<SmallVector<int64_t>>
mlir::moe::raising::integersOf(Operation *op, StringRef name) {
  return integersOf(op->getAttr(name));
}

//===----------------------------------------------------------------------===//
// Types
//===----------------------------------------------------------------------===//

static Type readElementType(StringRef text, MLIRContext *context) {
  Builder b(context);
  return llvm::StringSwitch<Type>(text.trim())
      .Case("f32", b.getF32Type())
      .Case("f16", b.getF16Type())
      .Case("bf16", b.getBF16Type())
      .Case("f8E4M3FN", Float8E4M3FNType::get(context))
      .Case("si32", b.getI32Type())
      .Case("si64", b.getI64Type())
      .Case("i1", b.getI1Type())
      .Case("f64", b.getF64Type())
      .Default(Type());
}

RankedTensorType mlir::moe::raising::tensorTypeOf(Type type) {
  if (auto tensor = dyn_cast<RankedTensorType>(type))
    return tensor;
  std::string printed;
  llvm::raw_string_ostream os(printed);
  type.print(os);
  StringRef text = printed;
  if (!text.consume_front("!torch.vtensor<[") || !text.consume_back(">"))
    return {};
  auto [extents, rest] = text.split(']');
  if (!rest.consume_front(","))
    return {};
  SmallVector<int64_t> shape;
  SmallVector<StringRef> parts;
  extents.split(parts, ',', /*MaxSplit=*/-1, /*KeepEmpty=*/false);
  for (StringRef part : parts) {
    int64_t &extent = shape.emplace_back(ShapedType::kDynamic);
    if (part.trim() != "?" && part.trim().getAsInteger(10, extent))
      return {};
  }
  Type element = readElementType(rest, type.getContext());
  return element ? RankedTensorType::get(shape, element) : RankedTensorType();
}

/// Creates an operation with one operand and result that this build may not
/// know.
static Value createForeign(OpBuilder &b, StringRef name, Value operand,
                           Type type) {
  OperationState state(operand.getLoc(), name);
  state.addOperands(operand);
  state.addTypes(type);
  return b.create(state)->getResult(0);
}

Value mlir::moe::raising::asTensor(OpBuilder &b, Value value) {
  if (isa<RankedTensorType>(value.getType()))
    return value;
  if (Operation *from = definedBy(value, "torch_c.from_builtin_tensor");
      from && from->getNumOperands() == 1 &&
      from->getOperand(0).getType() == tensorTypeOf(value.getType()))
    return from->getOperand(0);
  return createForeign(b, "torch_c.to_builtin_tensor", value,
                       tensorTypeOf(value.getType()));
}

Value mlir::moe::raising::asForeign(OpBuilder &b, Value value, Type type) {
  if (value.getType() == type)
    return value;
  if (isa<RankedTensorType>(type))
    return tensor::CastOp::create(b, value.getLoc(), type, value);
  // The conversion takes a tensor of exactly the type that `type` stands for.
  RankedTensorType tensor = tensorTypeOf(type);
  if (value.getType() != tensor)
    value = tensor::CastOp::create(b, value.getLoc(), tensor, value);
  return createForeign(b, "torch_c.from_builtin_tensor", value, type);
}

void mlir::moe::raising::foldConversions(RewriterBase &rewriter,
                                         Value foreign) {
  Operation *from = definedBy(foreign, "torch_c.from_builtin_tensor");
  if (!from)
    return;
  for (Operation *user : llvm::make_early_inc_range(foreign.getUsers()))
    if (isNamed(user, "torch_c.to_builtin_tensor") &&
        user->getResult(0).getType() == from->getOperand(0).getType())
      rewriter.replaceOp(user, from->getOperand(0));
}

bool mlir::moe::raising::isTorchNone(Value value) {
  std::string text;
  llvm::raw_string_ostream(text) << value.getType();
  return text == "!torch.none" || isa<NoneType>(value.getType());
}

/// Returns a constant integer of torch-mlir.
static std::optional<int64_t> torchInteger(Value value) {
  Operation *op = definedBy(value, "torch.constant.int");
  auto found = op ? integersOf(op, "value") : std::nullopt;
  return found && found->size() == 1 ? std::optional(found->front())
                                     : std::nullopt;
}

Value mlir::moe::raising::swappedLastTwo(Value value) {
  const SmallVector<int64_t> swap{0, 2, 1};
  Operation *op = value.getDefiningOp();
  if (auto transpose = dyn_cast_if_present<linalg::TransposeOp>(op))
    return transpose.getPermutation() == ArrayRef(swap) ? transpose.getInput()
                                                        : Value();
  if (isNamed(op, "stablehlo.transpose") && op->getNumOperands() == 1)
    return integersOf(op, "permutation") == swap ? op->getOperand(0) : Value();
  if (isNamed(op, "torch.aten.permute") && op->getNumOperands() == 2) {
    Operation *dims = definedBy(op->getOperand(1), "torch.prim.ListConstruct");
    RankedTensorType type = tensorTypeOf(op->getOperand(0).getType());
    if (!dims || !type || dims->getNumOperands() != swap.size())
      return {};
    for (auto [value, expected] : llvm::zip_equal(dims->getOperands(), swap)) {
      std::optional<int64_t> dim = torchInteger(value);
      if (!dim || (*dim < 0 ? *dim + 3 : *dim) != expected)
        return {};
    }
    return type.getRank() == 3 ? op->getOperand(0) : Value();
  }
  if (isNamed(op, "torch.aten.transpose.int") && op->getNumOperands() == 3) {
    RankedTensorType type = tensorTypeOf(op->getOperand(0).getType());
    std::optional<int64_t> first = torchInteger(op->getOperand(1)),
                           second = torchInteger(op->getOperand(2));
    if (!type || type.getRank() != 3 || !first || !second)
      return {};
    int64_t a = *first < 0 ? *first + 3 : *first,
            b = *second < 0 ? *second + 3 : *second;
    return std::min(a, b) == 1 && std::max(a, b) == 2 ? op->getOperand(0)
                                                      : Value();
  }
  return {};
}
