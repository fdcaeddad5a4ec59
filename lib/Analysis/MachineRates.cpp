//===- MachineRates.cpp - How fast machines are ---------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/MachineRates.h"

#include "mlir/IR/BuiltinTypes.h"
#include "llvm/ADT/StringExtras.h"
#include "llvm/Support/Format.h"
#include "llvm/Support/MemoryBuffer.h"
#include "llvm/Support/Threading.h"
#include "llvm/Support/raw_ostream.h"
#include "llvm/TargetParser/Host.h"
#include "llvm/TargetParser/Triple.h"

#include <algorithm>

using namespace mlir;
using namespace mlir::moe;

double MachineRates::flops(Type element) const {
  if (element.isF16())
    return f16;
  if (element.isBF16())
    return bf16;
  if (isa<FloatType>(element) && element.getIntOrFloatBitWidth() == 8)
    return f8;
  return f32;
}

//===----------------------------------------------------------------------===//
// GPUs
//===----------------------------------------------------------------------===//

namespace {
struct GPU {
  StringLiteral name, title;
  unsigned architecture;
  // TFLOP/s and TB/s. f32 is that of the CUDA cores: f32 operands are not
  // rounded to TF32. On a GPU without f8, f8 is widened to 16 bits.
  double f32, f16, f8, bandwidth;
  unsigned multiprocessors;
  double gigahertz; // boost clock, at which the peak rates are stated
};
} // namespace

// Peak rates without sparsity, from NVIDIA's data sheets and white papers named
// behind each. The first GPU of an architecture represents it.
static constexpr GPU gpus[] = {
    // "NVIDIA A100 Tensor Core GPU" data sheet, 2021.
    {"a100-sxm", "NVIDIA A100 SXM 80GB", 80, 19.5, 312, 312, 2.039, 108, 1.41},
    {"a100-pcie", "NVIDIA A100 PCIe 80GB", 80, 19.5, 312, 312, 1.935, 108,
     1.41},
    // "NVIDIA A10 Tensor Core GPU" and "NVIDIA A40" data sheets, 2021.
    {"a10", "NVIDIA A10", 86, 31.2, 125, 125, 0.600, 72, 1.695},
    {"a40", "NVIDIA A40", 86, 37.4, 149.7, 149.7, 0.696, 84, 1.74},
    // "NVIDIA Ampere GA102 GPU Architecture" white paper, f32 accumulators.
    {"rtx3090", "NVIDIA GeForce RTX 3090", 86, 35.6, 71, 71, 0.936, 82, 1.695},
    // "NVIDIA L40S" and "NVIDIA L4 Tensor Core GPU" data sheets, 2023.
    {"l40s", "NVIDIA L40S", 89, 91.6, 362.05, 733, 0.864, 142, 2.49},
    {"l4", "NVIDIA L4", 89, 30.3, 121, 242.5, 0.300, 58, 2.04},
    // "NVIDIA Ada GPU Architecture" white paper, f32 accumulators.
    {"rtx4090", "NVIDIA GeForce RTX 4090", 89, 82.6, 165.2, 330.3, 1.008, 128,
     2.52},
    // "NVIDIA H100 Tensor Core GPU" and "NVIDIA H200" data sheets, half of
    // the rates with sparsity.
    {"h100-sxm", "NVIDIA H100 SXM", 90, 67, 989.5, 1979, 3.35, 132, 1.83},
    {"h100-pcie", "NVIDIA H100 PCIe", 90, 51, 756.5, 1513, 2.0, 114, 1.62},
    {"h200", "NVIDIA H200 SXM", 90, 67, 989.5, 1979, 4.8, 132, 1.83},
    // "NVIDIA Blackwell" data sheet, HGX B200.
    {"b200", "NVIDIA B200 (HGX)", 100, 75, 2250, 4500, 7.7, 148, 1.855},
    // "NVIDIA RTX Blackwell GPU Architecture" white paper, f32 accumulators.
    {"rtx5090", "NVIDIA GeForce RTX 5090", 120, 104.8, 209.5, 419, 1.792, 170,
     2.407},
};

static GPUMachine machineOf(const GPU &gpu) {
  constexpr double tera = 1e12;
  MachineRates rates;
  rates.name = gpu.title.str();
  rates.f32 = gpu.f32 * tera;
  rates.f16 = rates.bf16 = gpu.f16 * tera;
  rates.f8 = gpu.f8 * tera;
  rates.bandwidth = gpu.bandwidth * tera;
  return {rates, gpu.multiprocessors, gpu.gigahertz * 1e9,
          gpu.architecture == 90};
}

