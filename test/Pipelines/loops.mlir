// RUN: moe-opt %s -moe-reference -split-input-file | FileCheck %s
// RUN: moe-opt %s -moe-cpu -split-input-file | FileCheck %s
// RUN: moe-opt %s -moe-gpu=arch=sm_90a -split-input-file | FileCheck %s

// What no fusion knows still compiles, as loops.

// CHECK-LABEL: llvm.func @moe_entry_softmax(
func.func @softmax(%x: tensor<?x8xf32>, %o: tensor<3xi32>) -> tensor<?x8xf32> {
  %c0 = arith.constant 0 : index
  %y = moe.expert %x, %o uncovered(zero) {
  ^bb0(%r: tensor<?x8xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x8xf32>
    %e = tensor.empty(%n) : tensor<?x8xf32>
    %z = linalg.softmax dimension(1) ins(%r : tensor<?x8xf32>) outs(%e : tensor<?x8xf32>) -> tensor<?x8xf32>
    moe.yield %z : tensor<?x8xf32>
  } : tensor<?x8xf32>, tensor<3xi32> -> tensor<?x8xf32>
  return %y : tensor<?x8xf32>
}

// -----

// Arithmetic on whole tensors, one condition for all of them, and one for each
// element.
// CHECK-LABEL: llvm.func @moe_entry_whole_tensors(
func.func @whole_tensors(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>, %f: tensor<1xf32>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %a = arith.addf %x, %y : tensor<?x4xf32>
  %b = math.exp %a : tensor<?x4xf32>
  %less = arith.cmpf olt, %a, %b : tensor<?x4xf32>
  %c = arith.select %less, %a, %b : tensor<?x4xi1>, tensor<?x4xf32>
  %v = tensor.extract %f[%c0] : tensor<1xf32>
  %is = arith.cmpf ogt, %v, %zero : f32
  %d = arith.select %is, %c, %x : tensor<?x4xf32>
  return %d : tensor<?x4xf32>
}

// -----

// CHECK-LABEL: llvm.func @moe_entry_splat(
func.func @splat(%x: tensor<?x4xf32>, %f: tensor<1xf32>) -> tensor<?x4xf32> {
  %c0 = arith.constant 0 : index
  %v = tensor.extract %f[%c0] : tensor<1xf32>
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %s = tensor.splat %v[%n] : tensor<?x4xf32>
  %y = arith.mulf %x, %s : tensor<?x4xf32>
  return %y : tensor<?x4xf32>
}

// -----

// CHECK-LABEL: llvm.func @moe_entry_concat(
func.func @concat(%x: tensor<?x4xf32>, %y: tensor<?x2xf32>) -> tensor<?x6xf32> {
  %c = tensor.concat dim(1) %x, %y : (tensor<?x4xf32>, tensor<?x2xf32>) -> tensor<?x6xf32>
  return %c : tensor<?x6xf32>
}

// -----

// CHECK-LABEL: llvm.func @moe_entry_pad(
func.func @pad(%x: tensor<?x4xf32>) -> tensor<?x7xf32> {
  %one = arith.constant 1.0 : f32
  %y = tensor.pad %x low[0, 1] high[0, 2] {
  ^bb0(%i: index, %j: index):
    tensor.yield %one : f32
  } : tensor<?x4xf32> to tensor<?x7xf32>
  return %y : tensor<?x7xf32>
}

// -----

// Rows of a table by number, with and without the dimension that has the number.
// CHECK-LABEL: llvm.func @moe_entry_gather(
func.func @gather(%table: tensor<5x4xf32>, %i: tensor<?x1xi32>) -> (tensor<?x4xf32>, tensor<?x1x4xf32>) {
  %y = tensor.gather %table[%i] gather_dims([0]) : (tensor<5x4xf32>, tensor<?x1xi32>) -> tensor<?x4xf32>
  %z = tensor.gather %table[%i] gather_dims([0]) : (tensor<5x4xf32>, tensor<?x1xi32>) -> tensor<?x1x4xf32>
  return %y, %z : tensor<?x4xf32>, tensor<?x1x4xf32>
}

// -----

// CHECK-LABEL: llvm.func @moe_entry_bits(
func.func @bits(%x: tensor<?x4xf32>) -> tensor<?x4xi32> {
  %y = tensor.bitcast %x : tensor<?x4xf32> to tensor<?x4xi32>
  return %y : tensor<?x4xi32>
}

// -----

// CHECK-LABEL: llvm.func @moe_entry_transpose(
func.func @transpose(%x: tensor<?x4x2xf32>) -> tensor<?x2x4xf32> {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4x2xf32>
  %e = tensor.empty(%n) : tensor<?x2x4xf32>
  %y = linalg.transpose ins(%x : tensor<?x4x2xf32>) outs(%e : tensor<?x2x4xf32>) permutation = [0, 2, 1]
  return %y : tensor<?x2x4xf32>
}

// -----

// CHECK-LABEL: llvm.func @moe_entry_reduce(
func.func @reduce(%x: tensor<?x4xf32>, %s: tensor<?xf32>) -> (tensor<?xf32>, tensor<?x4xf32>) {
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %y = linalg.reduce ins(%x : tensor<?x4xf32>) outs(%s : tensor<?xf32>) dimensions = [1]
    (%a: f32, %b: f32) {
      %m = arith.maximumf %a, %b : f32
      linalg.yield %m : f32
    }
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %z = linalg.broadcast ins(%y : tensor<?xf32>) outs(%e : tensor<?x4xf32>) dimensions = [1]
  return %y, %z : tensor<?xf32>, tensor<?x4xf32>
}

// -----

// CHECK-LABEL: llvm.func @moe_entry_convolution(
func.func @convolution(%x: tensor<?x2x6xf32>, %w: tensor<3x2x3xf32>) -> tensor<?x3x4xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %n = tensor.dim %x, %c0 : tensor<?x2x6xf32>
  %e = tensor.empty(%n) : tensor<?x3x4xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x3x4xf32>) -> tensor<?x3x4xf32>
  %y = linalg.conv_1d_ncw_fcw ins(%x, %w : tensor<?x2x6xf32>, tensor<3x2x3xf32>) outs(%f : tensor<?x3x4xf32>) -> tensor<?x3x4xf32>
  return %y : tensor<?x3x4xf32>
}

