// RUN: moe-opt %s -convert-moe-to-gpu -canonicalize -cse -split-input-file \
// RUN:   | FileCheck %s --implicit-check-not=moe.gather_sum

// A block computes a token, a thread 16 bytes of its row. Rows are loaded before any is
// added; a choice without a row loads nothing.
// CHECK:       llvm.func @gather_sum(%[[X:[a-z0-9]+]]: !llvm.ptr<1>, %[[P:[a-z0-9]+]]: !llvm.ptr<1>, %[[W:[a-z0-9]+]]: !llvm.ptr<1>, %[[Y:[a-z0-9]+]]: !llvm.ptr<1>, %[[ROWS:[a-z0-9]+]]: i32)
// CHECK-SAME:    {gpu.kernel, moe.shared_bytes = 0 : i64, moe.work = {bytes = 0 : i64, bytes_per_row = {{[0-9]+}} : i64, bytes_per_token = {{[0-9]+}} : i64, min_tokens = 1 : i64}, nvvm.kernel, nvvm.maxntid = array<i32: 32, 1, 1>
// CHECK-DAG:     %[[ZERO:.*]] = arith.constant dense<0.000000e+00> : vector<8xf32>
// CHECK:         %[[BLOCK:.*]] = nvvm.read.ptx.sreg.ctaid.x
// CHECK:         scf.for %{{.*}} to %c5_i32 step %c32_i32
// CHECK-NEXT:      %[[TOKEN:.*]] = arith.extsi %[[BLOCK]] : i32 to i64
// CHECK-NEXT:      %[[FIRST:.*]] = arith.muli %[[TOKEN]], %c2_i64
// CHECK-NEXT:      %[[AT:.*]] = llvm.getelementptr %[[P]][%[[FIRST]]] : {{.*}}, i32
// CHECK-NEXT:      %[[ROW:.*]] = llvm.load %[[AT]]
// CHECK-NEXT:      %[[IS0:.*]] = arith.cmpi ult, %[[ROW]], %[[ROWS]]
// CHECK:           %[[IS1:.*]] = arith.cmpi ult, %{{.*}}, %[[ROWS]]
// CHECK:           %[[P0:.*]] = llvm.getelementptr %[[X]]
// CHECK-NEXT:      %[[C0:.*]] = arith.extui %[[IS0]] : i1 to i32
// CHECK-NEXT:      %[[L0:.*]] = llvm.inline_asm has_side_effects {{.*}}@p ld.global.v4.b32 {{.*}} %[[C0]], %[[P0]]
// CHECK:           %[[X0:.*]] = arith.extf %{{.*}} : vector<8xbf16> to vector<8xf32>
// CHECK:           arith.extui %[[IS1]] : i1 to i32
// CHECK:           %[[X1:.*]] = arith.extf %{{.*}} : vector<8xbf16> to vector<8xf32>
// CHECK:           %[[W0:.*]] = vector.broadcast %{{.*}} : f32 to vector<8xf32>
// CHECK-NEXT:      %[[T0:.*]] = arith.mulf %[[W0]], %[[X0]]
// CHECK-NEXT:      %[[A0:.*]] = arith.addf %[[T0]], %[[ZERO]]
// CHECK-NEXT:      %[[S0:.*]] = arith.select %[[IS0]], %[[A0]], %[[ZERO]]
// CHECK:           %[[T1:.*]] = arith.mulf %{{.*}}, %[[X1]]
// CHECK-NEXT:      %[[A1:.*]] = arith.addf %[[S0]], %[[T1]]
// CHECK-NEXT:      %[[S1:.*]] = arith.select %[[IS1]], %[[A1]], %[[S0]]
// CHECK-NEXT:      %[[R:.*]] = arith.truncf %[[S1]] : vector<8xf32> to vector<8xbf16>
// CHECK:           llvm.store %[[R]], %{{.*}} {alignment = 16 : i64} : vector<8xbf16>, !llvm.ptr<1>

// CHECK-LABEL: func.func @weighted(
// CHECK-SAME:    %[[X:.*]]: tensor<?x40xbf16>, %[[P:.*]]: tensor<?x2xi32>, %[[W:.*]]: tensor<?x2xf32>, %[[INIT:.*]]: tensor<?x40xbf16>)
// CHECK-DAG:     %[[ROWS:.*]] = tensor.dim %[[X]], %c0
// CHECK-DAG:     %[[R:.*]] = arith.index_cast %[[ROWS]] : index to i32
// CHECK-DAG:     %[[T:.*]] = tensor.dim %[[INIT]], %c0
// CHECK:         %[[Y:.*]] = moe_rt.launch @kernels::@gather_sum blocks(%[[T]]) ins(%[[X]], %[[P]], %[[W]] : {{.*}}) outs(%[[INIT]] : {{.*}}) scalars(%[[R]] : i32)
// CHECK-NEXT:    return %[[Y]]
func.func @weighted(%x: tensor<?x40xbf16>, %p: tensor<?x2xi32>, %w: tensor<?x2xf32>, %init: tensor<?x40xbf16>) -> tensor<?x40xbf16> {
  %y = moe.gather_sum %x, %p weights(%w : tensor<?x2xf32>) outs(%init : tensor<?x40xbf16>)
    : tensor<?x40xbf16>, tensor<?x2xi32> -> tensor<?x40xbf16>
  return %y : tensor<?x40xbf16>
}

