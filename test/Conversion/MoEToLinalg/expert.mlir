// RUN: moe-opt %s -convert-moe-to-linalg -canonicalize -cse -split-input-file -allow-unregistered-dialect \
// RUN:   | FileCheck %s --implicit-check-not=moe.

// A loop over the experts of the range; offsets are held to the rows there are,
// whatever they say, and a region without rows does not run.
// CHECK-LABEL: func.func @range(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x4xf32>, %[[O:[^:]*]]: tensor<9xi32>, %[[W:[^:]*]]: tensor<3x4x5xf16>)
// CHECK:         %[[R:.*]] = tensor.dim %[[G]], %c0
// CHECK:         %[[INIT:.*]] = tensor.empty(%[[R]]) : tensor<?x5xf32>
// CHECK-NOT:     linalg.fill
// CHECK:         scf.for %[[I:.*]] = %c0 to %c3 step %c1 iter_args(%[[Y:.*]] = %[[INIT]])
// CHECK-DAG:       %[[E:.*]] = arith.addi %[[I]], %c2
// CHECK-DAG:       %[[NEXT:.*]] = arith.addi %[[I]], %c3
// CHECK:           tensor.extract %[[O]][%[[E]]]
// CHECK:           %[[NOT_NEGATIVE:.*]] = arith.maxsi %{{.*}}, %c0
// CHECK:           %[[START:.*]] = arith.minsi %[[NOT_NEGATIVE]], %[[R]]
// CHECK:           tensor.extract %[[O]][%[[NEXT]]]
// CHECK:           arith.maxsi
// CHECK:           %[[END:.*]] = arith.minsi %{{.*}}, %[[R]]
// CHECK:           %[[COUNT:.*]] = arith.subi %[[END]], %[[START]]
// CHECK:           %[[SOME:.*]] = arith.cmpi sgt, %[[COUNT]], %c0
// CHECK:           scf.if %[[SOME]]
// The bound that the arena reads.
// CHECK:             %[[N:.*]] = arith.minsi %[[COUNT]], %[[R]]
// CHECK:             %[[ROWS:.*]] = tensor.extract_slice %[[G]][%[[START]], 0] [%[[N]], 4] [1, 1]
// CHECK:             %[[SLICE:.*]] = tensor.extract_slice %[[W]][%[[I]], 0, 0] [1, 4, 5] [1, 1, 1] : tensor<3x4x5xf16> to tensor<4x5xf16>
// CHECK:             %[[OUT:.*]] = "test.body"(%[[ROWS]], %[[SLICE]])
// CHECK:             tensor.insert_slice %[[OUT]] into %[[Y]][%[[START]], 0] [%[[N]], 5] [1, 1]
// CHECK:           } else {
// CHECK-NEXT:        scf.yield %[[Y]]
func.func @range(%g: tensor<?x4xf32>, %o: tensor<9xi32>, %w: tensor<3x4x5xf16>) -> tensor<?x5xf32> {
  %y = moe.expert %g, %o params(%w : tensor<3x4x5xf16>) first(2) count(3) {
  ^bb0(%r: tensor<?x4xf32>, %p: tensor<4x5xf16>):
    %z = "test.body"(%r, %p) : (tensor<?x4xf32>, tensor<4x5xf16>) -> tensor<?x5xf32>
    moe.yield %z : tensor<?x5xf32>
  } : tensor<?x4xf32>, tensor<9xi32> -> tensor<?x5xf32>
  return %y : tensor<?x5xf32>
}

// -----