// -----

// CHECK-LABEL: llvm.func @moe_entry_batch(
func.func @batch(%x: tensor<?x2x4xf32>, %y: tensor<?x4x3xf32>) -> tensor<?x2x3xf32> {
  %c0 = arith.constant 0 : index
  %zero = arith.constant 0.0 : f32
  %n = tensor.dim %x, %c0 : tensor<?x2x4xf32>
  %e = tensor.empty(%n) : tensor<?x2x3xf32>
  %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x2x3xf32>) -> tensor<?x2x3xf32>
  %z = linalg.batch_matmul ins(%x, %y : tensor<?x2x4xf32>, tensor<?x4x3xf32>) outs(%f : tensor<?x2x3xf32>) -> tensor<?x2x3xf32>
  return %z : tensor<?x2x3xf32>
}

// -----

// CHECK-LABEL: llvm.func @moe_entry_packed(
func.func @packed(%x: tensor<8x6xf32>) -> (tensor<2x3x4x2xf32>, tensor<8x6xf32>) {
  %e = tensor.empty() : tensor<2x3x4x2xf32>
  %y = linalg.pack %x inner_dims_pos = [0, 1] inner_tiles = [4, 2] into %e : tensor<8x6xf32> -> tensor<2x3x4x2xf32>
  %d = tensor.empty() : tensor<8x6xf32>
  %z = linalg.unpack %y inner_dims_pos = [0, 1] inner_tiles = [4, 2] into %d : tensor<2x3x4x2xf32> -> tensor<8x6xf32>
  return %y, %z : tensor<2x3x4x2xf32>, tensor<8x6xf32>
}

