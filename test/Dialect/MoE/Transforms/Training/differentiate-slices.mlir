// RUN: moe-opt %s --moe-differentiate --canonicalize --cse | FileCheck %s

// Gradients of parts of a tensor are put next to each other. Where they overlap they are added; where there is none it
// is zero.
// CHECK-LABEL: func.func @parts_backward(
// CHECK-SAME:    %[[DY:[a-z0-9]+]]: tensor<4xf32> {moe.name = "result0_gradient"}
// CHECK:         %[[E:.*]] = tensor.empty() : tensor<8xf32>
// CHECK-NOT:     linalg.fill
// CHECK:         %[[ONE:.*]] = tensor.insert_slice %{{.*}} into %[[E]]
// CHECK:         %[[TWO:.*]] = tensor.insert_slice %{{.*}} into %[[ONE]]
// CHECK:         %[[ZEROS:.*]] = linalg.fill {{.*}} -> tensor<8xf32>
// CHECK-COUNT-2: tensor.insert_slice %{{.*}} into %[[ZEROS]]
// CHECK:         %[[SUM:.*]] = linalg.generic
// CHECK:         return %[[TWO]], %[[SUM]]
func.func @parts(%x: tensor<8xf32> {moe.name = "x"}, %z: tensor<8xf32> {moe.name = "z"}, %ids: tensor<?x1xi32>) -> tensor<4xf32> {
  %tokens, %offsets, %positions = moe.route %ids experts(2) : tensor<?x1xi32>
  %x1 = tensor.extract_slice %x[0] [4] [1] : tensor<8xf32> to tensor<4xf32>
  %x2 = tensor.extract_slice %x[4] [4] [1] : tensor<8xf32> to tensor<4xf32>
  %z1 = tensor.extract_slice %z[1] [4] [1] : tensor<8xf32> to tensor<4xf32>
  %z2 = tensor.extract_slice %z[4] [4] [1] : tensor<8xf32> to tensor<4xf32>
  %e = tensor.empty() : tensor<4xf32>
  %a = linalg.mul ins(%x1, %x2 : tensor<4xf32>, tensor<4xf32>) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %b = linalg.mul ins(%z1, %z2 : tensor<4xf32>, tensor<4xf32>) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %y = linalg.add ins(%a, %b : tensor<4xf32>, tensor<4xf32>) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  return %y : tensor<4xf32>
}
