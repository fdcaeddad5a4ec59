// The architecture must be known.
// RUN: not moe-opt %s -moe-tile-for-gpu=arch=sm_70 2>&1 | FileCheck %s -DARCH=sm_70
// RUN: not moe-opt %s -convert-moe-to-gpu=arch=sm_70 2>&1 | FileCheck %s -DARCH=sm_70
// RUN: not moe-opt %s -convert-moe-to-gpu=arch=sm_80a 2>&1 | FileCheck %s -DARCH=sm_80a
// RUN: not moe-opt %s -convert-moe-to-gpu=arch=compute_80 2>&1 | FileCheck %s -DARCH=compute_80
// RUN: not moe-opt %s -moe-gpu=arch=gfx942 2>&1 | FileCheck %s -DARCH=gfx942
// RUN: not moe-opt %s -moe-gpu-to-buffers=arch= 2>&1 | FileCheck %s -DARCH=
// CHECK: error: expected an architecture of sm_80, sm_86, sm_89, sm_90, sm_90a, sm_100, sm_120, got '[[ARCH]]'

// Known architectures.
// RUN: moe-opt %s -moe-tile-for-gpu=arch=sm_80 -convert-moe-to-gpu=arch=sm_86
// RUN: moe-opt %s -moe-tile-for-gpu=arch=sm_89 -convert-moe-to-gpu=arch=sm_90
// RUN: moe-opt %s -moe-tile-for-gpu=arch=sm_90a -convert-moe-to-gpu=arch=sm_100
// RUN: moe-opt %s -convert-moe-to-gpu=arch=sm_120

// An existing gpu.module must have the same architecture.
// RUN: not moe-opt %s -convert-moe-to-gpu=arch=sm_80 -convert-moe-to-gpu=arch=sm_90a 2>&1 | FileCheck %s --check-prefix=OTHER
// OTHER: error: expected a gpu.module for 'sm_90a', got one for #nvvm.target<O = 3, chip = "sm_80">

module {}
