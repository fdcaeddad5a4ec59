// RUN: moe-opt %s -moe-expert-to-grouped | FileCheck %s
// RUN: moe-opt %s -moe-expert-to-grouped --remarks-filter-missed=moe-fuse -o /dev/null 2>&1 | FileCheck %s --check-prefix=MISSED

// What is not made of products of rows with parameters, elementwise operations and
// slices of columns stays an expert, and a remark says why.

// CHECK-LABEL: func.func @sums_into_something(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=sums_into_something | Remark="not fused: a matmul does not accumulate into zeros of f32"
func.func @sums_into_something(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x8xf32>) -> tensor<?x8xf32> {
  %y = moe.expert %x, %o params(%w : tensor<2x4x8xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x8xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %one = arith.constant 1.0 : f32
    %g = linalg.fill ins(%one : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %s = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x8xf32>) outs(%g : tensor<?x8xf32>) -> tensor<?x8xf32>
    moe.yield %s : tensor<?x8xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @sums_in_half(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=sums_in_half | Remark="not fused: a matmul does not accumulate into zeros of f32"
func.func @sums_in_half(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x8xf32>) -> tensor<?x8xf16> {
  %y = moe.expert %x, %o params(%w : tensor<2x4x8xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x8xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f16
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf16>
    %f = linalg.fill ins(%z : f16) outs(%e : tensor<?x8xf16>) -> tensor<?x8xf16>
    %s = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf16>) -> tensor<?x8xf16>
    moe.yield %s : tensor<?x8xf16>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x8xf16>
  return %y : tensor<?x8xf16>
}

// A weight that all experts share is no parameter.
// CHECK-LABEL: func.func @weights_from_outside(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=weights_from_outside | Remark="not fused: a matmul does not multiply rows by a parameter"
func.func @weights_from_outside(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<4x8xf32>) -> tensor<?x8xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %s = linalg.matmul ins(%r, %w : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    moe.yield %s : tensor<?x8xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @branch(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=branch | Remark="not fused: the region does more than matmuls and elementwise operations"
func.func @branch(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %c0 = arith.constant 0 : index
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %c = arith.cmpi eq, %n, %c0 : index
    %s = scf.if %c -> tensor<?x4xf32> {
      scf.yield %r : tensor<?x4xf32>
    } else {
      %q = linalg.exp ins(%r : tensor<?x4xf32>) outs(%r : tensor<?x4xf32>) -> tensor<?x4xf32>
      scf.yield %q : tensor<?x4xf32>
    }
    moe.yield %s : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// CHECK-LABEL: func.func @reduction(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=reduction | Remark="not fused: the region does more than matmuls and elementwise operations"
func.func @reduction(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x1xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x1xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x1xf32>) -> tensor<?x1xf32>
    %s = linalg.generic {indexing_maps = [affine_map<(i, j, k) -> (i, k)>, affine_map<(i, j, k) -> (i, j)>], iterator_types = ["parallel", "parallel", "reduction"]}
      ins(%r : tensor<?x4xf32>) outs(%f : tensor<?x1xf32>) {
    ^bb0(%a: f32, %b: f32):
      %t = arith.maximumf %a, %b : f32
      linalg.yield %t : f32
    } -> tensor<?x1xf32>
    moe.yield %s : tensor<?x1xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x1xf32>
  return %y : tensor<?x1xf32>
}

// CHECK-LABEL: func.func @softmax(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=softmax | Remark="not fused: the region does more than matmuls and elementwise operations"
func.func @softmax(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %s = linalg.softmax dimension(1) ins(%r : tensor<?x4xf32>) outs(%r : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %s : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// The number of a row is another one among all rows.
// CHECK-LABEL: func.func @index(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=index | Remark="not fused: the region does more than matmuls and elementwise operations"
func.func @index(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x8xf32>) -> tensor<?x8xf32> {
  %y = moe.expert %x, %o params(%w : tensor<2x4x8xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x8xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    %s = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%p : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
    ^bb0(%a0: f32, %u: f32):
      %i = linalg.index 0 : index
      %k = arith.index_cast %i : index to i32
      %l = arith.sitofp %k : i32 to f32
      %t = arith.addf %a0, %l : f32
      linalg.yield %t : f32
    } -> tensor<?x8xf32>
    moe.yield %s : tensor<?x8xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @vector(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=vector | Remark="not fused: a tensor of the region is not a matrix"
func.func @vector(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %v = tensor.empty() : tensor<4xf32>
    %q = linalg.fill ins(%z : f32) outs(%v : tensor<4xf32>) -> tensor<4xf32>
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// CHECK-LABEL: func.func @column(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=column | Remark="not fused: a slice does not take columns of a matrix"
func.func @column(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x8xf32>) -> tensor<?x8xf32> {
  %y = moe.expert %x, %o params(%w : tensor<2x4x8xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x8xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    %k = tensor.extract_slice %p[0, 0] [%n, 1] [1, 1] : tensor<?x8xf32> to tensor<?xf32>
    %s = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%p, %k : tensor<?x8xf32>, tensor<?xf32>) outs(%e : tensor<?x8xf32>) {
    ^bb0(%a0: f32, %a1: f32, %u: f32):
      %t = arith.addf %a0, %a1 : f32
      linalg.yield %t : f32
    } -> tensor<?x8xf32>
    moe.yield %s : tensor<?x8xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// Four rows and their transpose.
// CHECK-LABEL: func.func @broadcasts(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=broadcasts | Remark="not fused: an elementwise operation broadcasts a value computed in the region"
func.func @broadcasts(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %s = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (j, i)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%r, %r : tensor<?x4xf32>, tensor<?x4xf32>) outs(%r : tensor<?x4xf32>) {
    ^bb0(%a: f32, %b: f32, %u: f32):
      %t = arith.addf %a, %b : f32
      linalg.yield %t : f32
    } -> tensor<?x4xf32>
    moe.yield %s : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// CHECK-LABEL: func.func @matrix_from_outside(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=matrix_from_outside | Remark="not fused: an elementwise operation reads a value that is not a matrix of rows"
func.func @matrix_from_outside(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x8xf32>, %q: tensor<?x8xf32>) -> tensor<?x8xf32> {
  %y = moe.expert %x, %o params(%w : tensor<2x4x8xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x8xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    %s = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%p, %q : tensor<?x8xf32>, tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) {
    ^bb0(%a0: f32, %a1: f32, %u: f32):
      %t = arith.addf %a0, %a1 : f32
      linalg.yield %t : f32
    } -> tensor<?x8xf32>
    moe.yield %s : tensor<?x8xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// Every expert has three rows.
// CHECK-LABEL: func.func @parameter_of_rows(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=parameter_of_rows | Remark="not fused: a parameter has one element for each row"
func.func @parameter_of_rows(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x8xf32>, %b: tensor<2x3xf32>) -> tensor<?x8xf32> {
  %y = moe.expert %x, %o params(%w, %b : tensor<2x4x8xf32>, tensor<2x3xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x8xf32>, %q: tensor<3xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %f = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    %p = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x8xf32>) outs(%f : tensor<?x8xf32>) -> tensor<?x8xf32>
    %s = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (i)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%p, %q : tensor<?x8xf32>, tensor<3xf32>) outs(%e : tensor<?x8xf32>) {
    ^bb0(%a0: f32, %a1: f32, %u: f32):
      %t = arith.addf %a0, %a1 : f32
      linalg.yield %t : f32
    } -> tensor<?x8xf32>
    moe.yield %s : tensor<?x8xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @dynamic_columns(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=dynamic_columns | Remark="not fused: a matrix has a dynamic number of columns"
func.func @dynamic_columns(%x: tensor<?x?xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x?xf32>):
    %s = linalg.exp ins(%r : tensor<?x?xf32>) outs(%r : tensor<?x?xf32>) -> tensor<?x?xf32>
    %t = tensor.cast %s : tensor<?x?xf32> to tensor<?x4xf32>
    moe.yield %t : tensor<?x4xf32>
  } : tensor<?x?xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// CHECK-LABEL: func.func @parameter_before_a_product(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=parameter_before_a_product | Remark="not fused: parameters are used elementwise, but not after a matmul"
func.func @parameter_before_a_product(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %b: tensor<2x4xf32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o params(%b : tensor<2x4xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %q: tensor<4xf32>):
    %s = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%r, %q : tensor<?x4xf32>, tensor<4xf32>) outs(%r : tensor<?x4xf32>) {
    ^bb0(%a: f32, %d: f32, %u: f32):
      %t = arith.mulf %a, %d : f32
      linalg.yield %t : f32
    } -> tensor<?x4xf32>
    moe.yield %s : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// CHECK-LABEL: func.func @some_rows(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=some_rows | Remark="not fused: a slice takes only some of the rows"
func.func @some_rows(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %c0 = arith.constant 0 : index
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %s = tensor.extract_slice %r[1, 0] [%n, 4] [1, 1] : tensor<?x4xf32> to tensor<?x4xf32>
    moe.yield %s : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// CHECK-LABEL: func.func @zeros_outside(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=zeros_outside | Remark="not fused: the region yields no result of a matmul, and only a matmul keeps the rows outside of the experts"
func.func @zeros_outside(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// CHECK-LABEL: func.func @rows_outside(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=rows_outside | Remark="not fused: the region yields no result of a matmul, and only a matmul keeps the rows outside of the experts"
func.func @rows_outside(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o init(%x : tensor<?x4xf32>) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// A product that makes the rows is not one of this expert.
// CHECK-LABEL: func.func @rows_of_a_product(
// CHECK:         moe.grouped_matmul {{.*}} outs(%[[INIT:.*]] : tensor<?x4xf32>)
// CHECK:         moe.expert {{.*}} init(
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=rows_of_a_product | Remark="not fused: the region yields no result of a matmul
func.func @rows_of_a_product(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x4x4xf32>, %i: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %p = moe.grouped_matmul %x offsets(%o : tensor<3xi32>) weights(%w : tensor<2x4x4xf32>) outs(%x : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  %y = moe.expert %p, %o init(%i : tensor<?x4xf32>) first(0) count(1) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// Nor does a product of other experts know which parameter is whose.
// CHECK-LABEL: func.func @parameters_after_others(
// CHECK:         moe.grouped_matmul
// CHECK:         moe.expert
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=parameters_after_others | Remark="not fused: parameters are used elementwise, but not after a matmul"
func.func @parameters_after_others(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %q: tensor<3xi32>, %w: tensor<2x4x4xf32>, %v: tensor<2x4xf32>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %p = moe.grouped_matmul %x offsets(%q : tensor<3xi32>) weights(%w : tensor<2x4x4xf32>) outs(%e : tensor<?x4xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : tensor<?x4xf32> -> tensor<?x4xf32>
  %y = moe.expert %p, %o params(%v : tensor<2x4xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %b: tensor<4xf32>):
    %s = linalg.generic {indexing_maps = [affine_map<(i, j) -> (i, j)>, affine_map<(i, j) -> (j)>, affine_map<(i, j) -> (i, j)>], iterator_types = ["parallel", "parallel"]}
      ins(%r, %b : tensor<?x4xf32>, tensor<4xf32>) outs(%r : tensor<?x4xf32>) {
    ^bb0(%a: f32, %d: f32, %u: f32):
      %t = arith.mulf %a, %d : f32
      linalg.yield %t : f32
    } -> tensor<?x4xf32>
    moe.yield %s : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// What is elementwise, but after no product, would be computed for all rows.
// CHECK-LABEL: func.func @elementwise_alone(
// CHECK:         moe.expert
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=elementwise_alone | Remark="not fused: the region yields no result of a matmul
func.func @elementwise_alone(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o first(0) count(1) uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>):
    %e = linalg.exp ins(%r : tensor<?x4xf32>) outs(%r : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %e : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// CHECK-LABEL: func.func @yields_zeros(
// CHECK:         moe.expert
// CHECK-NOT:     moe.grouped_matmul
// MISSED:        ExpertNotGrouped | Category:moe-fuse | Function=yields_zeros | Remark="not fused: the region yields a value that is not a matrix of rows"
func.func @yields_zeros(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x8xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %c0 = arith.constant 0 : index
    %z = arith.constant 0.0 : f32
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %s = linalg.fill ins(%z : f32) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    moe.yield %s : tensor<?x8xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}
