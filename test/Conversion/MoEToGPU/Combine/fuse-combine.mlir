// RUN: moe-opt %s -moe-fuse-combine -split-input-file | FileCheck %s

!weights = tensor<8x24x64xbf16>
#few = #moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>
#many = #moe.tile<unit = mma_sync, rows = 64, columns = 128, depth = 64, stages = 2>

// The destination of the combine moves before the matmul.
// CHECK-LABEL: func.func @fused(
// CHECK:         %[[R:.*]]:2 = moe.fused {
// CHECK:         tensor.dim %arg1
// CHECK-NEXT:    %[[E:.*]] = tensor.empty
// CHECK-NEXT:    %[[Y:.*]] = moe.fused counters(%[[R]]#1 : tensor<1024xi32>) {
// CHECK-NEXT:      %[[ROWS:.*]] = moe.grouped_matmul %{{.*}} offsets(%[[R]]#0
// CHECK:           %[[S:.*]] = moe.gather_sum %[[ROWS]], %{{.*}} outs(%[[E]]
// CHECK-NEXT:      moe.yield %[[S]] : tensor<?x24xbf16>
// CHECK-NEXT:    } -> tensor<?x24xbf16>
// CHECK-NEXT:    return %[[Y]]
func.func @fused(%x: tensor<?x64xbf16>, %positions: tensor<?x2xi32>, %ids: tensor<?x2xi32>,
                 %w: !weights, %init: tensor<?x24xbf16>) -> tensor<?x24xbf16> {
  %c0 = arith.constant 0 : index
  %r:2 = moe.fused {
    %t, %o, %p = moe.route %ids experts(8) : tensor<?x2xi32>
    %z = arith.constant dense<0> : tensor<1024xi32>
    moe.yield %o, %z : tensor<9xi32>, tensor<1024xi32>
  } -> tensor<9xi32>, tensor<1024xi32>
  %rows = moe.grouped_matmul %x offsets(%r#0 : tensor<9xi32>)
      weights(%w : !weights) transposed outs(%init : tensor<?x24xbf16>) {
  ^bb0(%s: f32):
    %v = arith.truncf %s : f32 to bf16
    moe.yield %v : bf16
  } {moe.tiles = [#few, #many]} : tensor<?x64xbf16> -> tensor<?x24xbf16>
  %n = tensor.dim %positions, %c0 : tensor<?x2xi32>
  %e = tensor.empty(%n) : tensor<?x24xbf16>
  %y = moe.gather_sum %rows, %positions outs(%e : tensor<?x24xbf16>)
    : tensor<?x24xbf16>, tensor<?x2xi32> -> tensor<?x24xbf16>
  return %y : tensor<?x24xbf16>
}

// -----

// No router clears counters for these offsets.
// CHECK-LABEL: func.func @no_counters(
// CHECK-NOT:     moe.fused
func.func @no_counters(%x: tensor<?x64xbf16>, %positions: tensor<?x2xi32>, %offsets: tensor<9xi32>,
                       %w: tensor<8x24x64xbf16>, %init: tensor<?x24xbf16>, %e: tensor<?x24xbf16>) -> tensor<?x24xbf16> {
  %rows = moe.grouped_matmul %x offsets(%offsets : tensor<9xi32>)
      weights(%w : tensor<8x24x64xbf16>) transposed outs(%init : tensor<?x24xbf16>) {
  ^bb0(%s: f32):
    %v = arith.truncf %s : f32 to bf16
    moe.yield %v : bf16
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x24xbf16>
  %y = moe.gather_sum %rows, %positions outs(%e : tensor<?x24xbf16>)
    : tensor<?x24xbf16>, tensor<?x2xi32> -> tensor<?x24xbf16>
  return %y : tensor<?x24xbf16>
}

// -----

// One router clears counters for one combine: the second one has none. Where all tiles
// have many rows, none can have the epilogue.
// CHECK-LABEL: func.func @counters_taken(
// CHECK:         %[[R:.*]]:2 = moe.fused {
// CHECK:         moe.fused counters(%[[R]]#1
// CHECK:         } -> tensor<?x24xbf16>
// CHECK-NOT:     moe.fused
func.func @counters_taken(%x: tensor<?x64xbf16>, %positions: tensor<?x2xi32>, %ids: tensor<?x2xi32>,
                          %w: tensor<8x24x64xbf16>, %init: tensor<?x24xbf16>, %e: tensor<?x24xbf16>)
    -> (tensor<?x24xbf16>, tensor<?x24xbf16>, tensor<?x24xbf16>) {
  %r:2 = moe.fused {
    %t, %o, %p = moe.route %ids experts(8) : tensor<?x2xi32>
    %z = arith.constant dense<0> : tensor<1024xi32>
    moe.yield %o, %z : tensor<9xi32>, tensor<1024xi32>
  } -> tensor<9xi32>, tensor<1024xi32>
  %many = moe.grouped_matmul %x offsets(%r#0 : tensor<9xi32>)
      weights(%w : tensor<8x24x64xbf16>) transposed outs(%init : tensor<?x24xbf16>) {
  ^bb0(%s: f32):
    %v = arith.truncf %s : f32 to bf16
    moe.yield %v : bf16
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 64, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x24xbf16>
  %first = moe.grouped_matmul %x offsets(%r#0 : tensor<9xi32>)
      weights(%w : tensor<8x24x64xbf16>) transposed outs(%init : tensor<?x24xbf16>) {
  ^bb0(%s: f32):
    %v = arith.truncf %s : f32 to bf16
    moe.yield %v : bf16
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x24xbf16>
  %second = moe.grouped_matmul %x offsets(%r#0 : tensor<9xi32>)
      weights(%w : tensor<8x24x64xbf16>) transposed outs(%init : tensor<?x24xbf16>) {
  ^bb0(%s: f32):
    %v = arith.truncf %s : f32 to bf16
    moe.yield %v : bf16
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x24xbf16>
  %y0 = moe.gather_sum %many, %positions outs(%e : tensor<?x24xbf16>)
    : tensor<?x24xbf16>, tensor<?x2xi32> -> tensor<?x24xbf16>
  %y1 = moe.gather_sum %first, %positions outs(%e : tensor<?x24xbf16>)
    : tensor<?x24xbf16>, tensor<?x2xi32> -> tensor<?x24xbf16>
  %y2 = moe.gather_sum %second, %positions outs(%e : tensor<?x24xbf16>)
    : tensor<?x24xbf16>, tensor<?x2xi32> -> tensor<?x24xbf16>
  return %y0, %y1, %y2 : tensor<?x24xbf16>, tensor<?x24xbf16>, tensor<?x24xbf16>
}

// -----

// The kernel of the matmul cannot read weights that are computed after it.
// CHECK-LABEL: func.func @late_weights(
// CHECK:         moe.fused {
// CHECK-NOT:     moe.fused
func.func @late_weights(%x: tensor<?x64xbf16>, %positions: tensor<?x2xi32>, %ids: tensor<?x2xi32>, %late: tensor<?x2xf64>,
                        %w: tensor<8x24x64xbf16>, %init: tensor<?x24xbf16>, %e: tensor<?x24xbf16>) -> tensor<?x24xbf16> {
  %r:2 = moe.fused {
    %t, %o, %p = moe.route %ids experts(8) : tensor<?x2xi32>
    %z = arith.constant dense<0> : tensor<1024xi32>
    moe.yield %o, %z : tensor<9xi32>, tensor<1024xi32>
  } -> tensor<9xi32>, tensor<1024xi32>
  %rows = moe.grouped_matmul %x offsets(%r#0 : tensor<9xi32>)
      weights(%w : tensor<8x24x64xbf16>) transposed outs(%init : tensor<?x24xbf16>) {
  ^bb0(%s: f32):
    %v = arith.truncf %s : f32 to bf16
    moe.yield %v : bf16
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x24xbf16>
  %weights = arith.truncf %late : tensor<?x2xf64> to tensor<?x2xf32>
  %y = moe.gather_sum %rows, %positions weights(%weights : tensor<?x2xf32>) outs(%e : tensor<?x24xbf16>)
    : tensor<?x24xbf16>, tensor<?x2xi32> -> tensor<?x24xbf16>
  return %y : tensor<?x24xbf16>
}

// -----

// Rows of the other experts come from elsewhere: no block sees them arrive.
// CHECK-LABEL: func.func @some_experts(
// CHECK:         moe.fused {
// CHECK-NOT:     moe.fused
func.func @some_experts(%x: tensor<?x64xbf16>, %positions: tensor<?x2xi32>, %ids: tensor<?x2xi32>,
                        %w: tensor<4x24x64xbf16>, %init: tensor<?x24xbf16>, %e: tensor<?x24xbf16>) -> tensor<?x24xbf16> {
  %r:2 = moe.fused {
    %t, %o, %p = moe.route %ids experts(8) : tensor<?x2xi32>
    %z = arith.constant dense<0> : tensor<1024xi32>
    moe.yield %o, %z : tensor<9xi32>, tensor<1024xi32>
  } -> tensor<9xi32>, tensor<1024xi32>
  %rows = moe.grouped_matmul %x offsets(%r#0 : tensor<9xi32>)
      weights(%w : tensor<4x24x64xbf16>) transposed first(4) outs(%init : tensor<?x24xbf16>) {
  ^bb0(%s: f32):
    %v = arith.truncf %s : f32 to bf16
    moe.yield %v : bf16
  } {moe.tiles = [#moe.tile<unit = mma_sync, rows = 16, columns = 128, depth = 64, stages = 2>]} : tensor<?x64xbf16> -> tensor<?x24xbf16>
  %y = moe.gather_sum %rows, %positions outs(%e : tensor<?x24xbf16>)
    : tensor<?x24xbf16>, tensor<?x2xi32> -> tensor<?x24xbf16>
  return %y : tensor<?x24xbf16>
}
