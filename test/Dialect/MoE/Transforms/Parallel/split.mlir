// RUN: moe-opt %s -split-input-file --moe-expert-parallel=slots=4 | FileCheck %s

// The router runs before the exchange, the shared expert behind it. Ids of the
// caller have all experts, those of a rank its slots.
// CHECK:       module attributes {moe.programs = [{experts = 8 : i64, name = "layer", replicas = 1 : i64,
// CHECK-SAME:    signature = #moe.signature<arguments = [#moe.argument<name = "x", role = input, type = tensor<?x16xf32>>, #moe.argument<name = "ids", role = input, type = tensor<?x2xi32>, num_experts = 8>, #moe.argument<name = "w", role = weight, type = tensor<8x16x16xf32>{{.*}}>, #moe.argument<name = "y", role = output, type = tensor<?x16xf32>>]>
// CHECK-SAME:    slots = 4 : i64
// CHECK-SAME:    {call = "layer.part0", inputs = ["ids", "placement"]
// CHECK-SAME:    {exchange = {counts = "%{{[0-9]+}}", received = "%{{[0-9]+}}", results = ["%{{[0-9]+}}", "%{{[0-9]+}}"], sources = [{index = "%{{[0-9]+}}", value = "x"}, {value = "%{{[0-9]+}}"}]}}
// CHECK-SAME:    {call = "layer.part1"
// CHECK-SAME:    {exchange = {counts = "%{{[0-9]+}}", expected = "%{{[0-9]+}}", results = ["%{{[0-9]+}}"]
// CHECK-SAME:    {call = "layer.part2"
// CHECK-SAME:    outputs = ["y"]
// CHECK-SAME:    rows = "home"
// CHECK-SAME:    rows = "received"
// CHECK-LABEL: func.func @layer.part0(
// CHECK-SAME:    tensor<?x2xi32> {moe.name = "ids", moe.role = "input"}, %{{[a-z0-9]+}}: tensor<8x1xi32> {moe.name = "placement", moe.role = "input"})
// CHECK-SAME:    attributes {moe.tokens = [0, 64]}
// CHECK-LABEL: func.func @layer.part1(
// CHECK-SAME:    tensor<4x16x16xf32> {moe.name = "w", moe.role = "weight"}
// CHECK-NOT:     moe.tokens
// CHECK-LABEL: func.func @layer.part2(
// CHECK:         moe.combine
// CHECK:         arith.addf
func.func @layer(%x: tensor<?x16xf32> {moe.name = "x"}, %ids: tensor<?x2xi32> {moe.name = "ids"}, %w: tensor<8x16x16xf32> {moe.name = "w", moe.role = "weight"})
    -> tensor<?x16xf32> attributes {moe.tokens = [0, 64]} {
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.expert %rows, %offsets params(%w : tensor<8x16x16xf32>) {
  ^bb0(%r: tensor<?x16xf32>, %v: tensor<16x16xf32>):
    %p = linalg.matmul ins(%r, %v : tensor<?x16xf32>, tensor<16x16xf32>) outs(%r : tensor<?x16xf32>) -> tensor<?x16xf32>
    moe.yield %p : tensor<?x16xf32>
  } : tensor<?x16xf32>, tensor<9xi32> -> tensor<?x16xf32>
  %shared = arith.negf %x : tensor<?x16xf32>
  %o = moe.combine %y, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  %s = arith.addf %o, %shared : tensor<?x16xf32>
  return %s : tensor<?x16xf32>
}

// -----

// A shared expert needs no exchange, and runs beside the first one.
// CHECK:       module attributes
// CHECK-SAME:    {call = "shared.part0"
// CHECK-SAME:    {exchange = {{{.*}} value = "arg0"}
// CHECK-SAME:    {call = "shared.beside1", inputs = ["arg0", "arg2"], outputs = ["%[[SHARED:[0-9]+]]"]}, {call = "shared.part1"
// CHECK-SAME:    {call = "shared.part2", inputs = [{{.*}}"%[[SHARED]]"{{.*}}], outputs = ["y"]}
// CHECK-LABEL: func.func @shared.beside1(
// CHECK:         linalg.matmul
// CHECK-LABEL: func.func @shared.part1(
// CHECK-LABEL: func.func @shared.part2(
// CHECK:         moe.combine
// CHECK:         arith.addf
func.func @shared(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>, %s: tensor<16x16xf32>) -> tensor<?x16xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %t = tensor.dim %x, %c0 : tensor<?x16xf32>
  %e = tensor.empty(%t) : tensor<?x16xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x16xf32>) -> tensor<?x16xf32>
  %shared = linalg.matmul ins(%x, %s : tensor<?x16xf32>, tensor<16x16xf32>) outs(%f : tensor<?x16xf32>) -> tensor<?x16xf32>
  %rows, %offsets, %positions = moe.dispatch %x, %ids experts(8) : tensor<?x16xf32>, tensor<?x2xi32>
  %o = moe.combine %rows, %positions : tensor<?x16xf32>, tensor<?x2xi32>
  %y = arith.addf %o, %shared : tensor<?x16xf32>
  return %y : tensor<?x16xf32>
}
