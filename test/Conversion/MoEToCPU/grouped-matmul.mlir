// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=256" | FileCheck %s
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=256" | FileCheck %s --check-prefix=KERNEL
// All operations are lowered, and the rest of the pipeline accepts the result.
// RUN: moe-opt %s -convert-moe-to-cpu="vector-bits=256" -moe-forall-to-parallel -moe-lower-to-llvm | FileCheck %s --check-prefix=LLVM
// LLVM-NOT: moe.grouped_matmul

// One vector of eight accumulators for each of up to eight rows; one kernel for each
// height, shared by all matmuls.
// KERNEL-COUNT-8: func.func private @moe_kernel_f32_{{[1-8]}}x1x8({{.*}}) attributes {moe.kernel, passthrough = ["noinline"]}
// KERNEL-NOT:     func.func private @moe_kernel
// KERNEL-LABEL:   func.func @dense

// CHECK-LABEL: func.func private @moe_kernel_f32_2x1x8(
// CHECK-SAME:    %[[LHS:[a-z0-9]+]]: memref<?xf32>, %[[FIRSTS:[a-z0-9]+]]: memref<?xindex>, %[[W:[a-z0-9]+]]: memref<?xf32>, %{{[a-z0-9]+}}: index,
// CHECK-SAME:    %[[SUMS:[a-z0-9]+]]: memref<?xf32>, %{{[a-z0-9]+}}: index, %[[STEPS:[a-z0-9]+]]: index, %{{[a-z0-9]+}}: index, %[[AHEAD:[a-z0-9]+]]: index, %[[AHEADSTEP:[a-z0-9]+]]: index, %[[RESUME:[a-z0-9]+]]: i1)
// CHECK-COUNT-2: memref.load %[[FIRSTS]]
// Accumulators resume from the previous block of k, or start at zero.
// CHECK:         scf.if %[[RESUME]]
// CHECK-COUNT-2:   vector.load %[[SUMS]]
// CHECK:         } else {
// Unrolled by four steps in ascending order, then the rest. The kernel prefetches the
// next part, or nothing.
// CHECK:         scf.index_switch %[[AHEADSTEP]]
// CHECK-NEXT:    case 0 {
// CHECK:           scf.for {{.*}} step %c4
// CHECK-NOT:         memref.prefetch
// CHECK:         default {
// CHECK:           scf.for {{.*}} step %c4{{.*}} iter_args(%{{.*}}, %[[NEXT:[a-z0-9]+]] = %[[AHEAD]])
// CHECK-NEXT:        memref.prefetch %[[W]][%[[NEXT]]], read, locality<2>, data
// CHECK-COUNT-8:     vector.fma
// CHECK:             arith.addi %[[NEXT]], %[[AHEADSTEP]]
// CHECK:         }
// CHECK:         scf.for {{.*}} step %c1
// CHECK:           %[[VECTOR:.*]] = vector.load %[[W]]
// CHECK:           %[[X:.*]] = memref.load %[[LHS]]
// CHECK:           %[[SPREAD:.*]] = vector.broadcast %[[X]] : f32 to vector<8xf32>
// CHECK:           vector.fma %[[SPREAD]], %[[VECTOR]], %{{.*}} : vector<8xf32>
// CHECK:           vector.fma
// CHECK-NOT:       vector.fma
// CHECK-COUNT-2: vector.store %{{.*}}, %[[SUMS]]
// CHECK:         return

// Tasks of 192 rows and up to eight panels, fewer if there are less than 256 such
// tasks; tiles are of equal height.
// CHECK-LABEL: func.func @dense(
// CHECK-SAME:    %[[X:.*]]: memref<?x5xf32>, %[[W:.*]]: memref<1x1x5x8x1xf32>, %[[Y:.*]]: memref<?x8xf32>)
// CHECK:         %[[ROWS:.*]] = memref.dim %[[Y]], %c0
// CHECK:         %[[BLOCKS:.*]] = arith.divui %{{.*}}, %c192
// CHECK:         arith.divui %{{.*}}, %c256
// CHECK:         %[[PANELS:.*]] = arith.minsi
// CHECK:         %[[GROUPS:.*]] = arith.ceildivui %{{.*}}, %[[PANELS]]
// CHECK:         arith.muli %[[BLOCKS]], %[[GROUPS]]
// CHECK:         scf.forall (%{{.*}}) in (%{{.*}}) {
// CHECK:           memref.alloca({{.*}}) {alignment = 64 : i64} : memref<?xf32>
// CHECK:           scf.index_switch
// CHECK:           case 8 {
// CHECK:             func.call @moe_kernel_f32_8x1x8
// CHECK:           %[[SUM:.*]] = vector.load
// CHECK-NEXT:      vector.store %[[SUM]], %[[Y]]
// CHECK-NOT:     vector.maskedstore
func.func @dense(%x: memref<?x5xf32>, %w: memref<1x1x5x8x1xf32>, %y: memref<?x8xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x5x8x1xf32>) panels(<matmuls = 1, columns = 8, depth = 1>) outs(%y : memref<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x5xf32>
  return
}

