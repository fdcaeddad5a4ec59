// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s

// CHECK-LABEL: func.func @formulas(
// CHECK-SAME:    %[[L:.*]]: tensor<?x8xf32>, %[[I:.*]]: tensor<?x2xi32>, %[[W:.*]]: tensor<?x2xf32>)
// CHECK-NEXT:    moe.auxiliary_loss load_balance %[[L]] ids(%[[I]] : tensor<?x2xi32>) : tensor<?x8xf32>
// CHECK-NEXT:    moe.auxiliary_loss router_z %[[L]] : tensor<?x8xf32>
// CHECK-NEXT:    moe.auxiliary_loss importance %[[W]] ids(%[[I]] : tensor<?x2xi32>) num_experts(8) : tensor<?x2xf32>
func.func @formulas(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %w: tensor<?x2xf32>) {
  %0 = moe.auxiliary_loss load_balance %l ids(%i : tensor<?x2xi32>) score(softmax) coefficient(1.0)
    : tensor<?x8xf32>
  %1 = moe.auxiliary_loss router_z %l : tensor<?x8xf32>
  %2 = moe.auxiliary_loss importance %w ids(%i : tensor<?x2xi32>) num_experts(8) : tensor<?x2xf32>
  return
}

// CHECK-LABEL: func.func @everything(
// CHECK:         moe.auxiliary_loss load_balance %{{.*}} ids(%{{.*}} : tensor<?x2xi32>)
// CHECK-SAME:      mask(%{{.*}} : tensor<?xi64>) sequences(%{{.*}} : tensor<4xi32>) score(sigmoid)
// CHECK-SAME:      choices(1) coefficient(1.000000e-02) : tensor<?x8xbf16>
// CHECK:         return %{{.*}} : tensor<f32>
func.func @everything(%l: tensor<?x8xbf16>, %i: tensor<?x2xi32>, %m: tensor<?xi64>,
                      %s: tensor<4xi32>) -> tensor<f32> {
  %0 = moe.auxiliary_loss load_balance %l ids(%i : tensor<?x2xi32>) mask(%m : tensor<?xi64>)
    sequences(%s : tensor<4xi32>) score(sigmoid) choices(1) coefficient(0.01) : tensor<?x8xbf16>
  return %0 : tensor<f32>
}

// CHECK-LABEL: func.func @gradients(
// CHECK:         moe.auxiliary_loss_gradient load_balance %{{.*}}, %{{.*}} ids(%{{.*}} : tensor<?x2xi32>)
// CHECK-SAME:      mask(%{{.*}} : tensor<?xi8>) : tensor<?x8xbf16>
// CHECK:         moe.auxiliary_loss_gradient router_z %{{.*}}, %{{.*}} coefficient(1.000000e-03) : tensor<?x8xbf16>
// CHECK:         return %{{.*}} : tensor<?x8xbf16>
func.func @gradients(%l: tensor<?x8xbf16>, %g: tensor<f32>, %i: tensor<?x2xi32>,
                     %m: tensor<?xi8>) -> tensor<?x8xbf16> {
  %0 = moe.auxiliary_loss_gradient load_balance %l, %g ids(%i : tensor<?x2xi32>)
    mask(%m : tensor<?xi8>) : tensor<?x8xbf16>, tensor<f32>
  %1 = moe.auxiliary_loss_gradient router_z %l, %g coefficient(1.0e-3) : tensor<?x8xbf16>, tensor<f32>
  return %1 : tensor<?x8xbf16>
}

// CHECK-LABEL: func.func @bias(
// CHECK:         %[[LOAD:.*]] = moe.expert_load %{{.*}} mask(%{{.*}} : tensor<?xi32>) num_experts(8) : tensor<?x2xi32>
// CHECK:         %[[NEW:.*]] = moe.update_bias %[[LOAD]] rate(1.000000e-03) outs(%{{.*}} : tensor<8xbf16>) : tensor<8xi32>
// CHECK:         return %[[LOAD]], %[[NEW]] : tensor<8xi32>, tensor<8xbf16>
func.func @bias(%i: tensor<?x2xi32>, %m: tensor<?xi32>, %b: tensor<8xbf16>)
    -> (tensor<8xi32>, tensor<8xbf16>) {
  %load = moe.expert_load %i mask(%m : tensor<?xi32>) num_experts(8) : tensor<?x2xi32>
  %new = moe.update_bias %load rate(1.0e-3) outs(%b : tensor<8xbf16>) : tensor<8xi32>
  return %load, %new : tensor<8xi32>, tensor<8xbf16>
}
