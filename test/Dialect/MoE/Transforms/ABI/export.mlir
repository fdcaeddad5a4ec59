// RUN: moe-opt %s -moe-export -split-input-file | FileCheck %s
// A second time changes nothing.
// RUN: moe-opt %s -moe-export -moe-export -split-input-file | FileCheck %s

// Results become memrefs of the caller; the signature says what each argument is.
// CHECK-LABEL: func.func @layer(
// CHECK-SAME:    %[[X:arg0]]: tensor<?x4xbf16> {bufferization.writable = false},
// CHECK-SAME:    %{{.*}}: tensor<8x3xf32> {bufferization.writable = false},
// CHECK-SAME:    %[[Y0:.*]]: memref<?x4xbf16>, %[[Y1:.*]]: memref<8x3xf32>)
// CHECK-SAME:    moe.signature = #moe.signature<arguments = [
// CHECK-SAME:      #moe.argument<name = "x", role = input, type = tensor<?x4xbf16>>,
// CHECK-SAME:      #moe.argument<name = "arg1", role = weight, type = tensor<8x3xf32>, source = ["w"], source_format = "q4_K">,
// CHECK-SAME:      #moe.argument<name = "y", role = output, type = tensor<?x4xbf16>>,
// CHECK-SAME:      #moe.argument<name = "y1", role = output, type = tensor<8x3xf32>>], dispatches = []>
// CHECK-SAME:    moe.tokens = [0, 2147483647]
// CHECK-NEXT:    bufferization.materialize_in_destination %[[X]] in restrict writable %[[Y0]]
// CHECK-NEXT:    bufferization.materialize_in_destination %{{.*}} in restrict writable %[[Y1]]
// CHECK-NEXT:    return{{$}}
func.func @layer(%x: tensor<?x4xbf16> {moe.name = "x", moe.role = "input"},
                 %w: tensor<8x3xf32> {moe.role = "weight", moe.source = ["w"], moe.source_format = "q4_K"})
    -> (tensor<?x4xbf16> {moe.name = "y"}, tensor<8x3xf32>) {
  return %x, %w : tensor<?x4xbf16>, tensor<8x3xf32>
}

// -----

// Every type that crosses.
// CHECK-LABEL: func.func @types(
// CHECK-SAME:    type = tensor<{{[0-9x?]*}}f32>
// CHECK-SAME:    type = tensor<{{[0-9x?]*}}f16>
// CHECK-SAME:    type = tensor<{{[0-9x?]*}}bf16>
// CHECK-SAME:    type = tensor<{{[0-9x?]*}}f64>
// CHECK-SAME:    type = tensor<{{[0-9x?]*}}i8>
// CHECK-SAME:    type = tensor<{{[0-9x?]*}}i16>
// CHECK-SAME:    type = tensor<{{[0-9x?]*}}i32>
// CHECK-SAME:    type = tensor<{{[0-9x?]*}}i64>
// One result is `y`; a scalar and no element at all are tensors, too.
// CHECK-SAME:    #moe.argument<name = "y", role = output, type = tensor<f32>>
func.func @types(%a: tensor<f32>, %b: tensor<?xf16>, %c: tensor<0xbf16>, %d: tensor<?x?xf64>,
                 %e: tensor<?xi8>, %f: tensor<?xi16>, %g: tensor<?xi32>, %h: tensor<?xi64>) -> tensor<f32> {
  return %a : tensor<f32>
}

// -----

// A dispatch reports its offsets and two counters.
// CHECK-DAG:   #[[ID:.*]] = affine_map<(d0, d1) -> (d0, d1)>
// CHECK-DAG:   #[[NONE:.*]] = affine_map<(d0, d1) -> ()>
// CHECK-LABEL: func.func @dispatch(
// CHECK-SAME:    %{{.*}}: memref<?x4xf32>, %[[OFFSETS:.*]]: memref<9xi32>, %[[COUNTERS:.*]]: memref<2xi64>)
// CHECK-SAME:    #moe.argument<name = "ids", role = input, type = tensor<?x2xi32>, num_experts = 8>
// CHECK-SAME:    #moe.argument<name = "offsets0", role = offsets, type = tensor<9xi32>>,
// CHECK-SAME:    #moe.argument<name = "counters0", role = counters, type = tensor<2xi64>>],
// CHECK-SAME:    dispatches = [#moe.dispatch_report<num_experts = 8, top_k = 2, offsets = "offsets0", counters = "counters0">]
// Row numbers fit 32 bits: (2³¹ − 1) / 2.
// CHECK-SAME:    moe.tokens = [0, 1073741823]
// CHECK:         %grouped, %[[O:.*]], %{{.*}} = moe.dispatch
// CHECK:         %[[C:.*]]:2 = linalg.generic {indexing_maps = [#[[ID]], #[[NONE]], #[[NONE]]]
// CHECK:           %[[VALID:.*]] = arith.cmpi ult, %{{.*}}, %c8_i32
// CHECK:           %[[SENTINEL:.*]] = arith.cmpi eq, %{{.*}}, %c-1_i32
// CHECK:           %[[KNOWN:.*]] = arith.ori %[[VALID]], %[[SENTINEL]]
// CHECK:           arith.xori %[[KNOWN]], %true
// CHECK:         %[[PAIR:.*]] = tensor.from_elements %{{.*}}, %{{.*}} : tensor<2xi64>
// CHECK:         bufferization.materialize_in_destination %[[O]] in restrict writable %[[OFFSETS]]
// CHECK:         bufferization.materialize_in_destination %[[PAIR]] in restrict writable %[[COUNTERS]]
func.func @dispatch(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32> {moe.name = "ids"}) -> tensor<?x4xf32> {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}