// Offsets are clamped to the rows of the result, gathered indices to those of the left
// operand. The last panel has only three columns.
// CHECK-LABEL: func.func @routed(
// CHECK-SAME:    %[[X:[a-z0-9]+]]: memref<?x5xf32>, %[[N:[a-z0-9]+]]: memref<?xi32>, %[[O:[a-z0-9]+]]: memref<9xi32>, %{{[a-z0-9]+}}: memref<2x2x5x8x1xf32>, %[[B:[a-z0-9]+]]: memref<2x11xf32>, %[[Y:[a-z0-9]+]]: memref<?x11xf32>)
// CHECK-DAG:     %[[ROWS:.*]] = memref.dim %[[Y]], %c0
// CHECK-DAG:     %[[SOURCES:.*]] = memref.dim %[[X]], %c0
// CHECK:         %[[LAST:.*]] = arith.subi %[[SOURCES]], %c1
// CHECK:         %[[STARTS:.*]] = memref.alloc() : memref<3xindex>
// CHECK:         %[[OFFSET:.*]] = memref.load %[[O]]
// CHECK:         %[[CAST:.*]] = arith.index_cast %[[OFFSET]] : i32 to index
// CHECK:         %[[LOW:.*]] = arith.maxsi %[[CAST]], %c0
// CHECK:         arith.minsi %[[LOW]], %{{.*}}
// CHECK:         scf.forall
// CHECK:           %[[NUMBER:.*]] = memref.load %[[N]]
// CHECK:           %[[I:.*]] = arith.index_cast %[[NUMBER]] : i32 to index
// CHECK:           %[[J:.*]] = arith.maxsi %[[I]], %c0
// CHECK:           arith.minsi %[[J]], %[[LAST]]
// CHECK:           %[[MASK:.*]] = vector.create_mask %{{.*}} : vector<8xi1>
// CHECK:           vector.maskedload %[[B]]
// CHECK:           vector.maskedstore %[[Y]]{{.*}}, %[[MASK]]
// CHECK:           vector.load %[[B]]
// CHECK:           vector.store %{{.*}}, %[[Y]]
func.func @routed(%x: memref<?x5xf32>, %n: memref<?xi32>, %o: memref<9xi32>, %w: memref<2x2x5x8x1xf32>, %b: memref<2x11xf32>, %y: memref<?x11xf32>) {
  moe.grouped_matmul %x gather(%n : memref<?xi32>) offsets(%o : memref<9xi32>) weights(%w : memref<2x2x5x8x1xf32>)
      panels(<matmuls = 1, columns = 8, depth = 1>) first(6)
      operands(%b : memref<2x11xf32>) maps([affine_map<(e, r, n) -> (e, n)>]) outs(%y : memref<?x11xf32>) {
  ^bb0(%s: f32, %c: f32):
    %t = arith.addf %s, %c : f32
    moe.yield %t : f32
  } : memref<?x5xf32>
  return
}

