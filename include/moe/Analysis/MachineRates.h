//===- MachineRates.h - How fast machines are -------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_ANALYSIS_MACHINERATES_H
#define MOE_ANALYSIS_MACHINERATES_H

#include "mlir/IR/Types.h"
#include "llvm/ADT/ArrayRef.h"

#include <optional>
#include <string>

namespace mlir::moe {

/// Peak rates of a machine: floating-point operations per second of matmuls
/// with f32 accumulators, by the type of the operands, without sparsity, and
/// bytes per second of its memory.
struct MachineRates {
  std::string name;
  double f32 = 0, f16 = 0, bf16 = 0, f8 = 0;
  double bandwidth = 0;
  /// True if the bandwidth is assumed: neither given nor of a data sheet.
  bool bandwidthAssumed = false;

  /// The rate of matmuls of this type; types without a rate count as f32.
  double flops(Type element) const;
  void setFlops(double rate) { f32 = f16 = bf16 = f8 = rate; }
};

/// The rates of a GPU by its name, such as `h100-sxm`, or by an architecture,
/// such as `sm_90a`. An architecture without a GPU in the table has the rates
/// of the one before it.
std::optional<MachineRates> findGPURates(llvm::StringRef name);

/// A GPU: its peak rates, and the multiprocessors behind them.
struct GPUMachine {
  MachineRates rates;
  int64_t multiprocessors = 1;
  /// The clock at which the data sheet states the peak rates.
  double hertz = 1e9;
  /// True if it has the tensor instructions of a warpgroup.
  bool hasWgmma = false;
};

/// A GPU by its name or by an architecture, as `findGPURates`.
std::optional<GPUMachine> findGPU(llvm::StringRef name);

/// The names of all GPUs, for diagnostics.
std::vector<llvm::StringRef> listGPUs();

/// The properties of a CPU that its peak rates follow from.
struct ProcessorDescription {
  std::string cpu; // LLVM's name
  int64_t cores = 1;
  double hertz = 2e9;
  unsigned vectorBits = 128;
  bool fusedMultiplyAdd = false;
  bool bf16Dot = false;

  /// LLVM's name and features of a processor, in as many cores and with the
  /// clock of this machine.
  static ProcessorDescription of(llvm::StringRef cpu,
                                 llvm::ArrayRef<std::string> features);
  /// This machine.
  static ProcessorDescription host();

  MachineRates rates() const;
};

} // namespace mlir::moe

#endif // MOE_ANALYSIS_MACHINERATES_H
