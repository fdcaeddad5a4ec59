//===- StreamPrefetch.cpp - Prefetch a stream of weights ------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "StreamPrefetch.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "llvm/Support/MathExtras.h"

using namespace mlir;

static constexpr int64_t lineBytes = 64, pageBytes = 4096;

void mlir::moe::prefetchStream(ImplicitLocOpBuilder &b, int64_t pages,
                               Value buffer, Value start, Value end,
                               Value position, int64_t bytes) {
  if (pages == 0)
    return;
  // In one iteration, lines of all pages, or of one of several sets of them.
  int64_t lines = llvm::divideCeil(bytes, lineBytes);
  int64_t sets = std::max<int64_t>(pages / lines, 1);
  int64_t pagesOfSet = std::min(pages / sets, lines);
  int64_t linesOfPage = llvm::divideCeil(lines, pagesOfSet);
  pages = pagesOfSet * sets;
  int64_t elementBytes =
      cast<MemRefType>(buffer.getType()).getElementTypeBitWidth() / 8;
  auto index = [&](int64_t value) -> Value {
    return arith::ConstantIndexOp::create(b, value);
  };
  auto elements = [&](int64_t bytes) { return index(bytes / elementBytes); };
  auto add = [&](Value x, Value y) -> Value {
    return arith::AddIOp::create(b, x, y);
  };
  auto mul = [&](Value x, Value y) -> Value {
    return arith::MulIOp::create(b, x, y);
  };

  // How far the loop has come in its chunk is how far it prefetches the next.
  Value chunk = elements(pages * pageBytes);
  Value done = arith::RemUIOp::create(b, position, chunk);
  Value next = add(start, add(position, arith::SubIOp::create(b, chunk, done)));
  // What follows the end belongs to another task.
  Value last = arith::SubIOp::create(b, end, chunk);
  next = arith::MinSIOp::create(b, next, last);
  next = arith::MaxSIOp::create(b, next, start);
  Value iteration = arith::DivUIOp::create(b, done, elements(bytes));
  Value set = arith::RemUIOp::create(b, iteration, index(sets));
  Value line = arith::DivUIOp::create(b, done, elements(pages * lineBytes));
  next = add(next, mul(set, elements(pagesOfSet * pageBytes)));
  next = add(next, mul(line, elements(lineBytes)));
  for (int64_t page = 0; page < pagesOfSet; ++page)
    for (int64_t line = 0; line < linesOfPage; ++line)
      memref::PrefetchOp::create(
          b, buffer, add(next, elements(page * pageBytes + line * lineBytes)),
          /*isWrite=*/false, /*localityHint=*/3, /*isDataCache=*/true);
}
