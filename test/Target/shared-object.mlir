// The shared object in an artifact: no segment is writable and executable, what
// the loader relocates is read-only afterwards, and libraries are named if they
// are needed.
// RUN: moe-compile %s -o %t.moe
// RUN: llvm-readelf --program-headers --wide %t.moe | FileCheck %s --check-prefix=SEGMENTS
// SEGMENTS:     Elf file type is DYN
// SEGMENTS:     LOAD {{.*}} R   0x1000
// SEGMENTS:     LOAD {{.*}} R E 0x1000
// SEGMENTS:     LOAD {{.*}} RW  0x1000
// SEGMENTS-NOT: {{WE}}
// SEGMENTS:     DYNAMIC
// SEGMENTS:     GNU_RELRO {{.*}} R
// SEGMENTS:     GNU_STACK {{.*}} RW
// RUN: llvm-readelf --dynamic-table %t.moe | FileCheck %s --check-prefix=DYNAMIC
// DYNAMIC:     (NEEDED) Shared library: [libm.so.6]
// DYNAMIC-NOT: NEEDED
// DYNAMIC:     BIND_NOW

// The table of addresses is among what becomes read-only.
// RUN: llvm-readelf --relocations %t.moe | FileCheck %s --check-prefix=RELOCATIONS
// RELOCATIONS: R_X86_64_64 {{.*}} powf + 0

// Names for debuggers and profilers, of tasks as well.
// RUN: llvm-nm %t.moe | FileCheck %s --check-prefix=NAMES
// NAMES: T moe_entry_layer
// RUN: llvm-objdump -d --disassemble-symbols=moe_entry_layer %t.moe | FileCheck %s --check-prefix=CODE
// CODE: <moe_entry_layer>:

// The same input yields the same bytes.
// RUN: moe-compile %s -o %t.again.moe && cmp %t.moe %t.again.moe

// Without a call of the math library, none is needed.
// RUN: moe-compile %S/../Tools/moe-compile/Inputs/gate.mlir -o %t.gate.moe
// RUN: llvm-readelf --dynamic-table %t.gate.moe | FileCheck %s --check-prefix=PLAIN
// PLAIN-NOT: NEEDED

func.func @layer(%l: tensor<?x8xf32>) -> (tensor<?x2xf32>, tensor<?x2xi32>) {
  %w, %i = moe.gate %l top_k(2) normalize(<norm, p = 3.0>) : tensor<?x8xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}
