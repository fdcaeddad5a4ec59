//===- PackQuantizedToCPU.cpp - moe.pack of quantised weights -------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//
//
// A task packs one panel of one expert, in the order of its bytes (see
// PackedFormat). Codes and numbers are moved, never decoded; numbers of less
// than 8 bits are widened. Columns beyond n have zero bits. A panel without
// such columns is moved several columns at a time where the format allows it,
// its codes by whole periods where their places repeat.
//
//===----------------------------------------------------------------------===//

#include "CodeWords.h"
#include "RecordNumbers.h"
#include "moe/Conversion/Utils/FormatDecoder.h"

using namespace mlir;
using namespace mlir::moe;

namespace {
class PackQuantizedLowering {
public:
  PackQuantizedLowering(PackOp op, const CPUDescription &cpu)
      : op(op), panels(op.getPanels()), format(panels.getFormat()),
        packed(*PackedFormat::get(format)), lanes(cpu.getLanes()),
        b(op.getLoc(), op) {}

  LogicalResult run();

private:
  int64_t panelCount() {
    return llvm::divideCeil(op.getN(), panels.getShare());
  }
  void forEachPart(int64_t elements, int64_t size,
                   llvm::function_ref<void(Value, int64_t)> body);
  void forEachBlock(Value start,
                    llvm::function_ref<void(Value, Value, int64_t)> body);
  void forEachGroup(Value k, Value start, int64_t elements,
                    llvm::function_ref<void(Value, Value, int64_t)> body);
  void forEachStep(Value start, llvm::function_ref<void(Value, Value)> body);
  void buildCodes(Value expert, Value panel, Value start);
  /// Neighbouring columns of a panel, in vectors.
  struct Columns {
    Value expert, n, column; // the first one, in the weights and the panel
    CodeWords *codes;
    RecordNumbers *numbers; // NULL if they are packed one by one
  };
  void storeWords(const Columns &columns, ArrayRef<Value> words, Value at);
  void buildSteps(const Columns &columns, Value k, Value start,
                  int64_t elements);
  void buildPeriods(const Columns &columns, Value k, Value start,
                    int64_t elements);
  void buildCodesOfBlock(const Columns &columns, Value k, Value start,
                         int64_t elements);
  void buildNumbersOfBlock(const Columns &columns, Value k, Value start);
  bool findColumns();
  void buildColumns(Value expert, Value panel, Value start);
  void buildNumbers(Value expert, Value panel, Value start);
  void buildNumbersAt(Value expert, Value panel, Value k, Value start,
                      bool ofBlock);
  void forEachColumn(Value panel, Value start, Type type,
                     llvm::function_ref<Value(FormatDecoder &, Value)> bits);
  Value codeAt(FormatDecoder &decoder, Value expert, Value n, Value k);
  Value wordOf(FormatDecoder &decoder, Value expert, Value n, Value k,
               int64_t word);
  Value numberAt(FormatDecoder &decoder, FieldAttr number);
  void store(Value bits, Value byte);

  PackOp op;
  PanelsAttr panels;
  FormatAttr format;
  PackedFormat packed;
  int64_t lanes;
  CPUBuilder b;
  FlatBuffer out;
  SmallVector<CodeWords, 0> codes;       // one for each GEMM
  SmallVector<RecordNumbers, 0> numbers; // the same, or none
};
} // namespace

/// Stores an integer, or a vector of integers, the lowest byte first.
void PackQuantizedLowering::store(Value bits, Value byte) {
  auto type = dyn_cast<VectorType>(bits.getType());
  if (!type) {
    type = VectorType::get(1, bits.getType());
    bits = vector::BroadcastOp::create(b, type, bits);
  }
  int64_t size = type.getNumElements() * type.getElementTypeBitWidth() / 8;
  auto bytes = VectorType::get(size, b.getI8Type());
  if (type != bytes)
    bits = vector::BitCastOp::create(b, bytes, bits);
  vector::StoreOp::create(b, bits, out.elements, byte);
}

/// Returns the code of an element, in 32 bits.
Value PackQuantizedLowering::codeAt(FormatDecoder &decoder, Value expert,
                                    Value n, Value k) {
  decoder.setElement(expert, n, k);
  Value code = decoder.readBits(format.getCodes());
  return arith::ExtUIOp::create(b, b.getI32Type(), code);
}