// A route is reported like a dispatch, as a layer with a backward function has it.
// CHECK-LABEL: func.func @route(
// CHECK-SAME:    dispatches = [#moe.dispatch_report<num_experts = 8, top_k = 2, offsets = "offsets0", counters = "counters0">]
// CHECK:         %{{.*}}, %[[O:.*]], %{{.*}} = moe.route
// CHECK:         bufferization.materialize_in_destination %[[O]] in restrict writable
func.func @route(%ids: tensor<?x2xi32>) -> tensor<?x2xi32> {
  %t, %o, %p = moe.route %ids experts(8) : tensor<?x2xi32>
  return %p : tensor<?x2xi32>
}

// Offsets say all of choices that a gate has made, if none is dropped.
// CHECK-LABEL: func.func @gated(
// CHECK-SAME:    %{{.*}}: memref<?x4xf32>, %{{.*}}: memref<9xi32>)
// CHECK-SAME:    dispatches = [#moe.dispatch_report<num_experts = 8, top_k = 2, offsets = "offsets0">]
// CHECK-NOT:     linalg.generic
func.func @gated(%x: tensor<?x4xf32>, %l: tensor<?x8xf32>) -> tensor<?x4xf32> {
  %w, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}

// -----

// Ids that a gate was given may be none, and choices may find no place.
// CHECK-LABEL: func.func @given(
// CHECK-SAME:    dispatches = [#moe.dispatch_report<{{.*}}, counters = "counters0"
func.func @given(%x: tensor<?x4xf32>, %l: tensor<?x8xf32>, %given: tensor<?x2xi32>) -> tensor<?x4xf32> {
  %w, %ids = moe.gate %l ids(%given : tensor<?x2xi32>) top_k(2) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}

// -----

// Of a gate that chooses itself, how many choices there are needs no counting.
// CHECK-LABEL: func.func @with_places(
// CHECK-SAME:    dispatches = [#moe.dispatch_report<{{.*}}, counters = "counters0"
// CHECK:         %[[T:.*]] = tensor.dim
// CHECK:         %[[WIDE:.*]] = arith.index_cast %[[T]] : index to i64
// CHECK:         %[[ASKED:.*]] = arith.muli %[[WIDE]], %c2_i64
// CHECK-NOT:     linalg.generic
// CHECK:         tensor.from_elements %[[ASKED]], %c0_i64 : tensor<2xi64>
func.func @with_places(%x: tensor<?x4xf32>, %l: tensor<?x8xf32>) -> tensor<?x4xf32> {
  %w, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(8) capacity(<factor = 1.0>) : tensor<?x4xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}

// -----

// Without a capacity a call may leave out tokens, which then choose nothing.
// CHECK-LABEL: func.func @first_choices_of_gate(
// CHECK:         linalg.generic {{.*}} ins(%{{.*}} : tensor<?x2xi32>) outs(%{{.*}}, %{{.*}} : tensor<i64>, tensor<i64>)
func.func @first_choices_of_gate(%x: tensor<?x4xf32>, %l: tensor<?x8xf32>) -> tensor<?x4xf32> {
  %w, %ids = moe.gate %l top_k(2) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(8) choices(1) : tensor<?x4xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p : tensor<?x4xf32>, tensor<?x2xi32>
  return %y : tensor<?x4xf32>
}

// -----

// A choice that is not looked at is not one that was dropped.
// CHECK-LABEL: func.func @first_choices(
// CHECK:         linalg.generic
// CHECK:           %[[K:.*]] = linalg.index 1
// CHECK:           %[[FIRST:.*]] = arith.cmpi ult, %[[K]], %c2
// CHECK:           arith.andi %{{.*}}, %[[FIRST]]
func.func @first_choices(%x: tensor<?x4xf32>, %ids: tensor<?x3xi32>) -> tensor<?x4xf32> {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) choices(2) : tensor<?x4xf32>, tensor<?x3xi32>
  %y = moe.combine %g, %p : tensor<?x4xf32>, tensor<?x3xi32>
  return %y : tensor<?x4xf32>
}

// -----