std::optional<GPUMachine> mlir::moe::findGPU(StringRef name) {
  for (const GPU &gpu : gpus)
    if (gpu.name == name)
      return machineOf(gpu);
  // The suffix after the digits names a set of instructions.
  unsigned architecture;
  if (!name.consume_front("sm_") || name.consumeInteger(10, architecture))
    return std::nullopt;
  const GPU *found = nullptr;
  for (const GPU &gpu : gpus)
    if (gpu.architecture <= architecture &&
        (!found || gpu.architecture > found->architecture))
      found = &gpu;
  return found ? std::optional(machineOf(*found)) : std::nullopt;
}

std::optional<MachineRates> mlir::moe::findGPURates(StringRef name) {
  std::optional<GPUMachine> gpu = findGPU(name);
  return gpu ? std::optional(gpu->rates) : std::nullopt;
}

std::vector<StringRef> mlir::moe::listGPUs() {
  std::vector<StringRef> names;
  for (const GPU &gpu : gpus)
    names.push_back(gpu.name);
  return names;
}

//===----------------------------------------------------------------------===//
// Processors
//===----------------------------------------------------------------------===//

/// Reads a file that holds one number.
static std::optional<double> readNumber(StringRef path) {
  auto file = llvm::MemoryBuffer::getFileAsStream(path);
  double number;
  if (!file || !llvm::to_float((*file)->getBuffer().trim(), number))
    return std::nullopt;
  return number;
}

/// The clock of this machine in Hz: the base clock, else the maximum, else the
/// current one.
static std::optional<double> findClock() {
  constexpr double kilo = 1e3, mega = 1e6;
  for (StringRef name : {"base_frequency", "cpuinfo_max_freq"})
    if (auto number =
            readNumber(("/sys/devices/system/cpu/cpu0/cpufreq/" + name).str()))
      return *number * kilo;
  auto file = llvm::MemoryBuffer::getFileAsStream("/proc/cpuinfo");
  if (!file)
    return std::nullopt;
  double most = 0, number;
  for (StringRef line : llvm::split((*file)->getBuffer(), '\n')) {
    auto [key, value] = line.split(':');
    if (key.trim() == "cpu MHz" && llvm::to_float(value.trim(), number))
      most = std::max(most, number);
  }
  return most > 0 ? std::optional(most * mega) : std::nullopt;
}

ProcessorDescription ProcessorDescription::of(StringRef cpu,
                                              ArrayRef<std::string> features) {
  ProcessorDescription processor;
  processor.cpu = cpu.str();
  processor.cores = std::max(llvm::get_physical_cores(), 1);
  processor.hertz = findClock().value_or(processor.hertz);
  auto has = [&](StringRef feature) {
    return llvm::is_contained(features, feature);
  };
  processor.vectorBits = has("avx512f") ? 512 : has("avx2") ? 256 : 128;
  processor.fusedMultiplyAdd = has("fma") || has("avx512f") || has("neon");
  processor.bf16Dot = has("avx512bf16");
  return processor;
}

ProcessorDescription ProcessorDescription::host() {
  SmallVector<std::string> features;
  for (const auto &[feature, present] : llvm::sys::getHostCPUFeatures())
    if (present)
      features.push_back(feature.str());
  return of(llvm::sys::getHostCPUName(), features);
}

/// Vector multiplications that can issue in each cycle: two, but one where a
/// 512-bit vector takes both 256-bit units.
static unsigned vectorsPerCycle(StringRef cpu, unsigned vectorBits) {
  static constexpr StringLiteral halved[] = {
      "znver4", "cannonlake", "icelake-client", "rocketlake", "tigerlake"};
  return vectorBits == 512 && llvm::is_contained(halved, cpu) ? 1 : 2;
}

MachineRates ProcessorDescription::rates() const {
  // A core streams about 20 GB/s, and about ten of them use up the channels of
  // one socket. The system does not report its memory bandwidth.
  constexpr double ofCore = 20e9, ofSocket = 200e9;
  MachineRates rates;
  // Without FMA a multiplication and an addition each take a unit.
  double perCycle = vectorsPerCycle(cpu, vectorBits) * (vectorBits / 32) *
                    (fusedMultiplyAdd ? 2 : 1);
  rates.setFlops(double(cores) * hertz * perCycle);
  // A bf16 dot product adds two products to each f32 accumulator; other types
  // are widened to f32.
  if (bf16Dot)
    rates.bf16 *= 2;
  rates.bandwidth = std::min(double(cores) * ofCore, ofSocket);
  rates.bandwidthAssumed = true;
  llvm::raw_string_ostream(rates.name)
      << cpu << ", " << cores << (cores == 1 ? " core" : " cores") << " at "
      << llvm::format("%.2f", hertz / 1e9) << " GHz with vectors of "
      << vectorBits << " bits";
  return rates;
}
