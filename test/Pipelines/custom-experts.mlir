// Experts that no pass knows: they compile, and run expert by expert.
// RUN: moe-opt %s -moe-reference -split-input-file \
// RUN:   | FileCheck %s --implicit-check-not=malloc --implicit-check-not=memrefCopy \
// RUN:     --implicit-check-not='= {{scf|linalg|memref|tensor}}.'

// A loop in the body, with the rows as its state.
// CHECK-LABEL: llvm.func @moe_entry_loop(
func.func @loop(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %n: tensor<2xi32>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %y = moe.expert %x, %o params(%n : tensor<2xi32>) uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>, %times: tensor<i32>):
    %t = tensor.extract %times[] : tensor<i32>
    %count = arith.index_cast %t : i32 to index
    %z = scf.for %i = %c0 to %count step %c1 iter_args(%s = %r) -> tensor<?x4xf32> {
      %e = linalg.exp ins(%s : tensor<?x4xf32>) outs(%s : tensor<?x4xf32>) -> tensor<?x4xf32>
      scf.yield %e : tensor<?x4xf32>
    }
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// A branch, and one that does not end by itself.
// CHECK-LABEL: llvm.func @moe_entry_control_flow(
func.func @control_flow(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %f: tensor<2xf32>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %limit = arith.constant 100.0 : f32
  %y = moe.expert %x, %o params(%f : tensor<2xf32>) uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>, %fe: tensor<f32>):
    %v = tensor.extract %fe[] : tensor<f32>
    %large = arith.cmpf ogt, %v, %limit : f32
    %z = scf.if %large -> tensor<?x4xf32> {
      %e = linalg.negf ins(%r : tensor<?x4xf32>) outs(%r : tensor<?x4xf32>) -> tensor<?x4xf32>
      scf.yield %e : tensor<?x4xf32>
    } else {
      %w = scf.while (%s = %r) : (tensor<?x4xf32>) -> tensor<?x4xf32> {
        %first = tensor.extract %s[%c0, %c0] : tensor<?x4xf32>
        %more = arith.cmpf olt, %first, %limit : f32
        scf.condition(%more) %s : tensor<?x4xf32>
      } do {
      ^bb0(%s: tensor<?x4xf32>):
        %e = linalg.exp ins(%s : tensor<?x4xf32>) outs(%s : tensor<?x4xf32>) -> tensor<?x4xf32>
        scf.yield %e : tensor<?x4xf32>
      }
      scf.yield %w : tensor<?x4xf32>
    }
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// Single elements, integers, a value from above, and another width and type.
// CHECK-LABEL: llvm.func @moe_entry_elements(
func.func @elements(%x: tensor<?x4xf32>, %o: tensor<3xi32>, %table: tensor<16xf16>) -> tensor<?x3xf16> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %c0 = arith.constant 0 : index
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %z = tensor.generate %n {
    ^bb0(%i: index, %j: index):
      %v = tensor.extract %r[%i, %j] : tensor<?x4xf32>
      %k = arith.fptoui %v : f32 to i4
      %u = arith.index_castui %k : i4 to index
      %t = tensor.extract %table[%u] : tensor<16xf16>
      tensor.yield %t : f16
    } : tensor<?x3xf16>
    moe.yield %z : tensor<?x3xf16>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x3xf16>
  return %y : tensor<?x3xf16>
}

// -----

// A mixture in an expert.
// CHECK-LABEL: llvm.func @moe_entry_nested(
func.func @nested(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %w, %i = moe.gate %r top_k(2) : tensor<?x4xf32>
    %g, %p, %q = moe.dispatch %r, %i experts(4) capacity(<factor = 1.0>) : tensor<?x4xf32>, tensor<?x2xi32>
    %h = moe.expert %g, %p {
    ^bb0(%s: tensor<?x4xf32>):
      %e = linalg.exp ins(%s : tensor<?x4xf32>) outs(%s : tensor<?x4xf32>) -> tensor<?x4xf32>
      moe.yield %e : tensor<?x4xf32>
    } : tensor<?x4xf32>, tensor<5xi32> -> tensor<?x4xf32>
    %z = moe.combine %h, %q weights(%w : tensor<?x2xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// Functions become part of what calls them, with their buffers and with all that
// they call.
// CHECK-NOT:     llvm.call @helper
// CHECK-LABEL: llvm.func @moe_entry_inlined(
func.func private @helper(%r: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %r, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %a = linalg.add ins(%r, %r : tensor<?x4xf32>, tensor<?x4xf32>) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
  return %a : tensor<?x4xf32>
}
func.func private @experts(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %z = func.call @helper(%r) : (tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}
func.func @inlined(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = call @experts(%x, %o) : (tensor<?x4xf32>, tensor<3xi32>) -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// A call that stays, of a function that makes no buffer.
// CHECK-LABEL: llvm.func internal @call(
// CHECK:         llvm.call @act(
// CHECK-LABEL: llvm.func @moe_entry_call(
func.func private @act(%x: f32) -> f32 attributes {no_inline} {
  %y = math.tanh %x : f32
  return %y : f32
}
func.func @call(%x: tensor<?x4xf32>, %o: tensor<3xi32>) -> tensor<?x4xf32> {
  %y = moe.expert %x, %o {
  ^bb0(%r: tensor<?x4xf32>):
    %z = linalg.map ins(%r : tensor<?x4xf32>) outs(%r : tensor<?x4xf32>) (%v: f32, %old: f32) {
      %a = func.call @act(%v) : (f32) -> f32
      linalg.yield %a : f32
    }
    moe.yield %z : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<3xi32> -> tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}
