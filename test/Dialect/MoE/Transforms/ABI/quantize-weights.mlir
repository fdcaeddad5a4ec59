// RUN: moe-opt %s -moe-quantize-weights | FileCheck %s
// RUN: moe-opt %s -moe-quantize-weights --remarks-filter-missed=moe-quantize-weights -o /dev/null 2>&1 | FileCheck %s --check-prefix=MISSED

#int4 = #moe.format<codes = <element = ui4, bits = [#moe.bits<width = 4>]>, offset = 8, scales = [#moe.field<element = f16, operand = 1, block = [1, 32]>]>
#rows = #moe.format<codes = <element = si8>, scales = [#moe.field<element = f32, operand = 1, block = [1, 100000]>]>

#m = affine_map<(m, n, k) -> (m, k)>
#t = affine_map<(m, n, k) -> (n, k)>
#u = affine_map<(m, n, k) -> (k, n)>
#o = affine_map<(m, n, k) -> (m, n)>
#id = affine_map<(i, j) -> (i, j)>

// The weights of experts, transposed or not, and those of a dense matmul; the router and a gate of one column stay.
// MISSED-DAG: WeightNotQuantized | Category:moe-quantize-weights | Function=layer | Remark="weight 'router' is not quantised: it is the weight of a router"
// MISSED-DAG: WeightNotQuantized | Category:moe-quantize-weights | Function=layer | Remark="weight 'column' is not quantised: it has one row"
// CHECK-DAG:   #[[T:.*]] = affine_map<(d0, d1, d2) -> (d1, d2)>
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[UP:[^ :]*]]: tensor<4x48x64xbf16> {moe.name = "up", moe.role = "weight"}
// CHECK-SAME:    %[[DOWN:[^ :]*]]: tensor<4x24x64xbf16> {moe.name = "down", moe.role = "weight"}
// CHECK-NOT:     moe.weight_format
// CHECK-DAG:     %[[Q:[^ ,]*]], %[[S:[^ ]*]] = moe.quantize %[[UP]] format(<{{.*}}block = [1, 32]>]>) : tensor<4x48x64xbf16> -> tensor<4x48x32xi8>, tensor<4x48x2xf16>
// CHECK-DAG:     %[[UPD:[^ ]*]] = moe.dequantize %[[Q]], %[[S]] format({{.*}}) : tensor<4x48x32xi8>, tensor<4x48x2xf16> -> tensor<4x48x64xbf16>
// The blocks are cut to 24 columns.
// CHECK-DAG:     %[[R:[^ ,]*]], %[[V:[^ ]*]] = moe.quantize %[[DOWN]] transposed format(<{{.*}}block = [1, 24]{{.*}}>) : tensor<4x24x64xbf16> -> tensor<4x64x12xi8>, tensor<4x64x1xf16>
// CHECK-DAG:     %[[DOWND:[^ ]*]] = moe.dequantize %[[R]], %[[V]] format({{.*}} -> tensor<4x64x24xbf16>
// CHECK:         moe.gate
// CHECK:         moe.expert %{{.*}}, %{{.*}} params(%[[UPD]], %[[DOWND]] : tensor<4x48x64xbf16>, tensor<4x64x24xbf16>)
// CHECK:         ^bb0(%{{.*}}: tensor<?x64xbf16>, %[[UPE:.*]]: tensor<48x64xbf16>, %[[DOWNE:.*]]: tensor<64x24xbf16>):
// CHECK:           linalg.matmul indexing_maps = [#{{.*}}, #[[T]], #{{.*}}] ins(%{{.*}}, %[[UPE]] :
// CHECK:           tensor.extract_slice %[[DOWNE]][0, 0] [64, 24] [1, 1]
// CHECK:           linalg.matmul indexing_maps = [#{{.*}}, #[[T]], #{{.*}}]
func.func @layer(%x: tensor<?x64xbf16>, %router: tensor<4x64xbf16> {moe.name = "router", moe.role = "weight"},
                 %column: tensor<1x64xbf16> {moe.name = "column", moe.role = "weight"},
                 %up: tensor<4x48x64xbf16> {moe.name = "up", moe.role = "weight"},
                 %down: tensor<4x24x64xbf16> {moe.name = "down", moe.role = "weight"},
                 %logits: tensor<?x4xf32>, %scores: tensor<?x1xf32>, %wide: tensor<?x48xf32>, %narrow: tensor<?x64xf32>)
    -> (tensor<?x64xf32>, tensor<?x1xf32>) attributes {moe.weight_format = #int4} {
  %routed = linalg.matmul indexing_maps = [#m, #t, #o] ins(%x, %router : tensor<?x64xbf16>, tensor<4x64xbf16>) outs(%logits : tensor<?x4xf32>) -> tensor<?x4xf32>
  %scaled = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]} ins(%routed : tensor<?x4xf32>) outs(%logits : tensor<?x4xf32>) {
  ^bb0(%a: f32, %b: f32):
    %c = arith.addf %a, %a : f32
    linalg.yield %c : f32
  } -> tensor<?x4xf32>
  %weights, %ids = moe.gate %scaled top_k(2) : tensor<?x4xf32>
  %shared = linalg.matmul indexing_maps = [#m, #t, #o] ins(%x, %column : tensor<?x64xbf16>, tensor<1x64xbf16>) outs(%scores : tensor<?x1xf32>) -> tensor<?x1xf32>
  %grouped, %offsets, %positions = moe.dispatch %x, %ids experts(4) : tensor<?x64xbf16>, tensor<?x2xi32>
  %rows = moe.expert %grouped, %offsets params(%up, %down : tensor<4x48x64xbf16>, tensor<4x24x64xbf16>) {
  ^bb0(%r: tensor<?x64xbf16>, %u: tensor<48x64xbf16>, %d: tensor<24x64xbf16>):
    %h = linalg.matmul indexing_maps = [#m, #t, #o] ins(%r, %u : tensor<?x64xbf16>, tensor<48x64xbf16>) outs(%wide : tensor<?x48xf32>) -> tensor<?x48xf32>
    %c0 = arith.constant 0 : index
    %n = tensor.dim %r, %c0 : tensor<?x64xbf16>
    %half = tensor.extract_slice %h[0, 0] [%n, 24] [1, 1] : tensor<?x48xf32> to tensor<?x24xf32>
    %e = tensor.empty(%n) : tensor<?x24xbf16>
    %v = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]} ins(%half : tensor<?x24xf32>) outs(%e : tensor<?x24xbf16>) {
    ^bb0(%a: f32, %b: bf16):
      %c = arith.truncf %a : f32 to bf16
      linalg.yield %c : bf16
    } -> tensor<?x24xbf16>
    %slice = tensor.extract_slice %d[0, 0] [24, 64] [1, 1] : tensor<24x64xbf16> to tensor<24x64xbf16>
    %y = linalg.matmul ins(%v, %slice : tensor<?x24xbf16>, tensor<24x64xbf16>) outs(%narrow : tensor<?x64xf32>) -> tensor<?x64xf32>
    moe.yield %y : tensor<?x64xf32>
  } : tensor<?x64xbf16>, tensor<5xi32> -> tensor<?x64xf32>
  return %rows, %shared : tensor<?x64xf32>, tensor<?x1xf32>
}

