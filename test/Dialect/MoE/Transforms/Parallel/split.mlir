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

// -----

// What a function saves is kept between the calls, with the rows that it has:
// what it received is used with what the backward function receives.
// CHECK:       module attributes
// CHECK-SAME:    {call = "saves.part1", inputs = ["%{{[0-9]+}}"], outputs = ["saved1"]}
// CHECK-SAME:    {dtype = "f32", name = "saved0", rows = "home", saved = "after", shape = [-1, 4]}
// CHECK-SAME:    {dtype = "f32", name = "saved1", rows = "received", saved = "after", shape = [-1, 4]}
// CHECK-SAME:    forward = "saves", name = "saves_backward"
// CHECK-SAME:    {call = "saves_backward.part0", inputs = ["dy", "saved0"], outputs = ["x_gradient"]}
// CHECK-SAME:    {call = "saves_backward.part1", inputs = ["saved1", "%{{[0-9]+}}"], outputs = ["w_gradient"]}
// CHECK-SAME:    {dtype = "f32", name = "saved1", rows = "received", saved = "before", shape = [-1, 4]}
// CHECK-LABEL: func.func @saves_backward.part1(
// CHECK:         linalg.generic
#row = affine_map<(d0, d1) -> (d0, d1)>
#column = affine_map<(d0, d1) -> (d1)>
func.func @saves(%x: tensor<?x4xf32>, %n: tensor<8xi32>)
    -> (tensor<?x4xf32> {moe.name = "y"}, tensor<?x4xf32> {moe.name = "saved0", moe.role = "saved"},
        tensor<?x4xf32> {moe.name = "saved1", moe.role = "saved"}) {
  %rows, %received = moe.exchange %x send(%n : tensor<8xi32>) : tensor<?x4xf32> -> tensor<?x4xf32> received tensor<8xi32>
  %s = math.sqrt %rows : tensor<?x4xf32>
  %e = math.exp %x : tensor<?x4xf32>
  %y = math.sqrt %x : tensor<?x4xf32>
  return %y, %e, %s : tensor<?x4xf32>, tensor<?x4xf32>, tensor<?x4xf32>
}
func.func @saves_backward(%dy: tensor<?x4xf32> {moe.name = "dy"}, %n: tensor<8xi32> {moe.name = "n"},
    %s0: tensor<?x4xf32> {moe.name = "saved0", moe.role = "saved"}, %s1: tensor<?x4xf32> {moe.name = "saved1", moe.role = "saved"})
    -> (tensor<?x4xf32> {moe.name = "x_gradient"}, tensor<4xf32> {moe.name = "w_gradient"}) attributes {moe.forward = @saves} {
  %rows, %received = moe.exchange %dy send(%n : tensor<8xi32>) : tensor<?x4xf32> -> tensor<?x4xf32> received tensor<8xi32>
  %zero = arith.constant 0.0 : f32
  %e = tensor.empty() : tensor<4xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<4xf32>) -> tensor<4xf32>
  %dw = linalg.generic {indexing_maps = [#row, #row, #column], iterator_types = ["reduction", "parallel"]}
      ins(%rows, %s1 : tensor<?x4xf32>, tensor<?x4xf32>) outs(%f : tensor<4xf32>) {
  ^bb0(%a: f32, %b: f32, %o: f32):
    %m = arith.mulf %a, %b : f32
    %t = arith.addf %o, %m : f32
    linalg.yield %t : f32
  } -> tensor<4xf32>
  %dx = arith.mulf %dy, %s0 : tensor<?x4xf32>
  return %dx, %dw : tensor<?x4xf32>, tensor<4xf32>
}
