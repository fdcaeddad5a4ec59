// RUN: moe-opt %s -moe-export -moe-pack-weights="vector-bits=512 vector-registers=32 bf16-dot=true" -canonicalize | FileCheck %s
// RUN: moe-opt %s -moe-export -moe-pack-weights="vector-bits=256" -canonicalize | FileCheck %s --check-prefix=AVX2
// RUN: moe-opt %s -moe-export -moe-pack-weights --remarks-filter-missed=moe-pack-weights -o /dev/null 2>&1 | FileCheck %s --check-prefix=REMARK

// REMARK-COUNT-3: [Missed] WeightsNotPrepacked | Category:moe-pack-weights | Function={{inputs|some_experts|computed_scales}} | Remark="packed in every call: the function computes these weights"
// REMARK-NOT:     WeightsNotPrepacked

// The interleaved weights of two GEMMs become one packed weight of the layer. The layer
// no longer reads the source.
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: tensor<?x4xf32>
// CHECK-SAME:    %[[O:[a-z0-9]+]]: tensor<3xi32>
// CHECK-SAME:    %[[PACKED:[a-z0-9]+]]: tensor<2x1x4x64x1xf32> {bufferization.writable = false})
// CHECK-SAME:    #moe.argument<name = "w", role = weight, type = tensor<2x4x40xf32>, retained = false>
// CHECK-SAME:    #moe.argument<name = "packed0", role = prepared, type = tensor<2x1x4x64x1xf32>, prepare = "layer__prepare0", sources = ["w"]>
// CHECK:         moe.grouped_matmul %[[X]] offsets(%[[O]] : tensor<3xi32>) weights(%[[PACKED]] : tensor<2x1x4x64x1xf32>)
// CHECK-SAME:      panels(<matmuls = 2, columns = 64, depth = 1>)
// CHECK-NOT:     moe.pack
// CHECK:       func.func @layer__prepare0(
// CHECK-SAME:    %[[W:.*]]: tensor<?x4x40xf32> {moe.name = "w"})
// CHECK-SAME:    -> (tensor<?x1x4x64x1xf32> {moe.name = "packed0"}) attributes {moe.prepares = @layer, moe.tokens = [0, 2]}
// CHECK:         %[[E:.*]] = tensor.dim %[[W]], %c0
// CHECK-DAG:     %[[G:.*]] = tensor.extract_slice %[[W]][0, 0, 0] [%[[E]], 4, 20] [1, 1, 2]
// CHECK-DAG:     %[[U:.*]] = tensor.extract_slice %[[W]][0, 0, 1] [%{{.*}}, 4, 20] [1, 1, 2]
// CHECK-DAG:     %[[INIT:.*]] = tensor.empty(%[[E]]) : tensor<?x1x4x64x1xf32>
// CHECK:         %[[P:.*]] = moe.pack %[[G]], %[[U]] panels(<matmuls = 2, columns = 64, depth = 1>) outs(%[[INIT]]
// CHECK:         return %[[P]]
// Narrower vectors give narrower panels.
// AVX2-LABEL:  func.func @layer(
// AVX2:          moe.grouped_matmul {{.*}} panels(<matmuls = 2, columns = 16, depth = 1>)
func.func @layer(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x40xf32> {moe.role = "weight", moe.name = "w"}) -> tensor<?x20xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x20xf32>
  %g = tensor.extract_slice %w[0, 0, 0] [2, 4, 20] [1, 1, 2] : tensor<2x4x40xf32> to tensor<2x4x20xf32>
  %u = tensor.extract_slice %w[0, 0, 1] [2, 4, 20] [1, 1, 2] : tensor<2x4x40xf32> to tensor<2x4x20xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%g, %u : tensor<2x4x20xf32>, tensor<2x4x20xf32>) outs(%e : tensor<?x20xf32>) {
  ^bb0(%a: f32, %b: f32):
    %m = arith.mulf %a, %b : f32
    moe.yield %m : f32
  } : tensor<?x4xf32> -> tensor<?x20xf32>
  return %y : tensor<?x20xf32>
}

