// RUN: moe-opt %s -convert-moe-to-linalg -canonicalize -cse -split-input-file \
// RUN:   | FileCheck %s --implicit-check-not=moe.

// Choices and scores of each expert, added up over the tokens of a sequence; one
// sequence where none are given.
// CHECK-DAG:   #[[PER_TOKEN:.*]] = affine_map<(d0, d1, d2) -> (d2, d1)>
// CHECK-DAG:   #[[TOKEN:.*]] = affine_map<(d0, d1, d2) -> (d2)>
// CHECK-LABEL: func.func @load_balance(
// CHECK:         math.exp
// CHECK:         linalg.generic {indexing_maps = [#[[PER_TOKEN]], #[[TOKEN]], #{{.*}}], iterator_types = ["parallel", "parallel", "reduction"]} {{.*}} outs(%{{.*}} : tensor<1x8xf32>)
// CHECK:         linalg.generic {indexing_maps = [#[[PER_TOKEN]], #[[TOKEN]], #{{.*}}], iterator_types = ["parallel", "parallel", "reduction"]} {{.*}} outs(%{{.*}} : tensor<1x8xi32>)
// CHECK:           arith.addi
// CHECK:         arith.sitofp
// CHECK:         return %{{.*}} : tensor<f32>
func.func @load_balance(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>) -> tensor<f32> {
  %0 = moe.auxiliary_loss load_balance %l ids(%i : tensor<?x2xi32>) : tensor<?x8xf32>
  return %0 : tensor<f32>
}

// -----

// Each token has the number of its sequence, or -1 where its mask is 0.
// CHECK-LABEL: func.func @sequences(
// CHECK-SAME:    %[[M:[^:]*]]: tensor<?xi64>, %[[S:[^:]*]]: tensor<4xi32>)
// CHECK-DAG:     %[[STARTS:.*]] = tensor.extract_slice %[[S]][0] [3] [1]
// CHECK-DAG:     %[[ENDS:.*]] = tensor.extract_slice %[[S]][1] [3] [1]
// CHECK:         %[[SEQUENCE:.*]] = linalg.generic {{.*}} ins(%[[STARTS]], %[[ENDS]] :
// CHECK-DAG:       arith.cmpi sle
// CHECK-DAG:       arith.cmpi slt
// CHECK:         linalg.generic {{.*}} ins(%[[SEQUENCE]], %[[M]] :
// CHECK:           arith.select %{{.*}}, %{{.*}}, %c-1_i32
// CHECK:         outs(%{{.*}} : tensor<3x8xf32>)
func.func @sequences(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %m: tensor<?xi64>, %s: tensor<4xi32>) -> tensor<f32> {
  %0 = moe.auxiliary_loss load_balance %l ids(%i : tensor<?x2xi32>) mask(%m : tensor<?xi64>)
    sequences(%s : tensor<4xi32>) : tensor<?x8xf32>
  return %0 : tensor<f32>
}

// -----

// CHECK-LABEL: func.func @router_z(
// CHECK:         arith.maximumf
// CHECK:         math.exp
// CHECK:         math.log1p
// CHECK:         arith.mulf
// CHECK:         return %{{.*}} : tensor<f32>
func.func @router_z(%l: tensor<?x8xf32>) -> tensor<f32> {
  %0 = moe.auxiliary_loss router_z %l coefficient(1.0e-3) : tensor<?x8xf32>
  return %0 : tensor<f32>
}

// -----

// No square root, whose slope at a variance of 0 is infinite.
// CHECK-LABEL: func.func @importance(
// CHECK-NOT:     math.sqrt
// CHECK:         %cst{{.*}} = arith.constant 1.000000e-10 : f32
// CHECK-NOT:     math.sqrt
// CHECK:         return %{{.*}} : tensor<?x2xbf16>
func.func @importance(%w: tensor<?x2xbf16>, %i: tensor<?x2xi32>, %g: tensor<f32>) -> tensor<?x2xbf16> {
  %0 = moe.auxiliary_loss_gradient importance %w, %g ids(%i : tensor<?x2xi32>) num_experts(8) : tensor<?x2xbf16>, tensor<f32>
  return %0 : tensor<?x2xbf16>
}

// -----

// E · load against the sum of all, in integers.
// CHECK-LABEL: func.func @update_bias(
// CHECK-SAME:    %[[N:[^:]*]]: tensor<8xi32>, %[[B:[^:]*]]: tensor<8xf32>)
// CHECK:         arith.extsi
// CHECK:         arith.addi
// CHECK:         linalg.generic {{.*}} outs(%[[B]] : tensor<8xf32>)
// CHECK:           arith.muli %{{.*}}, %c8_i64
// CHECK-DAG:       arith.cmpi slt
// CHECK-DAG:       arith.cmpi sgt
func.func @update_bias(%n: tensor<8xi32>, %b: tensor<8xf32>) -> tensor<8xf32> {
  %0 = moe.update_bias %n rate(1.0e-3) outs(%b : tensor<8xf32>) : tensor<8xi32>
  return %0 : tensor<8xf32>
}

// -----

// CHECK-LABEL: func.func @extents(
// CHECK-SAME:    -> (tensor<f32>, tensor<5x8xf32>, tensor<0x8xf32>)
func.func @extents(%l: tensor<5x8xf32>, %i: tensor<?x2xi32>, %m: tensor<?xi8>, %l0: tensor<0x8xf32>, %g: tensor<f32>)
    -> (tensor<f32>, tensor<5x8xf32>, tensor<0x8xf32>) {
  %0 = moe.auxiliary_loss load_balance %l ids(%i : tensor<?x2xi32>) mask(%m : tensor<?xi8>) : tensor<5x8xf32>
  %1 = moe.auxiliary_loss_gradient load_balance %l, %g ids(%i : tensor<?x2xi32>) mask(%m : tensor<?xi8>) : tensor<5x8xf32>, tensor<f32>
  %2 = moe.auxiliary_loss_gradient router_z %l0, %g : tensor<0x8xf32>, tensor<f32>
  return %0, %1, %2 : tensor<f32>, tensor<5x8xf32>, tensor<0x8xf32>
}