// Nor is one that was there to retry: of each token, at most two count.
// CHECK-LABEL: func.func @spare_choices(
// CHECK:         %[[OF_TOKEN:.*]] = linalg.generic {{.*}} iterator_types = ["parallel", "reduction"]
// CHECK:         %[[SUM:.*]] = linalg.generic {{.*}} iterator_types = ["reduction"]} ins(%[[OF_TOKEN]]
// CHECK:           arith.minsi %{{.*}}, %c2_i64
// CHECK:         tensor.extract %[[SUM]]
func.func @spare_choices(%x: tensor<?x4xf32>, %ids: tensor<?x3xi32>) -> tensor<?x4xf32> {
  %g, %o, %p = moe.dispatch %x, %ids experts(8) capacity(<fixed = 4>) overflow(next_choice) choices(2)
    : tensor<?x4xf32>, tensor<?x3xi32>
  %y = moe.combine %g, %p : tensor<?x4xf32>, tensor<?x3xi32>
  return %y : tensor<?x4xf32>
}

// -----

// Only ids are checked against a number of experts: the least of those that they
// are used with. Logits, noise and bias are not ids.
// CHECK-LABEL: func.func @ids(
// CHECK-SAME:    name = "arg0", role = input, type = tensor<?x8xf32>>
// CHECK-SAME:    name = "arg1", role = input, type = tensor<?x8xf32>>
// CHECK-SAME:    name = "arg2", role = input, type = tensor<8xf32>>
// CHECK-SAME:    name = "arg3", role = input, type = tensor<?x2xi32>, num_experts = 6>
func.func @ids(%l: tensor<?x8xf32>, %n: tensor<?x8xf32>, %b: tensor<8xf32>, %ids: tensor<?x2xi32>, %x: tensor<?x4xf32>)
    -> (tensor<?x2xf32>, tensor<?x2xf32>, tensor<?x2xi32>) {
  %w0, %i0 = moe.gate %l noise(%n : tensor<?x8xf32>) ids(%ids : tensor<?x2xi32>) top_k(2) : tensor<?x8xf32>
  %w1, %i1 = moe.gate %l bias(%b : tensor<8xf32>) top_k(2) : tensor<?x8xf32>
  %g, %o, %p = moe.dispatch %x, %ids experts(6) : tensor<?x4xf32>, tensor<?x2xi32>
  return %w0, %w1, %p : tensor<?x2xf32>, tensor<?x2xf32>, tensor<?x2xi32>
}

// -----

// The names of reports give way.
// CHECK-LABEL: func.func @names(
// CHECK-SAME:    name = "offsets0", role = input, type = tensor<?x2xi32>, num_experts = 8>
// CHECK-SAME:    name = "offsets0_", role = offsets
// CHECK-SAME:    name = "counters0", role = counters
// CHECK-SAME:    name = "offsets1", role = offsets
// CHECK-SAME:    dispatches = [{{.*}}offsets = "offsets0_"{{.*}}, {{.*}}offsets = "offsets1"
func.func @names(%x: tensor<?x4xf32>, %ids: tensor<?x2xi32> {moe.name = "offsets0"}) -> (tensor<?x2xi32>, tensor<?x2xi32>) {
  %g0, %o0, %p0 = moe.dispatch %x, %ids experts(8) : tensor<?x4xf32>, tensor<?x2xi32>
  %g1, %o1, %p1 = moe.dispatch %x, %ids experts(9) : tensor<?x4xf32>, tensor<?x2xi32>
  return %p0, %p1 : tensor<?x2xi32>, tensor<?x2xi32>
}

// -----

// A dispatch in a region runs any number of times: it bounds T, but reports nothing.
// CHECK-LABEL: func.func @nested(
// CHECK-SAME:    dispatches = []
// CHECK-SAME:    moe.tokens = [0, 536870911]
func.func @nested(%x: tensor<?x4xf32>, %ids: tensor<?x4xi32>, %n: tensor<i64>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %r = scf.for %i = %c0 to %c2 step %c1 iter_args(%acc = %x) -> tensor<?x4xf32> {
    %g, %o, %p = moe.dispatch %acc, %ids experts(8) : tensor<?x4xf32>, tensor<?x4xi32>
    %y = moe.combine %g, %p : tensor<?x4xf32>, tensor<?x4xi32>
    scf.yield %y : tensor<?x4xf32>
  }
  return %r : tensor<?x4xf32>
}

// -----

// A range that is given stays.
// CHECK-LABEL: func.func @tokens(
// CHECK-SAME:    moe.tokens = [1, 512]
func.func @tokens(%x: tensor<?x4xf32>) -> tensor<?x4xf32> attributes {moe.tokens = [1, 512]} {
  return %x : tensor<?x4xf32>
}

// CHECK:       func.func private @helper(%{{.*}}: tensor<?xi1>) -> tensor<?xi1> {
func.func private @helper(%x: tensor<?xi1>) -> tensor<?xi1> {
  return %x : tensor<?xi1>
}

// CHECK:       func.func private @declared(tensor<?xi1>)
func.func private @declared(tensor<?xi1>)
