// The CPU description must be valid.
// RUN: not moe-opt %s -moe-pack-weights="vector-bits=100" 2>&1 | FileCheck %s --check-prefix=BITS -DN=100
// RUN: not moe-opt %s -moe-pack-weights="vector-bits=192" 2>&1 | FileCheck %s --check-prefix=BITS -DN=192
// RUN: not moe-opt %s -convert-moe-to-cpu="vector-bits=64" 2>&1 | FileCheck %s --check-prefix=BITS -DN=64
// RUN: not moe-opt %s -convert-moe-to-cpu="vector-bits=4096" 2>&1 | FileCheck %s --check-prefix=BITS -DN=4096
// RUN: not moe-opt %s -convert-moe-to-cpu="vector-bits=-128" 2>&1 | FileCheck %s --check-prefix=BITS -DN=-128
// RUN: not moe-opt %s -moe-cpu="vector-bits=0" 2>&1 | FileCheck %s --check-prefix=BITS -DN=0
// BITS: error: expected vectors of 128 to 2048 bits, a power of two, got [[N]]

// RUN: not moe-opt %s -moe-pack-weights="vector-registers=7" 2>&1 | FileCheck %s --check-prefix=REGISTERS
// RUN: not moe-opt %s -convert-moe-to-cpu="vector-registers=7" 2>&1 | FileCheck %s --check-prefix=REGISTERS
// REGISTERS: error: expected at least 8 vector registers, got 7

// RUN: not moe-opt %s -moe-pack-weights="bf16-dot=true" 2>&1 | FileCheck %s --check-prefix=DOT
// RUN: not moe-opt %s -convert-moe-to-cpu="bf16-dot=true vector-bits=128" 2>&1 | FileCheck %s --check-prefix=DOT
// DOT: error: expected vectors of 512 bits for dot products of bf16, got 128

// RUN: not moe-opt %s -moe-quantize-activations="int8-dot=true" 2>&1 | FileCheck %s --check-prefix=INT8
// INT8: error: expected vectors of at least 256 bits for dot products of 8-bit integers, got 128

// RUN: not moe-opt %s -moe-pack-weights="byte-permute=true vector-bits=256" 2>&1 | FileCheck %s --check-prefix=TABLES
// TABLES: error: expected vectors of 512 bits for tables of bytes, got 256

// RUN: not moe-opt %s -convert-moe-to-cpu="prefetched-pages=65" 2>&1 | FileCheck %s --check-prefix=PAGES
// RUN: not moe-opt %s -convert-moe-to-cpu="prefetched-pages=-1" 2>&1 | FileCheck %s --check-prefix=PAGES
// PAGES: error: expected 0 to 64 prefetched pages, got {{65|-1}}

module {}
