// What the documentation of the operations says about ties, NaN, −1 and the like,
// as numbers.

// RUN: rm -rf %t && mkdir %t
// RUN: moe-compile %s -o %t/all.moe

// Ties go to the lowest id; NaN is −inf; experts that share an infinite maximum
// share the weight, and so do those of a token of nothing but −inf.
// RUN: %python %S/Inputs/npy.py write %t/logits.npy f32 6x4 \
// RUN:   1 2 2 2   nan 0 0 nan   nan nan nan nan   -inf -inf -inf -inf   inf 5 inf inf   0 nan -inf -1
// RUN: moe-run %t/all.moe --function gate --input %t/logits.npy --output weights=%t/weights.npy --output ids=%t/ids.npy
// RUN: %python %S/Inputs/npy.py show %t/ids.npy %t/weights.npy | FileCheck %s --check-prefix=GATE
// GATE:      1 2
// GATE-NEXT: 1 2
// GATE-NEXT: 0 1
// GATE-NEXT: 0 1
// GATE-NEXT: 0 2
// GATE-NEXT: 0 3
// GATE-NEXT: 0.5 0.5
// GATE-NEXT: 0.5 0.5
// GATE-NEXT: 0.5 0.5
// GATE-NEXT: 0.5 0.5
// GATE-NEXT: 0.5 0.5
// GATE-NEXT: 0.731059 0.268941
func.func @gate(%l: tensor<?x4xf32>) -> (tensor<?x2xf32> {moe.name = "weights"}, tensor<?x2xi32> {moe.name = "ids"}) {
  %w, %i = moe.gate %l top_k(2) normalize(<sum>) : tensor<?x4xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}

// Every expert takes two tokens, of equal ones the first; −1 where it did not.
// RUN: %python %S/Inputs/npy.py write %t/scores.npy f32 4x2   1 nan   1 7   1 7   2 7
// RUN: moe-run %t/all.moe --function expert_choice --input %t/scores.npy --output weights=%t/weights.npy --output ids=%t/ids.npy
// RUN: %python %S/Inputs/npy.py show %t/ids.npy %t/weights.npy | FileCheck %s --check-prefix=EXPERT-CHOICE
// EXPERT-CHOICE:      0 -1
// EXPERT-CHOICE-NEXT: -1 1
// EXPERT-CHOICE-NEXT: -1 1
// EXPERT-CHOICE-NEXT: 0 -1
// EXPERT-CHOICE-NEXT: 1 0
// EXPERT-CHOICE-NEXT: 0 7
// EXPERT-CHOICE-NEXT: 0 7
// EXPERT-CHOICE-NEXT: 2 0
func.func @expert_choice(%l: tensor<?x2xf32>) -> (tensor<?x2xf32> {moe.name = "weights"}, tensor<?x2xi32> {moe.name = "ids"}) {
  %w, %i = moe.gate %l top_k(2) score(none) select(expert_choice) capacity(<fixed = 2>) : tensor<?x2xf32>
  return %w, %i : tensor<?x2xf32>, tensor<?x2xi32>
}

// The same expert twice is two rows; −1 is none; the third row of an expert that
// takes two is dropped. Rows that nothing covers are zero here.
// RUN: %python %S/Inputs/npy.py write %t/x.npy f32 4x1   10 20 30 40
// RUN: %python %S/Inputs/npy.py write %t/route.npy i32 4x2   2 2   -1 0   2 -1   -1 -1
// RUN: moe-run %t/all.moe --function dispatch --input x=%t/x.npy --input ids=%t/route.npy --stats \
// RUN:   --output rows=%t/rows.npy --output offsets=%t/offsets.npy --output positions=%t/positions.npy \
// RUN:   | FileCheck %s --check-prefix=STATISTICS
// RUN: %python %S/Inputs/npy.py show %t/offsets.npy %t/positions.npy %t/rows.npy | FileCheck %s --check-prefix=DISPATCH
// STATISTICS: dispatch 0: 1 calls, 4 choices, 1 dropped
// DISPATCH:      0 1 1 3
// DISPATCH-NEXT: 1 2
// DISPATCH-NEXT: -1 0
// DISPATCH-NEXT: -1 -1
// DISPATCH-NEXT: -1 -1
// DISPATCH-NEXT: {{^}}20{{$}}
// DISPATCH-NEXT: {{^}}10{{$}}
// DISPATCH-NEXT: {{^}}10{{$}}
// DISPATCH-NEXT: {{^}}0{{$}}

// Another id is an error that names it.
// RUN: %python %S/Inputs/npy.py write %t/wild.npy i32 4x2   0 1   2 3   0 1   0 1
// RUN: not moe-run %t/all.moe --function dispatch --input x=%t/x.npy --input ids=%t/wild.npy 2>&1 | FileCheck %s --check-prefix=WILD
// RUN: %python %S/Inputs/npy.py write %t/wild.npy i32 4x2   0 1   0 1   0 1   0 -2
// RUN: not moe-run %t/all.moe --function dispatch --input x=%t/x.npy --input ids=%t/wild.npy 2>&1 | FileCheck %s --check-prefix=NEGATIVE
// WILD:     moe-run: error: {{.*}}'ids'{{.*}}3
// NEGATIVE: moe-run: error: {{.*}}'ids'{{.*}}-2
func.func @dispatch(%x: tensor<?x1xf32> {moe.name = "x"}, %ids: tensor<?x2xi32> {moe.name = "ids"})
    -> (tensor<?x1xf32> {moe.name = "rows"}, tensor<4xi32> {moe.name = "offsets"}, tensor<?x2xi32> {moe.name = "positions"})
    attributes {moe.tokens = [4, 4]} {
  %g, %o, %p = moe.dispatch %x, %ids experts(3) capacity(<fixed = 2>) uncovered(zero) : tensor<?x1xf32>, tensor<?x2xi32>
  // R is 6 and not T, so it cannot leave as it is.
  %c4 = arith.constant 4 : index
  %r = tensor.extract_slice %g[0, 0] [%c4, 1] [1, 1] : tensor<?x1xf32> to tensor<?x1xf32>
  return %r, %o, %p : tensor<?x1xf32>, tensor<4xi32>, tensor<?x2xi32>
}