// -----

// CHECK-LABEL: llvm.func @moe_entry_affine(
func.func @affine(%x: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %two = arith.constant 2.0 : f32
  %c0 = arith.constant 0 : index
  %n = tensor.dim %x, %c0 : tensor<?x4xf32>
  %e = tensor.empty(%n) : tensor<?x4xf32>
  %y = affine.for %i = 0 to %n iter_args(%s = %e) -> tensor<?x4xf32> {
    %z = affine.for %j = 0 to 4 iter_args(%t = %s) -> tensor<?x4xf32> {
      %k = affine.apply affine_map<(d0) -> (3 - d0)>(%j)
      %v = tensor.extract %x[%i, %k] : tensor<?x4xf32>
      %d = arith.mulf %v, %two : f32
      %u = tensor.insert %d into %t[%i, %j] : tensor<?x4xf32>
      affine.yield %u : tensor<?x4xf32>
    }
    affine.yield %z : tensor<?x4xf32>
  }
  return %y : tensor<?x4xf32>
}

// -----

// Every other column.
// CHECK-LABEL: llvm.func @moe_entry_strided(
func.func @strided(%all: tensor<?x9xf32>, %l: tensor<?x3xf32>, %a: tensor<3x4x4xf32> {moe.role = "weight"}) -> tensor<?x4xf32> {
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %t = tensor.dim %all, %c0 : tensor<?x9xf32>
  %x = tensor.extract_slice %all[0, 1] [%t, 4] [1, 2] : tensor<?x9xf32> to tensor<?x4xf32>
  %w, %i = moe.gate %l top_k(2) : tensor<?x3xf32>
  %g, %o, %p = moe.dispatch %x, %i experts(3) : tensor<?x4xf32>, tensor<?x2xi32>
  %y = moe.expert %g, %o params(%a : tensor<3x4x4xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x4xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x4xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
    %h = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x4xf32>) outs(%f : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %h : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<4xi32> -> tensor<?x4xf32>
  %z = moe.combine %y, %p weights(%w : tensor<?x2xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
  return %z : tensor<?x4xf32>
}

// -----

// Layers whose weights are stacked, in a loop that counts them.
// CHECK-LABEL: llvm.func @moe_entry_layers(
func.func @layers(%x: tensor<?x4xf32>, %l: tensor<?x3xf32>, %a: tensor<2x3x4x4xf32> {moe.role = "weight"}) -> tensor<?x4xf32> {
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c2 = arith.constant 2 : index
  %w, %i = moe.gate %l top_k(2) : tensor<?x3xf32>
  %out = scf.for %k = %c0 to %c2 step %c1 iter_args(%s = %x) -> tensor<?x4xf32> {
    %ak = tensor.extract_slice %a[%k, 0, 0, 0] [1, 3, 4, 4] [1, 1, 1, 1] : tensor<2x3x4x4xf32> to tensor<3x4x4xf32>
    %g, %o, %p = moe.dispatch %s, %i experts(3) : tensor<?x4xf32>, tensor<?x2xi32>
    %y = moe.expert %g, %o params(%ak : tensor<3x4x4xf32>) {
    ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x4xf32>):
      %n = tensor.dim %r, %c0 : tensor<?x4xf32>
      %e = tensor.empty(%n) : tensor<?x4xf32>
      %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
      %h = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x4xf32>) outs(%f : tensor<?x4xf32>) -> tensor<?x4xf32>
      moe.yield %h : tensor<?x4xf32>
    } : tensor<?x4xf32>, tensor<4xi32> -> tensor<?x4xf32>
    %z = moe.combine %y, %p weights(%w : tensor<?x2xf32>) : tensor<?x4xf32>, tensor<?x2xi32>
    scf.yield %z : tensor<?x4xf32>
  }
  return %out : tensor<?x4xf32>
}

// -----