// -----

// The dropped row is added in place of a dropped choice. Eight rows are in flight at a
// time; three vectors of two elements make a row.
// CHECK:       llvm.func @gather_sum(%{{[a-z0-9]+}}: !llvm.ptr<1>, %{{[a-z0-9]+}}: !llvm.ptr<1>, %[[D:[a-z0-9]+]]: !llvm.ptr<1>, %{{[a-z0-9]+}}: !llvm.ptr<1>, %{{[a-z0-9]+}}: i32)
// CHECK:         scf.for %{{.*}} to %c3_i32 step %c32_i32
// CHECK:           llvm.getelementptr %[[D]]
// CHECK:           %[[OTHER:.*]] = llvm.load %{{.*}} {alignment = 8 : i64}
// CHECK:           %[[IS:.*]] = arith.cmpi ult
// CHECK-COUNT-7:   arith.cmpi ult
// CHECK:           %[[L:.*]] = llvm.inline_asm has_side_effects {{.*}}@p ld.global.b64
// CHECK-NEXT:      %[[X:.*]] = llvm.bitcast %[[L]] : i64 to vector<2xf32>
// CHECK:           arith.select %[[IS]], %[[X]], %[[OTHER]] : vector<2xf32>
// CHECK-COUNT-7:   arith.select %{{.*}}, %{{.*}}, %[[OTHER]] : vector<2xf32>
// CHECK-COUNT-8:   arith.addf
// CHECK:           arith.select %{{.*}}, %{{.*}}, %[[OTHER]] : vector<2xf32>
// CHECK-NEXT:      arith.addf
// CHECK-NOT:       arith.addf
// CHECK:           llvm.store
// CHECK-LABEL: func.func @dropped(
// CHECK:         moe_rt.launch @kernels::@gather_sum blocks(%{{.*}}) ins(%arg0, %arg1, %arg2 :
func.func @dropped(%x: tensor<?x6xf32>, %p: tensor<?x9xi32>, %d: tensor<?x6xf32>, %init: tensor<?x6xf32>) -> tensor<?x6xf32> {
  %y = moe.gather_sum %x, %p dropped(%d : tensor<?x6xf32>) outs(%init : tensor<?x6xf32>)
    : tensor<?x6xf32>, tensor<?x9xi32> -> tensor<?x6xf32>
  return %y : tensor<?x6xf32>
}

// -----

// As many threads as vectors, up to 256; rows of odd length are loaded element by
// element.
// CHECK:       llvm.func @gather_sum({{.*}}nvvm.maxntid = array<i32: 96, 1, 1>
// CHECK:         %[[BITS:.*]] = llvm.inline_asm has_side_effects {{.*}}@p ld.global.b16 {{.*}} -> i16
// CHECK-NEXT:    llvm.bitcast %[[BITS]] : i16 to vector<1xf16>
// CHECK:       llvm.func @gather_sum_1({{.*}}nvvm.maxntid = array<i32: 256, 1, 1>
// CHECK:         scf.for %{{.*}} to %c512_i32 step %c256_i32
// CHECK-LABEL: func.func @columns(
// CHECK:         moe_rt.launch @kernels::@gather_sum blocks(%c5) {{.*}} scalars(%c10_i32 : i32)
// CHECK:         moe_rt.launch @kernels::@gather_sum_1 blocks(%c5)
func.func @columns(%x: tensor<10x65xf16>, %v: tensor<10x4096xf16>, %p: tensor<5x2xi32>, %a: tensor<5x65xf16>, %b: tensor<5x4096xf16>) -> (tensor<5x65xf16>, tensor<5x4096xf16>) {
  %y = moe.gather_sum %x, %p outs(%a : tensor<5x65xf16>) : tensor<10x65xf16>, tensor<5x2xi32> -> tensor<5x65xf16>
  %z = moe.gather_sum %v, %p outs(%b : tensor<5x4096xf16>) : tensor<10x4096xf16>, tensor<5x2xi32> -> tensor<5x4096xf16>
  return %y, %z : tensor<5x65xf16>, tensor<5x4096xf16>
}