// A 2-D weight is that of one expert. It has another user, so it is retained.
// CHECK-LABEL: func.func @dense(
// CHECK-SAME:    %[[PACKED:[a-z0-9]+]]: tensor<1x1x2x16x2xbf16> {bufferization.writable = false})
// CHECK-SAME:    #moe.argument<name = "w", role = weight, type = tensor<8x4xbf16>>
// CHECK-SAME:    sources = ["w"]>
// CHECK:         moe.grouped_matmul %{{.*}} weights(%[[PACKED]] : tensor<1x1x2x16x2xbf16>) panels(<matmuls = 1, columns = 16, depth = 2>)
// CHECK-NOT:     transposed
// CHECK:       func.func @dense__prepare0(
// CHECK-SAME:    %[[W:.*]]: tensor<?x8x4xbf16> {moe.name = "w"})
// CHECK:         moe.pack %[[W]] transposed panels(<matmuls = 1, columns = 16, depth = 2>)
// Only dot products use pairs.
// AVX2-LABEL:  func.func @dense(
// AVX2:          panels(<matmuls = 1, columns = 8, depth = 1>)
func.func @dense(%x: tensor<?x4xbf16>, %w: tensor<8x4xbf16> {moe.role = "weight", moe.name = "w"}) -> (tensor<?x8xf32>, tensor<8x4xbf16>) {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xbf16>
  %e = tensor.empty(%n) : tensor<?x8xf32>
  %v = tensor.expand_shape %w [[0, 1], [2]] output_shape [1, 8, 4] : tensor<8x4xbf16> into tensor<1x8x4xbf16>
  %y = moe.grouped_matmul %x weights(%v : tensor<1x8x4xbf16>) transposed outs(%e : tensor<?x8xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x4xbf16> -> tensor<?x8xf32>
  return %y, %w : tensor<?x8xf32>, tensor<8x4xbf16>
}

// Two matmuls with the same weights share the packed weights; another layout is packed
// separately. Names in use get a suffix.
// CHECK-LABEL: func.func @shared(
// CHECK-SAME:    name = "packed0", role = weight
// CHECK-SAME:    name = "packed0_", role = prepared, type = tensor<{{.*}}>, prepare = "shared__prepare0"
// CHECK-SAME:    name = "packed1", role = prepared, type = tensor<{{.*}}>, prepare = "shared__prepare1"
// CHECK-NOT:     prepare2
// CHECK:         moe.grouped_matmul %{{.*}} weights(%[[P:[a-z0-9]+]] :
// CHECK:         moe.grouped_matmul %{{.*}} weights(%[[P]] :
// CHECK:         moe.grouped_matmul
// CHECK:         return
func.func @shared(%x: tensor<?x4xf32>, %w: tensor<1x4x4xf32> {moe.role = "weight", moe.name = "packed0"}) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %a = moe.grouped_matmul %x weights(%w : tensor<1x4x4xf32>) outs(%e : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  %b = moe.grouped_matmul %a weights(%w : tensor<1x4x4xf32>) outs(%e : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  %c = moe.grouped_matmul %b weights(%w : tensor<1x4x4xf32>) transposed outs(%e : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  return %c : tensor<?x4xf32>
}

// Inputs are packed in every call.
// CHECK-LABEL: func.func @inputs(
// CHECK-NOT:     prepare
// CHECK:         %[[P:.*]] = moe.pack %{{.*}} panels(<matmuls = 1, columns = 16, depth = 1>) outs(%{{.*}} : tensor<1x1x4x16x1xf32>)
// CHECK:         moe.grouped_matmul %{{.*}} weights(%[[P]] : tensor<1x1x4x16x1xf32>) panels(<matmuls = 1, columns = 16, depth = 1>)
func.func @inputs(%x: tensor<?x4xf32>, %w: tensor<1x4x4xf32>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %a = moe.grouped_matmul %x weights(%w : tensor<1x4x4xf32>) outs(%e : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  return %a : tensor<?x4xf32>
}

// The runtime prepares all experts of a weight, or none.
// CHECK-LABEL: func.func @some_experts(
// CHECK-NOT:     prepare
// CHECK:         moe.pack
func.func @some_experts(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<6x4x4xf32> {moe.role = "weight", moe.name = "w"}) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %v = tensor.extract_slice %w[1, 0, 0] [2, 4, 4] [1, 1, 1] : tensor<6x4x4xf32> to tensor<2x4x4xf32>
  %a = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%v : tensor<2x4x4xf32>) outs(%e : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  return %a : tensor<?x4xf32>
}

// Packed weights are left alone.
// CHECK-LABEL: func.func @packed(
// CHECK-SAME:    %[[W:[a-z0-9]+]]: tensor<1x1x4x48x1xf32>
// CHECK:         moe.grouped_matmul %{{.*}} weights(%[[W]] : tensor<1x1x4x48x1xf32>) panels(<matmuls = 1, columns = 48, depth = 1>)
func.func @packed(%x: tensor<?x4xf32>, %w: tensor<1x1x4x48x1xf32>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %a = moe.grouped_matmul %x weights(%w : tensor<1x1x4x48x1xf32>) panels(<matmuls = 1, columns = 48, depth = 1>) outs(%e : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  return %a : tensor<?x4xf32>
}

// A name in use gets a suffix.
// CHECK-LABEL: func.func @taken(
// CHECK-NOT:     prepare = "taken__prepare0"
// CHECK:         prepare = "[[NAME:taken__prepare0[a-z0-9_]+]]"
// CHECK:       func.func @[[NAME]](
func.func @taken(%x: tensor<?x4xf32>, %w: tensor<1x4x4xf32> {moe.role = "weight", moe.name = "w"}) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %a = moe.grouped_matmul %x weights(%w : tensor<1x4x4xf32>) outs(%e : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  return %a : tensor<?x4xf32>
}
func.func private @taken__prepare0(%x: tensor<2xf32>) -> tensor<2xf32> {
  return %x : tensor<2xf32>
}

// Quantised weights are decoded where they are packed. Both GEMMs share the codes, which are
// decoded once.
// CHECK-LABEL: func.func @quantized(
// CHECK-SAME:    %[[PACKED:[a-z0-9]+]]: tensor<2x1x4x64x1xf32> {bufferization.writable = false})
// CHECK-SAME:    sources = ["w", "s"]>
// CHECK-NOT:     moe.dequantize
// CHECK:         moe.grouped_matmul %{{.*}} weights(%[[PACKED]] : tensor<2x1x4x64x1xf32>)
// CHECK:       func.func @quantized__prepare0(
// CHECK-SAME:    %[[W:.*]]: tensor<?x40x4xi8> {moe.name = "w"}, %[[S:.*]]: tensor<?x40x1xf32> {moe.name = "s"})
// CHECK:         %[[D:.*]] = moe.dequantize %[[W]], %[[S]] format({{.*}}) : tensor<?x40x4xi8>, tensor<?x40x1xf32> -> tensor<?x40x4xf32>
// CHECK-NOT:     moe.dequantize
// CHECK:         %[[G:.*]] = tensor.extract_slice %[[D]][0, 0, 0] [%{{.*}}, 20, 4] [1, 2, 1]
// CHECK:         %[[U:.*]] = tensor.extract_slice %[[D]][0, 1, 0] [%{{.*}}, 20, 4] [1, 2, 1]
// CHECK:         moe.pack %[[G]], %[[U]] transposed
func.func @quantized(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x40x4xi8> {moe.role = "weight", moe.name = "w"},
                     %s: tensor<2x40x1xf32> {moe.role = "weight", moe.name = "s"}) -> tensor<?x20xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x20xf32>
  %d = moe.dequantize %w, %s format(<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 4]>]>)
    : tensor<2x40x4xi8>, tensor<2x40x1xf32> -> tensor<2x40x4xf32>
  %g = tensor.extract_slice %d[0, 0, 0] [2, 20, 4] [1, 2, 1] : tensor<2x40x4xf32> to tensor<2x20x4xf32>
  %u = tensor.extract_slice %d[0, 1, 0] [2, 20, 4] [1, 2, 1] : tensor<2x40x4xf32> to tensor<2x20x4xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%g, %u : tensor<2x20x4xf32>, tensor<2x20x4xf32>) transposed outs(%e : tensor<?x20xf32>) {
  ^bb0(%a: f32, %b: f32):
    %m = arith.mulf %a, %b : f32
    moe.yield %m : f32
  } : tensor<?x4xf32> -> tensor<?x20xf32>
  return %y : tensor<?x20xf32>
}

