//===- wgmma_product.h - The product of one wgmma ---------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_WGMMA_PRODUCT_H
#define MOE_CUDA_DOUBLE_WGMMA_PRODUCT_H

#include "machine/machine.h"

namespace moe::gpu {

constexpr int wgmmaM = 64, wgmmaMaxN = 256;
constexpr int wgmmaRowBytes = 32; // bytes along k in one instruction

/// The shape and types of a wgmma, stored in Instruction::data.
struct WgmmaShape {
  int n;
  Type d, a, b;
  bool aInRegisters;
  bool negateA, negateB;
  bool transposeA, transposeB; // MN-major
  bool saturate;
  uint32_t accumulators, fragments; // registers of D and of A

  int k() const { return wgmmaRowBytes * 8 / bitsOf(a); }
};

inline const WgmmaShape &shapeOf(const Instruction &i) {
  return *static_cast<const WgmmaShape *>(i.data);
}

/// Checks, at issue, the operands in shared memory that the operation of a
/// warpgroup will read. The descriptor of an A in registers is ignored.
void checkOperands(Warp &warp, Epoch now, const WgmmaShape &shape, uint64_t a,
                   uint64_t b);

/// Executes an operation that all four warps have issued.
void perform(Block &block, uint32_t group, WgmmaOperation &operation);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_WGMMA_PRODUCT_H
