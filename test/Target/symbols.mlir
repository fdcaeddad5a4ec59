// What the code of an artifact asks of its host: functions of C's library, which
// every process has. No heap, no helper of a compiler's library, nothing of MLIR's.
// RUN: moe-compile %s --emit=obj -o %t.o
// RUN: llvm-nm --undefined-only --just-symbol-name %t.o | FileCheck %s --allow-empty \
// RUN:   --implicit-check-not='{{^(__.*|malloc|free|aligned_alloc|memrefCopy|_mlir.*|moe_.*|print.*)$}}'
// RUN: llvm-nm --undefined-only --just-symbol-name %t.o > %t.undefined
// RUN: not grep -v -x -e expf -e powf -e sqrtf -e fabsf -e memset -e memcpy -e memmove -e _GLOBAL_OFFSET_TABLE_ %t.undefined
// The linker agrees.
// RUN: moe-compile %s -o %t.moe
// RUN: llvm-nm --dynamic --defined-only --just-symbol-name %t.moe | FileCheck %s --check-prefix=DEFINED
// DEFINED:      moe_entry_halves
// DEFINED-NEXT: moe_entry_layer
// DEFINED-NEXT: moe_workspace_halves
// DEFINED-NEXT: moe_workspace_layer
// DEFINED-NOT:  {{.}}

func.func @layer(%l: tensor<?x8xf32>, %x: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %w, %i = moe.gate %l top_k(2) normalize(<norm, p = 3.0>) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %i weights(%w : tensor<?x2xf32>) experts(8) capacity(<factor = 1.25, rounding = floor>)
    priority(probability) : tensor<?x4xf32>, tensor<?x2xi32>
  %h = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %e = linalg.exp ins(%r : tensor<?x4xf32>) outs(%r : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %e : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<9xi32> -> tensor<?x4xf32>
  %y = moe.combine %h, %p weights(%w : tensor<?x2xf32>) dropped(%x : tensor<?x4xf32>) normalize(<sum>)
    : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}

func.func @halves(%l: tensor<?x8xbf16>, %x: tensor<?x4xf16>) -> (tensor<?x2xbf16>, tensor<?x4xf16>) {
  %w, %i = moe.gate %l top_k(2) score(sigmoid) score_type(bf16) : tensor<?x8xbf16>
  %g, %o, %p = moe.dispatch %x, %i weights(%w : tensor<?x2xbf16>) experts(8) scale_rows : tensor<?x4xf16>, tensor<?x2xi32>
  %y = moe.combine %g, %p : tensor<?x4xf16>, tensor<?x2xi32>
  return %w, %y : tensor<?x2xbf16>, tensor<?x4xf16>
}
