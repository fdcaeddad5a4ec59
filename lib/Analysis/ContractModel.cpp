//===- ContractModel.cpp - How long contractions and loops should take ----===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
// Kernels of backward functions: lib/Conversion/MoEToGPU/GroupedContract, and
// loops that have no kernel of their own.
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/KernelModel.h"

#include "mlir/IR/Builders.h"
#include "llvm/Support/MathExtras.h"

#include <algorithm>
#include <cmath>

using namespace mlir;
using namespace mlir::moe;

static double bytesOf(Type type) {
  return double(type.getIntOrFloatBitWidth()) / 8;
}

//===----------------------------------------------------------------------===//
// Contractions
//===----------------------------------------------------------------------===//

/// Instructions with which a thread stores an element of a tile, and with which
/// it adds one; and those of a row that a thread without tensor cores sums;
/// read off machine code for sm_90a.
static constexpr double storeInstructions = 2.65, addInstructions = 4.5,
                        elementInstructions = 12;

DictionaryAttr ContractWork::toAttr() const {
  Builder b(rows.getContext());
  auto number = [&](StringRef name, int64_t value) {
    return b.getNamedAttr(name, b.getI64IntegerAttr(value));
  };
  SmallVector<NamedAttribute> entries = {
      b.getNamedAttr("unit", MatrixUnitAttr::get(b.getContext(), unit)),
      number("experts", experts),
      number("k", k),
      number("n", n),
      number("tile_k", tileK),
      number("tile_n", tileN),
      number("depth", depth),
      number("gathers", gathers),
      b.getNamedAttr("contracted", TypeAttr::get(rows)),
      b.getNamedAttr("result", TypeAttr::get(result))};
  for (auto [name, isSet] :
       {std::pair("elements", elements), std::pair("grouped", grouped),
        std::pair("accumulate", accumulate)})
    if (isSet)
      entries.push_back(b.getNamedAttr(name, b.getUnitAttr()));
  return b.getDictionaryAttr(entries);
}

std::optional<ContractWork> ContractWork::fromAttr(DictionaryAttr attr) {
  ContractWork work;
  auto unit = attr.getAs<MatrixUnitAttr>("unit");
  auto rows = attr.getAs<TypeAttr>("contracted"),
       result = attr.getAs<TypeAttr>("result");
  if (!unit || !rows || !result || !rows.getValue().isIntOrFloat() ||
      !result.getValue().isIntOrFloat())
    return std::nullopt;
  work.unit = unit.getValue();
  work.rows = rows.getValue();
  work.result = result.getValue();
  bool complete = true;
  for (auto [name, value] :
       {std::pair("experts", &work.experts), std::pair("k", &work.k),
        std::pair("n", &work.n), std::pair("tile_k", &work.tileK),
        std::pair("tile_n", &work.tileN), std::pair("depth", &work.depth),
        std::pair("gathers", &work.gathers)}) {
    auto found = attr.getAs<IntegerAttr>(name);
    complete &= bool(found);
    *value = found ? found.getInt() : 0;
  }
  work.elements = attr.contains("elements");
  work.grouped = attr.contains("grouped");
  work.accumulate = attr.contains("accumulate");
  if (!complete || std::min({work.experts, work.k, work.n, work.tileK,
                             work.tileN, work.depth}) < 1)
    return std::nullopt;
  return work;
}