// A token whose first choice is full takes the next; one choice of each counts.
// RUN: %python %S/Inputs/npy.py write %t/route.npy i32 4x2   0 1   0 1   0 1   0 -1
// RUN: moe-run %t/all.moe --function next_choice --input x=%t/x.npy --input ids=%t/route.npy --stats \
// RUN:   --output positions=%t/positions.npy | FileCheck %s --check-prefix=NEXT-STATISTICS
// RUN: %python %S/Inputs/npy.py show %t/positions.npy | FileCheck %s --check-prefix=NEXT-CHOICE
// NEXT-STATISTICS: dispatch 0: 1 calls, 4 choices, 1 dropped
// NEXT-CHOICE:      0 -1
// NEXT-CHOICE-NEXT: 1 -1
// NEXT-CHOICE-NEXT: -1 2
// NEXT-CHOICE-NEXT: -1 -1
func.func @next_choice(%x: tensor<?x1xf32> {moe.name = "x"}, %ids: tensor<?x2xi32> {moe.name = "ids"})
    -> (tensor<?x2xi32> {moe.name = "positions"}) {
  %g, %o, %p = moe.dispatch %x, %ids experts(3) capacity(<fixed = 2>) overflow(next_choice) choices(1)
    : tensor<?x1xf32>, tensor<?x2xi32>
  return %p : tensor<?x2xi32>
}

// Offsets that are no offsets read and write nothing beyond the rows: experts 0 to
// 4 have rows [-5, 2), [2, 1), [1, 1), [1, 100), [100, 3).
// RUN: %python %S/Inputs/npy.py write %t/offsets.npy i32 6   -5 2 1 1 100 3
// RUN: moe-run %t/all.moe --function expert --input x=%t/x.npy --input offsets=%t/offsets.npy --output y=%t/y.npy
// RUN: %python %S/Inputs/npy.py show %t/y.npy | FileCheck %s --check-prefix=EXPERT
// EXPERT:      {{^}}11{{$}}
// EXPERT-NEXT: {{^}}23{{$}}
// EXPERT-NEXT: {{^}}33{{$}}
// EXPERT-NEXT: {{^}}43{{$}}
func.func @expert(%x: tensor<?x1xf32> {moe.name = "x"}, %o: tensor<6xi32> {moe.name = "offsets"}) -> (tensor<?x1xf32> {moe.name = "y"}) {
  %add = arith.constant dense<[1.0, 2.0, 4.0, 3.0, 8.0]> : tensor<5xf32>
  %y = moe.expert %x, %o params(%add : tensor<5xf32>) uncovered(zero) {
  ^bb0(%r: tensor<?x1xf32>, %a: tensor<f32>):
    %v = tensor.extract %a[] : tensor<f32>
    %z = linalg.map ins(%r : tensor<?x1xf32>) outs(%r : tensor<?x1xf32>) (%e: f32, %old: f32) {
      %s = arith.addf %e, %v : f32
      linalg.yield %s : f32
    }
    moe.yield %z : tensor<?x1xf32>
  } : tensor<?x1xf32>, tensor<6xi32> -> tensor<?x1xf32>
  return %y : tensor<?x1xf32>
}

// A position that is no row adds nothing, whatever number it is; `dropped` does.
// RUN: %python %S/Inputs/npy.py write %t/positions.npy i32 4x2   0 3   -1 1   4 2   -2147483648 2147483647
// RUN: %python %S/Inputs/npy.py write %t/weights.npy f32 4x2   1 0.5   2 1   2 0.5   1 1
// RUN: %python %S/Inputs/npy.py write %t/dropped.npy f32 4x1   1 2 3 4
// RUN: moe-run %t/all.moe --function combine --input rows=%t/x.npy --input positions=%t/positions.npy --input weights=%t/weights.npy \
// RUN:   --input dropped=%t/dropped.npy --output y=%t/y.npy --output z=%t/z.npy
// RUN: %python %S/Inputs/npy.py show %t/y.npy %t/z.npy | FileCheck %s --check-prefix=COMBINE
// COMBINE:      {{^}}30{{$}}
// COMBINE-NEXT: {{^}}20{{$}}
// COMBINE-NEXT: {{^}}15{{$}}
// COMBINE-NEXT: {{^}}0{{$}}
// COMBINE-NEXT: {{^}}30{{$}}
// COMBINE-NEXT: {{^}}24{{$}}
// COMBINE-NEXT: {{^}}21{{$}}
// COMBINE-NEXT: {{^}}8{{$}}
func.func @combine(%g: tensor<?x1xf32> {moe.name = "rows"}, %p: tensor<?x2xi32> {moe.name = "positions"},
                   %w: tensor<?x2xf32> {moe.name = "weights"}, %d: tensor<?x1xf32> {moe.name = "dropped"})
    -> (tensor<?x1xf32> {moe.name = "y"}, tensor<?x1xf32> {moe.name = "z"}) {
  %y = moe.combine %g, %p weights(%w : tensor<?x2xf32>) : tensor<?x1xf32>, tensor<?x2xi32>
  %z = moe.combine %g, %p weights(%w : tensor<?x2xf32>) dropped(%d : tensor<?x1xf32>) : tensor<?x1xf32>, tensor<?x2xi32>
  return %y, %z : tensor<?x1xf32>, tensor<?x1xf32>
}
