// RUN: moe-opt %s | FileCheck %s
// What is printed parses to the same, as bytecode too.
// RUN: moe-opt %s | moe-opt | FileCheck %s
// RUN: moe-opt %s --mlir-print-op-generic | moe-opt | FileCheck %s
// RUN: moe-opt %s --emit-bytecode | moe-opt | FileCheck %s

// CHECK-LABEL: func.func @minimal(
// CHECK-SAME:    %[[L:.*]]: tensor<?x8xf32>, %[[I:.*]]: tensor<?x2xi32>, %[[G:.*]]: tensor<?x2xf32>)
// CHECK-NEXT:    %[[D:.*]] = moe.gate_gradient %[[L]], %[[I]], %[[G]] : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
// CHECK-NEXT:    return %[[D]] : tensor<?x8xf32>
func.func @minimal(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) -> tensor<?x8xf32> {
  %d = moe.gate_gradient %l, %i, %g : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return %d : tensor<?x8xf32>
}

// CHECK-LABEL: func.func @defaults_are_elided(
// CHECK:         moe.gate_gradient %{{.*}}, %{{.*}}, %{{.*}} : tensor<?x8xf32>
func.func @defaults_are_elided(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) {
  %d = moe.gate_gradient %l, %i, %g score(softmax) score_axis(experts) order(score_then_select)
    : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return
}

// The gradient has the type of the weights, the result that of the logits.
// CHECK-LABEL: func.func @everything(
// CHECK:         moe.gate_gradient %{{.*}}, %{{.*}}, %{{.*}} noise(%{{.*}} : tensor<?x8xf16>)
// CHECK-SAME:      order(score_each_choice) margin(2.000000e-02) normalize(<norm, p = 3.000000e+00>)
// CHECK-SAME:      scale(2.500000e+00) : tensor<?x8xbf16>, tensor<?x2xi32>, tensor<?x2xf32>
// CHECK-NEXT:    return %{{.*}} : tensor<?x8xbf16>
func.func @everything(%l: tensor<?x8xbf16>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>,
                      %n: tensor<?x8xf16>) -> tensor<?x8xbf16> {
  %d = moe.gate_gradient %l, %i, %g noise(%n : tensor<?x8xf16>) order(score_each_choice)
    margin(0.02) normalize(<norm, p = 3.0>) scale(2.5)
    : tensor<?x8xbf16>, tensor<?x2xi32>, tensor<?x2xf32>
  return %d : tensor<?x8xbf16>
}

// CHECK-LABEL: func.func @scores(
// CHECK:         moe.gate_gradient %{{.*}}, %{{.*}}, %{{.*}} score(sigmoid) order(select_then_score) :
// CHECK:         moe.gate_gradient %{{.*}}, %{{.*}}, %{{.*}} score(sqrt_softplus) :
// CHECK:         moe.gate_gradient %{{.*}}, %{{.*}}, %{{.*}} score_axis(tokens) :
func.func @scores(%l: tensor<?x8xf32>, %i: tensor<?x2xi32>, %g: tensor<?x2xf32>) {
  %0 = moe.gate_gradient %l, %i, %g score(sigmoid) order(select_then_score)
    : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  %1 = moe.gate_gradient %l, %i, %g score(sqrt_softplus)
    : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  %2 = moe.gate_gradient %l, %i, %g score_axis(tokens)
    : tensor<?x8xf32>, tensor<?x2xi32>, tensor<?x2xf32>
  return
}

// CHECK-LABEL: func.func @extents(
// CHECK:         moe.gate_gradient {{.*}} : tensor<?x8xf32>, tensor<5x8xi32>, tensor<?x8xf32>
// CHECK:         moe.gate_gradient {{.*}} : tensor<0x1xf32>, tensor<0x1xi32>, tensor<0x1xf32>
func.func @extents(%l: tensor<?x8xf32>, %i: tensor<5x8xi32>, %g: tensor<?x8xf32>,
                   %l0: tensor<0x1xf32>, %i0: tensor<0x1xi32>) {
  %0 = moe.gate_gradient %l, %i, %g : tensor<?x8xf32>, tensor<5x8xi32>, tensor<?x8xf32>
  %1 = moe.gate_gradient %l0, %i0, %l0 : tensor<0x1xf32>, tensor<0x1xi32>, tensor<0x1xf32>
  return
}