/// Returns a word of the step that starts at element `k`.
Value PackQuantizedLowering::wordOf(FormatDecoder &decoder, Value expert,
                                    Value n, Value k, int64_t word) {
  auto constant = [&](int64_t value) {
    return arith::ConstantIntOp::create(b, value, 32);
  };
  Value result;
  for (auto [element, from, width, to] : getCodeBits(packed, word)) {
    Value bits = codeAt(decoder, expert, n, b.add(k, element));
    bits = arith::ShRUIOp::create(b, bits, constant(from));
    bits = arith::AndIOp::create(b, bits, constant((1 << width) - 1));
    bits = arith::ShLIOp::create(b, bits, constant(to));
    result = result ? arith::OrIOp::create(b, result, bits).getResult() : bits;
  }
  return result;
}

/// Returns the bits of a number of the current element, in whole bytes.
Value PackQuantizedLowering::numberAt(FormatDecoder &decoder,
                                      FieldAttr number) {
  Value bits = decoder.readBits(number);
  if (number.getWidth() % 8 == 0)
    return bits;
  if (number.getElement().isSignedInteger())
    return arith::ExtSIOp::create(b, b.getI8Type(), bits);
  return arith::ExtUIOp::create(b, b.getI8Type(), bits);
}

/// Stores a number of each column of a panel, from byte `start` on.
void PackQuantizedLowering::forEachColumn(
    Value panel, Value start, Type type,
    llvm::function_ref<Value(FormatDecoder &, Value)> bits) {
  int64_t fields = op.getNumFields(), share = panels.getShare();
  int64_t bytes = type.getIntOrFloatBitWidth() / 8;
  Value n0 = b.mul(panel, share);
  for (int64_t matmul = 0; matmul < panels.getMatmuls(); ++matmul) {
    FormatDecoder decoder(b, format,
                          op.getWeights().slice(matmul * fields, fields), 1);
    b.forEach(b.index(0), b.index(share), [&](Value column) {
      Value n = b.add(n0, column);
      auto value = scf::IfOp::create(b, type, b.less(n, b.index(op.getN())),
                                     /*withElseRegion=*/true);
      {
        OpBuilder::InsertionGuard guard(b);
        b.setInsertionPointToStart(value.thenBlock());
        scf::YieldOp::create(b, bits(decoder, n));
        b.setInsertionPointToStart(value.elseBlock());
        Value zero = arith::ConstantOp::create(b, b.getZeroAttr(type));
        scf::YieldOp::create(b, zero);
      }
      store(value.getResult(0),
            b.add(start, b.mul(b.add(column, matmul * share), bytes)));
    });
  }
}

/// Calls `body` for each part of `size` elements and for a last, smaller one,
/// with its number and its elements.
void PackQuantizedLowering::forEachPart(
    int64_t elements, int64_t size,
    llvm::function_ref<void(Value, int64_t)> body) {
  int64_t whole = elements / size, rest = elements % size;
  b.forEach(b.index(0), b.index(whole), [&](Value part) { body(part, size); });
  if (rest > 0)
    body(b.index(whole), rest);
}

/// Calls `body` for each block of a panel at byte `start`, with its first
/// element, its byte and its elements.
void PackQuantizedLowering::forEachBlock(
    Value start, llvm::function_ref<void(Value, Value, int64_t)> body) {
  forEachPart(op.getK(), packed.block, [&](Value block, int64_t elements) {
    int64_t bytes = panels.getColumns() * packed.getBlockBytes();
    body(b.mul(block, packed.block), b.add(start, b.mul(block, bytes)),
         elements);
  });
}

/// The same for the groups of a block.
void PackQuantizedLowering::forEachGroup(
    Value k, Value start, int64_t elements,
    llvm::function_ref<void(Value, Value, int64_t)> body) {
  int64_t columns = panels.getColumns();
  Value groups = b.add(start, columns * packed.getNumberBytes(true));
  forEachPart(elements, packed.group, [&](Value group, int64_t size) {
    body(b.add(k, b.mul(group, packed.group)),
         b.add(groups, b.mul(group, columns * packed.getGroupBytes())), size);
  });
}

/// Calls `body` for each step of a panel, with its first element and its byte.
void PackQuantizedLowering::forEachStep(
    Value start, llvm::function_ref<void(Value, Value)> body) {
  int64_t bytes = panels.getColumns() * packed.getStepBytes();
  forEachBlock(start, [&](Value k, Value block, int64_t elements) {
    forEachGroup(k, block, elements, [&](Value k, Value group, int64_t size) {
      Value steps = b.index(size / packed.getStep());
      b.forEach(b.index(0), steps, [&](Value step) {
        body(b.add(k, b.mul(step, packed.getStep())),
             b.add(group, b.mul(step, bytes)));
      });
    });
  });
}