// The epilogue on vectors: math functions become polynomials, constants and scalars are
// broadcast.
// CHECK-LABEL: func.func @epilogue(
// CHECK-NOT:     math.exp
// CHECK-NOT:     math.tanh
// CHECK:         %[[FACTOR:.*]] = memref.load %arg2
// CHECK:         vector.broadcast %[[FACTOR]] : f32 to vector<8xf32>
// CHECK-NOT:     math.exp
// CHECK-NOT:     math.tanh
// CHECK:         arith.truncf %{{.*}} : vector<8xf32> to vector<8xbf16>
// CHECK:         vector.store %{{.*}} : memref<?x8xbf16>, vector<8xbf16>
// CHECK:         return
func.func @epilogue(%x: memref<?x5xf32>, %w: memref<1x1x5x8x1xf32>, %f: memref<?xf32>, %y: memref<?x8xbf16>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x5x8x1xf32>) panels(<matmuls = 1, columns = 8, depth = 1>)
      operands(%f : memref<?xf32>) maps([affine_map<(e, r, n) -> (r)>]) outs(%y : memref<?x8xbf16>) {
  ^bb0(%s: f32, %c: f32):
    %two = arith.constant 2.0 : f32
    %e = math.exp %s : f32
    %h = math.tanh %e : f32
    %t = arith.mulf %h, %c : f32
    %u = arith.mulf %t, %two : f32
    %v = arith.truncf %u : f32 to bf16
    moe.yield %v : bf16
  } : memref<?x5xf32>
  return
}

// If k has several blocks, the accumulators of a task's rows are in memory between
// blocks.
// CHECK-LABEL: func.func @blocks(
// CHECK:         scf.forall
// CHECK:           memref.alloca(%c1536
// CHECK:           scf.for %{{.*}} = %c0{{.*}} to %c3{{.*}} step %c1
func.func @blocks(%x: memref<?x20000xf32>, %w: memref<1x1x20000x8x1xf32>, %y: memref<?x8xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x20000x8x1xf32>) panels(<matmuls = 1, columns = 8, depth = 1>) outs(%y : memref<?x8xf32>) {
  ^bb0(%s: f32):
    moe.yield %s : f32
  } : memref<?x20000xf32>
  return
}

// A scalar operand is broadcast to all lanes.
// CHECK-LABEL: func.func @poison(
// CHECK:         ub.poison : vector<8xf32>
// CHECK:         return
func.func @poison(%x: memref<?x5xf32>, %w: memref<1x1x5x8x1xf32>, %y: memref<?x8xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x5x8x1xf32>) panels(<matmuls = 1, columns = 8, depth = 1>) outs(%y : memref<?x8xf32>) {
  ^bb0(%s: f32):
    %p = ub.poison : f32
    %t = arith.addf %s, %p : f32
    moe.yield %t : f32
  } : memref<?x5xf32>
  return
}

// i1 elements are bytes in memory and are loaded one by one.
// CHECK-LABEL: func.func @bits(
// CHECK-SAME:    %[[M:[a-z0-9]+]]: memref<?x8xi1>, %{{[a-z0-9]+}}: memref<?x8xf32>)
// CHECK-NOT:     vector.load %[[M]]
// CHECK-COUNT-8: memref.load %[[M]]
// CHECK:         vector.from_elements %{{.*}} : vector<8xi1>
// CHECK:         return
func.func @bits(%x: memref<?x5xf32>, %w: memref<1x1x5x8x1xf32>, %m: memref<?x8xi1>, %y: memref<?x8xf32>) {
  moe.grouped_matmul %x weights(%w : memref<1x1x5x8x1xf32>) panels(<matmuls = 1, columns = 8, depth = 1>)
      operands(%m : memref<?x8xi1>) maps([affine_map<(e, r, n) -> (r, n)>]) outs(%y : memref<?x8xf32>) {
  ^bb0(%s: f32, %c: i1):
    %n = arith.negf %s : f32
    %t = arith.select %c, %s, %n : f32
    moe.yield %t : f32
  } : memref<?x5xf32>
  return
}

// Partial vectors of 16-bit elements use no masked access, which not every CPU has.
// CHECK-LABEL: func.func @half_columns(
// CHECK-NOT:     vector.masked{{.*}}bf16
// CHECK:         return
func.func @half_columns(%x: memref<?x5xbf16>, %w: memref<1x2x5x8x1xbf16>, %b: memref<11xbf16>, %y: memref<?x11xbf16>) {
  moe.grouped_matmul %x weights(%w : memref<1x2x5x8x1xbf16>) panels(<matmuls = 1, columns = 8, depth = 1>)
      operands(%b : memref<11xbf16>) maps([affine_map<(e, r, n) -> (n)>]) outs(%y : memref<?x11xbf16>) {
  ^bb0(%s: f32, %c: bf16):
    %d = arith.extf %c : bf16 to f32
    %t = arith.addf %s, %d : f32
    %u = arith.truncf %t : f32 to bf16
    moe.yield %u : bf16
  } : memref<?x5xbf16>
  return
}
