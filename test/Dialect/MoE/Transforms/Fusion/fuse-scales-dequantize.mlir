// RUN: moe-opt %s -moe-fuse-scales -canonicalize | FileCheck %s
// RUN: moe-opt %s -moe-fuse-scales=keep-formats=true -canonicalize | FileCheck %s --check-prefix=KEEP

// KEEP-COUNT-5: moe.dequantize
// KEEP-NOT:     weight_scales

// CHECK-LABEL: func.func @blocks(
// CHECK-SAME:    %{{.*}}: tensor<?x208xbf16>, %{{.*}}: tensor<3xi32>, %[[W:.*]]: tensor<2x96x208xf8E4M3FN>, %[[S:.*]]: tensor<2x2x2xf32>
// CHECK-NOT:     moe.dequantize
// CHECK:         moe.grouped_matmul %{{.*}} weights(%[[W]] : tensor<2x96x208xf8E4M3FN>) transposed weight_scales(%[[S]] : tensor<2x2x2xf32>) blocks([128, 64])
func.func @blocks(%x: tensor<?x208xbf16>, %o: tensor<3xi32>, %w: tensor<2x96x208xf8E4M3FN>, %s: tensor<2x2x2xf32>,
                  %init: tensor<?x96xbf16>) -> tensor<?x96xbf16> {
  %d = moe.dequantize %w, %s format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [64, 128]>]>)
    : tensor<2x96x208xf8E4M3FN>, tensor<2x2x2xf32> -> tensor<2x96x208xbf16>
  %y = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%d : tensor<2x96x208xbf16>) transposed outs(%init : tensor<?x96xbf16>) {
  ^bb0(%sum: f32):
    %r = arith.truncf %sum : f32 to bf16
    moe.yield %r : bf16
  } : tensor<?x208xbf16> -> tensor<?x96xbf16>
  return %y : tensor<?x96xbf16>
}

// Scales of 16 bits are extended. The weights are those of one expert, and the block is larger
// than they are.
// CHECK-LABEL: func.func @one(
// CHECK-SAME:    %[[W:[a-z0-9]+]]: tensor<96x208xf8E4M3FN>, %[[S:[a-z0-9]+]]: tensor<1x2xbf16>
// CHECK-DAG:     %[[F:.*]] = arith.extf %[[S]] : tensor<1x2xbf16> to tensor<1x2xf32>
// CHECK-DAG:     %[[SE:.*]] = tensor.expand_shape %[[F]]
// CHECK-DAG:     %[[WE:.*]] = tensor.expand_shape %[[W]]
// CHECK:         moe.grouped_matmul %{{.*}} weights(%[[WE]] : tensor<1x96x208xf8E4M3FN>) transposed weight_scales(%[[SE]] : tensor<1x1x2xf32>) blocks([128, 96])
func.func @one(%x: tensor<?x208xbf16>, %w: tensor<96x208xf8E4M3FN>, %s: tensor<1x2xbf16>, %init: tensor<?x96xbf16>) -> tensor<?x96xbf16> {
  %d = moe.dequantize %w, %s format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = bf16, operand = 1, block = [128, 128]>]>)
    : tensor<96x208xf8E4M3FN>, tensor<1x2xbf16> -> tensor<96x208xbf16>
  %e = tensor.expand_shape %d [[0, 1], [2]] output_shape [1, 96, 208] : tensor<96x208xbf16> into tensor<1x96x208xbf16>
  %y = moe.grouped_matmul %x weights(%e : tensor<1x96x208xbf16>) transposed outs(%init : tensor<?x96xbf16>) {
  ^bb0(%sum: f32):
    %r = arith.truncf %sum : f32 to bf16
    moe.yield %r : bf16
  } : tensor<?x208xbf16> -> tensor<?x96xbf16>
  return %y : tensor<?x96xbf16>
}

// What has no kernel: integers, exponents as scales, blocks of a few steps.
// CHECK-LABEL: func.func @others(
// CHECK-COUNT-3: moe.dequantize
// CHECK-NOT:     weight_scales
func.func @others(%x: tensor<?x64xbf16>, %o: tensor<3xi32>, %i: tensor<2x8x64xi8>, %f: tensor<2x8x64xf8E4M3FN>,
                  %e8: tensor<2x8x1xf8E8M0FNU>, %s: tensor<2x8x1xf32>,
                  %t: tensor<2x8x2xf32>, %init: tensor<?x8xbf16>) -> (tensor<?x8xbf16>, tensor<?x8xbf16>, tensor<?x8xbf16>) {
  %a = moe.dequantize %i, %s format(<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 64]>]>)
    : tensor<2x8x64xi8>, tensor<2x8x1xf32> -> tensor<2x8x64xbf16>
  %b = moe.dequantize %f, %e8 format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f8E8M0FNU, operand = 1, block = [1, 64]>]>)
    : tensor<2x8x64xf8E4M3FN>, tensor<2x8x1xf8E8M0FNU> -> tensor<2x8x64xbf16>
  %c = moe.dequantize %f, %t format(<codes = <element = f8E4M3FN>, scales = [#moe.field<element = f32, operand = 1, block = [1, 32]>]>)
    : tensor<2x8x64xf8E4M3FN>, tensor<2x8x2xf32> -> tensor<2x8x64xbf16>
  %y0 = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%a : tensor<2x8x64xbf16>) transposed outs(%init : tensor<?x8xbf16>) {
  ^bb0(%sum: f32):
    %r = arith.truncf %sum : f32 to bf16
    moe.yield %r : bf16
  } : tensor<?x64xbf16> -> tensor<?x8xbf16>
  %y1 = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%b : tensor<2x8x64xbf16>) transposed outs(%init : tensor<?x8xbf16>) {
  ^bb0(%sum: f32):
    %r = arith.truncf %sum : f32 to bf16
    moe.yield %r : bf16
  } : tensor<?x64xbf16> -> tensor<?x8xbf16>
  %y2 = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%c : tensor<2x8x64xbf16>) transposed outs(%init : tensor<?x8xbf16>) {
  ^bb0(%sum: f32):
    %r = arith.truncf %sum : f32 to bf16
    moe.yield %r : bf16
  } : tensor<?x64xbf16> -> tensor<?x8xbf16>
  return %y0, %y1, %y2 : tensor<?x8xbf16>, tensor<?x8xbf16>, tensor<?x8xbf16>
}