/// Packs the codes of a panel one by one.
void PackQuantizedLowering::buildCodes(Value expert, Value panel, Value start) {
  forEachStep(start, [&](Value k, Value at) {
    for (int64_t word = 0; word < packed.getWords(); ++word)
      forEachColumn(panel, b.add(at, 4 * word * panels.getColumns()),
                    b.getI32Type(), [&](FormatDecoder &decoder, Value n) {
                      return wordOf(decoder, expert, n, k, word);
                    });
  });
}

/// Stores the words of a step of some columns.
void PackQuantizedLowering::storeWords(const Columns &columns,
                                       ArrayRef<Value> words, Value at) {
  at = b.add(at, b.mul(columns.column, 4));
  for (auto [word, value] : llvm::enumerate(words))
    store(value, b.add(at, 4 * word * panels.getColumns()));
}

/// Packs steps that follow one another, from element `k` and byte `start` on,
/// by periods while there are whole ones.
void PackQuantizedLowering::buildSteps(const Columns &columns, Value k,
                                       Value start, int64_t elements) {
  int64_t step = packed.getStep(), period = columns.codes->getPeriod();
  int64_t bytes = panels.getColumns() * packed.getStepBytes();
  int64_t whole = period == 0 ? 0 : elements / period * period;
  if (whole > 0) {
    b.forEach(b.index(0), b.index(whole / period), [&](Value i) {
      Value first = b.add(k, b.mul(i, period));
      Value at = b.add(start, b.mul(i, period / step * bytes));
      auto steps =
          columns.codes->buildPeriod(columns.expert, columns.n, first, lanes);
      for (auto [j, words] : llvm::enumerate(steps))
        storeWords(columns, words, b.add(at, j * bytes));
    });
  }
  if (whole == elements)
    return;
  b.forEach(b.index(whole / step), b.index(elements / step), [&](Value i) {
    Value first = b.add(k, b.mul(i, step));
    storeWords(columns,
               columns.codes->build(columns.expert, columns.n, first, lanes),
               b.add(start, b.mul(i, bytes)));
  });
}

/// Packs the codes of a block whose periods are several groups each.
void PackQuantizedLowering::buildPeriods(const Columns &columns, Value k,
                                         Value start, int64_t elements) {
  int64_t step = packed.getStep(), period = columns.codes->getPeriod();
  int64_t groupBytes = panels.getColumns() * packed.getGroupBytes();
  int64_t stepBytes = panels.getColumns() * packed.getStepBytes();
  start = b.add(start, panels.getColumns() * packed.getNumberBytes(true));
  b.forEach(b.index(0), b.index(elements / period), [&](Value i) {
    Value first = b.add(k, b.mul(i, period));
    Value at = b.add(start, b.mul(i, period / packed.group * groupBytes));
    auto steps =
        columns.codes->buildPeriod(columns.expert, columns.n, first, lanes);
    for (auto [j, words] : llvm::enumerate(steps)) {
      int64_t element = j * step;
      storeWords(columns, words,
                 b.add(at, element / packed.group * groupBytes +
                               element % packed.group / step * stepBytes));
    }
  });
}

void PackQuantizedLowering::buildCodesOfBlock(const Columns &columns, Value k,
                                              Value start, int64_t elements) {
  int64_t period = columns.codes->getPeriod();
  if (period > packed.group && elements % period == 0)
    return buildPeriods(columns, k, start, elements);
  forEachGroup(k, start, elements, [&](Value k, Value group, int64_t size) {
    buildSteps(columns, k, group, size);
  });
}

/// Packs the numbers of a whole block.
void PackQuantizedLowering::buildNumbersOfBlock(const Columns &columns, Value k,
                                                Value start) {
  int64_t all = panels.getColumns();
  int64_t groups = packed.getNumberBytes(true);
  int64_t steps = packed.group / packed.getStep() * packed.getStepBytes();
  columns.numbers->build(
      columns.expert, columns.n, k, lanes,
      [&](FieldAttr number, int64_t element, Value values) {
        int64_t before = packed.getNumberOffset(number);
        if (!packed.isOfBlock(number))
          before +=
              groups + element / packed.group * packed.getGroupBytes() + steps;
        Value byte = b.mul(columns.column, PackedFormat::getBytes(number));
        store(values, b.add(b.add(start, before * all), byte));
      });
}
/// Stores the numbers of a block or a group, which starts at element `k`.
void PackQuantizedLowering::buildNumbersAt(Value expert, Value panel, Value k,
                                           Value start, bool ofBlock) {
  for (FieldAttr number : packed.getNumbers(ofBlock)) {
    int64_t bits = 8 * PackedFormat::getBytes(number);
    forEachColumn(
        panel,
        b.add(start, packed.getNumberOffset(number) * panels.getColumns()),
        b.getIntegerType(bits), [&](FormatDecoder &decoder, Value n) {
          decoder.setElement(expert, n, k);
          return numberAt(decoder, number);
        });
  }
}