KernelPrediction ContractWork::predict(const GPUMachine &gpu,
                                       const RowCounts &counts) const {
  KernelPrediction predicted;
  double matrices = double(experts) * double(k) * double(n);
  double sides = (double(k) + double(n)) * bytesOf(rows);
  predicted.start = startSeconds;
  // Rows once, where the tiles of an expert find them in the L2 cache; every
  // element of the result, without an expert's rows as well.
  predicted.memoryBytes =
      counts.total * sides + matrices * bytesOf(result) * (1 + accumulate);
  predicted.memory =
      predicted.memoryBytes / (gpu.rates.bandwidth * memoryShare);
  double rowsOfExpert = counts.total / double(experts);
  if (elements) {
    double threads = std::min(matrices, 4096.0 * 256);
    predicted.waves =
        std::ceil(threads / (residentThreads * double(gpu.multiprocessors)));
    predicted.cacheBytes = 2 * matrices * rowsOfExpert * bytesOf(rows);
    // A warp reads one element of a row of one side, and 32 of the other.
    predicted.cache =
        predicted.cacheBytes / 2 * (1 + 1.0 / 32) /
        (cacheBytesPerClock * gpu.hertz * double(gpu.multiprocessors));
    predicted.instructions =
        matrices * rowsOfExpert * elementInstructions /
        (issueLanes * gpu.hertz * double(gpu.multiprocessors));
    predicted.seconds =
        startSeconds +
        std::max({predicted.cache, predicted.instructions, predicted.memory});
    return predicted;
  }
  double tilesOfExpert = std::ceil(double(k) / double(tileK)) *
                         std::ceil(double(n) / double(tileN));
  double tiles = double(experts) * tilesOfExpert;
  // The blocks of a grid have tiles of all experts.
  double steps = counts.padded / double(depth) / double(experts);
  predicted.waves = std::ceil(tiles / double(gpu.multiprocessors));

  double flops = 2 * double(tileK) * double(tileN) * double(depth);
  double peak = gpu.rates.flops(rows) / double(gpu.multiprocessors);
  double slowdown = 1;
  if (unit == MatrixUnit::MmaSync)
    slowdown = gpu.hasWgmma ? 1 / mmaSyncShare : 1;
  else // Both operands are in shared memory (KernelModel.cpp).
    slowdown = std::max(1.0, (64 + double(tileN)) * 32 / 128 / double(tileN));
  double tensor = flops / peak * slowdown;
  double stepBytes = double(tileK + tileN) * double(depth) * bytesOf(rows);
  double cache = stepBytes / (cacheBytesPerClock * gpu.hertz);
  // The producer of gathered rows loads their numbers before their copies.
  double gather = gathers > 0 ? loadSeconds : 0;
  double step = std::max({tensor, cache, gather});
  double epilogue = double(tileK * tileN) *
                    (accumulate ? addInstructions : storeInstructions) /
                    issueLanes / gpu.hertz;

  predicted.tensor = predicted.waves * steps * tensor;
  predicted.cache = predicted.waves * steps * cache;
  predicted.instructions = predicted.waves * steps * gather;
  predicted.epilogue = predicted.waves * epilogue;
  predicted.cacheBytes =
      tilesOfExpert * counts.padded / double(depth) * stepBytes;
  predicted.seconds =
      startSeconds +
      std::max(predicted.waves * (steps * step + epilogue), predicted.memory);
  return predicted;
}

//===----------------------------------------------------------------------===//
// Loops
//===----------------------------------------------------------------------===//

KernelPrediction LoopWork::predict(const GPUMachine &gpu) const {
  KernelPrediction predicted;
  predicted.start = startSeconds;
  predicted.memoryBytes = memoryBytes;
  predicted.memory = memoryBytes / (gpu.rates.bandwidth * memoryShare);
  predicted.cacheBytes = readBytes + writtenBytes;
  double multiprocessors = double(gpu.multiprocessors);
  predicted.cache =
      predicted.cacheBytes / (cacheBytesPerClock * gpu.hertz * multiprocessors);
  // A thread for each iteration, as many as are resident; of one warp's time
  // for a few.
  double threads = std::min(iterations, residentThreads * multiprocessors);
  predicted.waves = std::ceil(iterations / std::max(threads, 1.0));
  double lanes =
      std::min(std::max(threads, 32.0), issueLanes * multiprocessors);
  predicted.instructions = std::max(instructions / (lanes * gpu.hertz),
                                    predicted.waves * chain * chainSeconds);
  predicted.seconds =
      startSeconds +
      std::max({predicted.cache, predicted.instructions, predicted.memory});
  return predicted;
}