// The same in a loop that asks, and two tensors that change places.
// CHECK-LABEL: llvm.func @moe_entry_while(
func.func @while(%x: tensor<?x4xf32>, %y: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
  %c0 = arith.constant 0 : index
  %c1 = arith.constant 1 : index
  %c3 = arith.constant 3 : index
  %i, %out:2 = scf.while (%k = %c0, %s = %x, %t = %y) : (index, tensor<?x4xf32>, tensor<?x4xf32>) -> (index, tensor<?x4xf32>, tensor<?x4xf32>) {
    %c = arith.cmpi slt, %k, %c3 : index
    scf.condition(%c) %k, %s, %t : index, tensor<?x4xf32>, tensor<?x4xf32>
  } do {
  ^bb0(%k: index, %s: tensor<?x4xf32>, %t: tensor<?x4xf32>):
    %next = arith.addi %k, %c1 : index
    %u = arith.addf %s, %t : tensor<?x4xf32>
    scf.yield %next, %t, %u : index, tensor<?x4xf32>, tensor<?x4xf32>
  }
  return %out#0, %out#1 : tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

// One expert, in f32, which has no kernel on a GPU: there is no loop over experts.
// CHECK-LABEL: llvm.func @moe_entry_one_expert(
func.func @one_expert(%x: tensor<?x4xf32>, %i: tensor<?x1xi32>, %a: tensor<1x4x4xf32> {moe.role = "weight"}) -> tensor<?x4xf32> {
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %g, %o, %p = moe.dispatch %x, %i experts(1) : tensor<?x4xf32>, tensor<?x1xi32>
  %y = moe.expert %g, %o params(%a : tensor<1x4x4xf32>) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x4xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x4xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
    %h = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x4xf32>) outs(%f : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %h : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<2xi32> -> tensor<?x4xf32>
  %z = moe.combine %y, %p : tensor<?x4xf32>, tensor<?x1xi32>
  return %z : tensor<?x4xf32>
}

// -----

// CHECK-LABEL: llvm.func @moe_entry_one_of_three(
func.func @one_of_three(%x: tensor<?x4xf32>, %i: tensor<?x1xi32>, %a: tensor<1x4x4xf32> {moe.role = "weight"}) -> tensor<?x4xf32> {
  %zero = arith.constant 0.0 : f32
  %c0 = arith.constant 0 : index
  %g, %o, %p = moe.dispatch %x, %i experts(3) : tensor<?x4xf32>, tensor<?x1xi32>
  %y = moe.expert %g, %o params(%a : tensor<1x4x4xf32>) first(2) count(1) uncovered(zero) {
  ^bb0(%r: tensor<?x4xf32>, %v: tensor<4x4xf32>):
    %n = tensor.dim %r, %c0 : tensor<?x4xf32>
    %e = tensor.empty(%n) : tensor<?x4xf32>
    %f = linalg.fill ins(%zero : f32) outs(%e : tensor<?x4xf32>) -> tensor<?x4xf32>
    %h = linalg.matmul ins(%r, %v : tensor<?x4xf32>, tensor<4x4xf32>) outs(%f : tensor<?x4xf32>) -> tensor<?x4xf32>
    moe.yield %h : tensor<?x4xf32>
  } : tensor<?x4xf32>, tensor<4xi32> -> tensor<?x4xf32>
  %z = moe.combine %y, %p : tensor<?x4xf32>, tensor<?x1xi32>
  return %z : tensor<?x4xf32>
}

// -----

// CHECK-LABEL: llvm.func @moe_entry_scatter(
func.func @scatter(%x: tensor<?x4xf32>, %i: tensor<?x1xi32>, %y: tensor<9x4xf32>) -> tensor<9x4xf32> {
  %z = tensor.scatter %x into %y[%i] scatter_dims([0]) unique : (tensor<?x4xf32>, tensor<9x4xf32>, tensor<?x1xi32>) -> tensor<9x4xf32>
  return %z : tensor<9x4xf32>
}