// Grouped matmuls, too.
// CHECK-LABEL: func.func @grouped(
// CHECK:         %[[D:.*]] = moe.dequantize {{.*}} -> tensor<4x48x64xf32>
// CHECK:         moe.grouped_matmul %{{.*}} offsets(%{{.*}}) weights(%[[D]] : tensor<4x48x64xf32>) transposed
func.func @grouped(%x: tensor<?x64xf32>, %offsets: tensor<5xi32>, %w: tensor<4x64x48xf32> {moe.name = "w", moe.role = "weight"},
                   %init: tensor<?x48xf32>) -> tensor<?x48xf32> attributes {moe.weight_format = #rows} {
  %y = moe.grouped_matmul %x offsets(%offsets : tensor<5xi32>) weights(%w : tensor<4x64x48xf32>) outs(%init : tensor<?x48xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x64xf32> -> tensor<?x48xf32>
  return %y : tensor<?x48xf32>
}

// Not what is read otherwise, or along both dimensions; not without the attribute, and not inputs.
// MISSED-DAG: Function=others | Remark="weight 'w' is not quantised: 'tensor.extract' reads it"
// MISSED-DAG: Function=others | Remark="weight 'v' is not quantised: matmuls sum along different dimensions of it"
// CHECK-LABEL: func.func @others(
// CHECK-NOT:     moe.quantize
func.func @others(%x: tensor<?x64xf32>, %w: tensor<64x64xf32> {moe.name = "w", moe.role = "weight"},
                  %v: tensor<64x64xf32> {moe.name = "v", moe.role = "weight"}, %i: tensor<64x64xf32>,
                  %bias: tensor<64x64xf32> {moe.name = "unused", moe.role = "weight"},
                  %init: tensor<?x64xf32>) -> (tensor<?x64xf32>, f32) attributes {moe.weight_format = #int4} {
  %c0 = arith.constant 0 : index
  %f = tensor.extract %w[%c0, %c0] : tensor<64x64xf32>
  %a = linalg.matmul ins(%x, %w : tensor<?x64xf32>, tensor<64x64xf32>) outs(%init : tensor<?x64xf32>) -> tensor<?x64xf32>
  %b = linalg.matmul ins(%a, %v : tensor<?x64xf32>, tensor<64x64xf32>) outs(%init : tensor<?x64xf32>) -> tensor<?x64xf32>
  %c = linalg.matmul indexing_maps = [#m, #t, #o] ins(%b, %v : tensor<?x64xf32>, tensor<64x64xf32>) outs(%init : tensor<?x64xf32>) -> tensor<?x64xf32>
  %d = linalg.matmul ins(%c, %i : tensor<?x64xf32>, tensor<64x64xf32>) outs(%init : tensor<?x64xf32>) -> tensor<?x64xf32>
  return %d, %f : tensor<?x64xf32>, f32
}

// Several weights have one layout, which exchanges all of them or none. Extents are those of the weight as it is.
// MISSED-DAG: Function=several | Remark="weight 'w' is not quantised: a matmul of several weights that are not transposed reads it"
// CHECK-LABEL: func.func @several(
// CHECK-NOT:     moe.quantize
func.func @several(%x: tensor<?x64xf32>, %w: tensor<1x64x64xf32> {moe.name = "w", moe.role = "weight"}, %v: tensor<1x64x64xf32>, %init: tensor<?x64xf32>) -> tensor<?x64xf32>
    attributes {moe.weight_format = #int4} {
  %y = moe.grouped_matmul %x weights(%w, %v : tensor<1x64x64xf32>, tensor<1x64x64xf32>) outs(%init : tensor<?x64xf32>) {
  ^bb0(%s: f32, %t: f32):
    %u = arith.addf %s, %t : f32
    moe.yield %u : f32
  } : tensor<?x64xf32> -> tensor<?x64xf32>
  return %y : tensor<?x64xf32>
}

// CHECK-LABEL: func.func @extent(
// CHECK:         moe.quantize {{.*}} transposed
// CHECK-NOT:     tensor.dim
// CHECK:         %[[EXTENT:.*]] = arith.constant 48 : index
// CHECK:         return %{{.*}}, %[[EXTENT]]
func.func @extent(%x: tensor<?x64xf32>, %w: tensor<64x48xf32> {moe.name = "w", moe.role = "weight"}, %init: tensor<?x48xf32>) -> (tensor<?x48xf32>, index)
    attributes {moe.weight_format = #int4} {
  %c1 = arith.constant 1 : index
  %y = linalg.matmul ins(%x, %w : tensor<?x64xf32>, tensor<64x48xf32>) outs(%init : tensor<?x48xf32>) -> tensor<?x48xf32>
  %d = tensor.dim %w, %c1 : tensor<64x48xf32>
  return %y, %d : tensor<?x48xf32>, index
}

// CHECK-LABEL: func.func @without(
// CHECK-NOT:     moe.quantize
func.func @without(%x: tensor<?x64xf32>, %w: tensor<64x64xf32> {moe.name = "w", moe.role = "weight"}, %init: tensor<?x64xf32>) -> tensor<?x64xf32> {
  %a = linalg.matmul ins(%x, %w : tensor<?x64xf32>, tensor<64x64xf32>) outs(%init : tensor<?x64xf32>) -> tensor<?x64xf32>
  return %a : tensor<?x64xf32>
}