// Decoded weights can be sliced in each dimension of a matrix.
// CHECK-LABEL: func.func @quantized_columns__prepare0(
// CHECK:         %[[D:.*]] = moe.dequantize
// CHECK:         tensor.extract_slice %[[D]][0, 0, 0] [%{{.*}}, 4, 20] [1, 1, 1]
// CHECK:         tensor.extract_slice %[[D]][0, 0, 20] [%{{.*}}, 4, 20] [1, 1, 1]
func.func @quantized_columns(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x40xi8> {moe.role = "weight", moe.name = "w"},
                             %s: tensor<2x4x1xf32> {moe.role = "weight", moe.name = "s"}) -> tensor<?x20xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x20xf32>
  %d = moe.dequantize %w, %s format(<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 40]>]>)
    : tensor<2x4x40xi8>, tensor<2x4x1xf32> -> tensor<2x4x40xf32>
  %g = tensor.extract_slice %d[0, 0, 0] [2, 4, 20] [1, 1, 1] : tensor<2x4x40xf32> to tensor<2x4x20xf32>
  %u = tensor.extract_slice %d[0, 0, 20] [2, 4, 20] [1, 1, 1] : tensor<2x4x40xf32> to tensor<2x4x20xf32>
  %y = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%g, %u : tensor<2x4x20xf32>, tensor<2x4x20xf32>) outs(%e : tensor<?x20xf32>) {
  ^bb0(%a: f32, %b: f32):
    %m = arith.mulf %a, %b : f32
    moe.yield %m : f32
  } : tensor<?x4xf32> -> tensor<?x20xf32>
  return %y : tensor<?x20xf32>
}

// Scales that the function computes are decoded in every call.
// CHECK-LABEL: func.func @computed_scales(
// CHECK:         moe.dequantize
// CHECK:         moe.pack
func.func @computed_scales(%x: tensor<?x4xf32>, %w: tensor<8x4xi8> {moe.role = "weight", moe.name = "w"},
                           %s: tensor<8x1xf32> {moe.role = "weight", moe.name = "s"}) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x8xf32>
  %t = arith.addf %s, %s : tensor<8x1xf32>
  %d = moe.dequantize %w, %t format(<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 4]>]>)
    : tensor<8x4xi8>, tensor<8x1xf32> -> tensor<8x4xf32>
  %m = tensor.expand_shape %d [[0, 1], [2]] output_shape [1, 8, 4] : tensor<8x4xf32> into tensor<1x8x4xf32>
  %y = moe.grouped_matmul %x weights(%m : tensor<1x8x4xf32>) transposed outs(%e : tensor<?x8xf32>) {
  ^bb0(%a: f32):
    moe.yield %a : f32
  } : tensor<?x4xf32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