/// Packs the numbers of the blocks and groups of a panel.
void PackQuantizedLowering::buildNumbers(Value expert, Value panel,
                                         Value start) {
  int64_t stepBytes = panels.getColumns() * packed.getStepBytes();
  forEachBlock(start, [&](Value k, Value block, int64_t elements) {
    buildNumbersAt(expert, panel, k, block, /*ofBlock=*/true);
    forEachGroup(k, block, elements, [&](Value k, Value group, int64_t size) {
      buildNumbersAt(expert, panel, k,
                     b.add(group, size / packed.getStep() * stepBytes),
                     /*ofBlock=*/false);
    });
  });
}

/// Finds what packs several columns of each GEMM at a time; returns false if
/// its codes have to be packed one by one.
bool PackQuantizedLowering::findColumns() {
  int64_t fields = op.getNumFields();
  if (panels.getShare() % lanes != 0)
    return false;
  for (int64_t matmul = 0; matmul < panels.getMatmuls(); ++matmul) {
    auto weights = op.getWeights().slice(matmul * fields, fields);
    auto found =
        CodeWords::get(b, packed, weights[format.getCodes().getOperand()]);
    if (!found)
      return false;
    codes.push_back(std::move(*found));
    if (op.getK() % packed.block != 0)
      continue;
    if (auto found = RecordNumbers::get(b, packed, weights[0]))
      numbers.push_back(std::move(*found));
  }
  if (numbers.size() != codes.size())
    numbers.clear();
  return true;
}

/// Packs a panel that has all of its columns. Few columns at a time, whose rows
/// stay in the L1 cache until all of a line is read.
void PackQuantizedLowering::buildColumns(Value expert, Value panel,
                                         Value start) {
  int64_t share = panels.getShare();
  for (auto [matmul, source] : llvm::enumerate(codes)) {
    b.forEach(b.index(0), b.index(share / lanes), [&](Value part) {
      Value first = b.mul(part, lanes);
      Columns columns = {expert, b.add(b.mul(panel, share), first),
                         b.add(first, matmul * share), &source,
                         numbers.empty() ? nullptr : &numbers[matmul]};
      forEachBlock(start, [&](Value k, Value block, int64_t elements) {
        buildCodesOfBlock(columns, k, block, elements);
        if (columns.numbers)
          buildNumbersOfBlock(columns, k, block);
      });
    });
  }
  if (numbers.empty())
    buildNumbers(expert, panel, start);
}

LogicalResult PackQuantizedLowering::run() {
  if (!cast<MemRefType>(op.getInit().getType()).getLayout().isIdentity())
    return op.emitOpError("expected a compact destination, got ")
           << op.getInit().getType();
  out = flatten(b, op.getInit());
  int64_t panelBytes = packed.getPanelBytes(panels.getColumns(), op.getK());
  bool hasColumns = findColumns();
  auto buildOneByOne = [&](Value expert, Value panel, Value start) {
    buildCodes(expert, panel, start);
    buildNumbers(expert, panel, start);
  };
  Value experts = memref::DimOp::create(b, op.getInit(), 0);
  b.forEachTask(b.mul(experts, panelCount()), [&](Value task) {
    Value expert = b.div(task, panelCount());
    Value panel = b.rem(task, panelCount());
    Value start = b.add(out.offset, b.mul(task, panelBytes));
    if (!hasColumns)
      return buildOneByOne(expert, panel, start);
    Value end = b.mul(b.add(panel, 1), panels.getShare());
    b.ifElse(
        b.less(b.index(op.getN()), end),
        [&] { buildOneByOne(expert, panel, start); },
        [&] { buildColumns(expert, panel, start); });
  });
  op.erase();
  return success();
}

LogicalResult mlir::moe::lowerQuantizedToCPU(PackOp op,
                                             const CPUDescription &cpu) {
  return PackQuantizedLowering(op, cpu).run();
}