// CHECK-LABEL: func.func @uncovered_zero(
// CHECK:         %[[ZERO:.*]] = linalg.fill
// CHECK:         scf.for {{.*}} iter_args(%{{.*}} = %[[ZERO]])
func.func @uncovered_zero(%g: tensor<?x4xf32>, %o: tensor<9xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %g, %o uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>):
    %z = "test.body"(%r) : (tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<9xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// CHECK-LABEL: func.func @init(
// CHECK-SAME:    %[[INIT:[^:]*]]: tensor<?x5xf32>)
// CHECK-NOT:     linalg.fill
// CHECK:         scf.for {{.*}} iter_args(%{{.*}} = %[[INIT]])
func.func @init(%g: tensor<?x4xf32>, %o: tensor<9xi32>, %i: tensor<?x5xf32>) -> tensor<?x5xf32> {
  %y = moe.expert %g, %o init(%i : tensor<?x5xf32>) {
  ^bb0(%r: tensor<?x4xf32>):
    %z = "test.body"(%r) : (tensor<?x4xf32>) -> tensor<?x5xf32>
    moe.yield %z : tensor<?x5xf32>
  } : tensor<?x4xf32>, tensor<9xi32> -> tensor<?x5xf32>
  return %y : tensor<?x5xf32>
}

// -----

// A region that returns its own argument copies the rows.
// CHECK-LABEL: func.func @own_argument(
// CHECK-SAME:    %[[G:[^:]*]]: tensor<?x4xf32>
// CHECK:         %[[ROWS:.*]] = tensor.extract_slice %[[G]]
// CHECK:         tensor.insert_slice %[[ROWS]] into
func.func @own_argument(%g: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %g, %o uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %r : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// So does one that returns a parameter of the shape of rows.
// CHECK-LABEL: func.func @own_parameter(
// CHECK-SAME:    %[[W:[^:]*]]: tensor<2x?x4xf32>)
// CHECK:         %[[SLICE:.*]] = tensor.extract_slice %[[W]][%{{.*}}, 0, 0] [1, %{{.*}}, 4]
// CHECK:         tensor.insert_slice %[[SLICE]] into
func.func @own_parameter(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x?x4xf32>) -> tensor<?x4xf32> {
  %y = moe.expert %g, %o params(%w : tensor<2x?x4xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %p: tensor<?x4xf32>):
    moe.yield %p : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// Values from above are used where they are.
// CHECK-LABEL: func.func @from_above(
// CHECK-SAME:    %[[ABOVE:[^:]*]]: tensor<?x4xf32>)
// CHECK:         tensor.insert_slice %[[ABOVE]] into
// CHECK:         %[[BODY:.*]] = "test.body"(%[[ABOVE]])
// CHECK:         tensor.insert_slice %[[BODY]] into
func.func @from_above(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %above: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
  %y0 = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    moe.yield %above : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  %y1 = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %z = "test.body"(%above) : (tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y0, %y1 : tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

// Hierarchical experts: an expert that is itself a mixture.
// CHECK-LABEL: func.func @nested(
// CHECK:         scf.for %{{.*}} = %c0 to %c2
// CHECK:           scf.if
// CHECK:             %[[OUTER:.*]] = tensor.extract_slice
// CHECK:             %[[W:.*]] = tensor.extract_slice %{{.*}} : tensor<2x3x4xf32> to tensor<3x4xf32>
// CHECK:             scf.for %[[E:.*]] = %c0 to %c3
// CHECK:               scf.if
// CHECK:                 %[[INNER:.*]] = tensor.extract_slice %[[OUTER]]
// CHECK:                 %[[V:.*]] = tensor.extract_slice %[[W]][%[[E]], 0] [1, 4]
// CHECK:                 "test.body"(%[[INNER]], %[[V]])
func.func @nested(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %w: tensor<2x3x4xf32>, %q: tensor<2x4xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %g, %o params(%w, %q : tensor<2x3x4xf32>, tensor<2x4xi32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<3x4xf32>, %p: tensor<4xi32>):
    %z = moe.expert %r, %p params(%v : tensor<3x4xf32>) {
    ^bb0(%s: tensor<?x4xf32>, %u: tensor<4xf32>):
      %b = "test.body"(%s, %u) : (tensor<?x4xf32>, tensor<4xf32>) -> tensor<?x4xf32>
      moe.yield %b : tensor<?x4xf32>
    } : tensor<?x4xf32>, tensor<4xi32> -> tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// Every operation in a region is lowered, also those in regions of others.
// CHECK-LABEL: func.func @layer_in_region(
// CHECK:         scf.for
// CHECK:           math.exp
func.func @layer_in_region(%g: tensor<?x4xf32>, %o: tensor<3xi32>, %c: i1) -> tensor<?x4xf32> {
  %y = moe.expert %g, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %z = scf.if %c -> tensor<?x4xf32> {
      %w, %i = moe.gate %r top_k(1) : tensor<?x4xf32>
      %h, %f, %p = moe.dispatch %r, %i experts(4) : tensor<?x4xf32>, tensor<?x1xi32>
      %s = moe.combine %h, %p weights(%w : tensor<?x1xf32>) : tensor<?x4xf32>, tensor<?x1xi32>
      scf.yield %s : tensor<?x4xf32>
    } else {
      scf.yield %r : tensor<?x4xf32>
    }
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// Static and dynamic extents meet in casts.
// CHECK-LABEL: func.func @static_rows(
// CHECK-SAME:    -> (tensor<?x4xf32>, tensor<6x4xf32>)
func.func @static_rows(%s: tensor<6x4xf32>, %d: tensor<?x4xf32>, %o: tensor<3xi32>) -> (tensor<?x4xf32>, tensor<6x4xf32>) {
  %y0 = moe.expert %s, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %z = "test.body"(%r) : (tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<6x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  %y1 = moe.expert %d, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %z = "test.body"(%r) : (tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<6x4xf32>
  return %y0, %y1 : tensor<?x4xf32>, tensor<6x4xf32>
}
