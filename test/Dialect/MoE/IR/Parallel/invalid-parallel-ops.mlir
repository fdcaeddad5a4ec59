// RUN: moe-opt %s -split-input-file -verify-diagnostics

// expected-error@+1 {{expected slots between 1 and 2^31 - 1, got 0}}
func.func @slots() attributes {moe.parallel = #moe.parallel<slots = 0>} { return }

// -----

// expected-error@+1 {{expected replicas between 1 and 2^31 - 1, got -1}}
func.func @replicas() attributes {moe.parallel = #moe.parallel<slots = 1, replicas = -1>} { return }

// -----

// expected-error@+2 {{expected one of [ordered, per_rank] for how the rows of a token are added that several ranks have, got: sum}}
// expected-error@+1 {{failed to parse MoE_ParallelAttr parameter 'reduce'}}
func.func @reduce() attributes {moe.parallel = #moe.parallel<slots = 1, reduce = sum>} { return }

// -----

func.func @keep(%ids: tensor<?x2xi32>) {
  // expected-error@+1 {{priority(probability) needs weights}}
  %k = moe.keep %ids experts(4) capacity(<fixed = 1>) priority(probability) : tensor<?x2xi32>
  return
}

// -----

func.func @keep_experts(%ids: tensor<?x2xi32>) {
  // expected-error@+1 {{expected a number of experts between 1 and 2147483646, got 0}}
  %k = moe.keep %ids experts(0) capacity(<fixed = 1>) : tensor<?x2xi32>
  return
}

// -----

func.func @placement(%ids: tensor<?x2xi32>, %p: tensor<?x1xi32>) {
  // expected-error@+1 {{expected a placement [E, R] with static, positive extents, got 'tensor<?x1xi32>'}}
  %s = moe.place %ids, %p : tensor<?x2xi32>, tensor<?x1xi32>
  return
}

// -----

func.func @ranks(%slots: tensor<?x2xi32>) {
  // expected-error@+1 {{expected ranks between 1 and 2147483647, got 0}}
  %0:5 = "moe.partition"(%slots) <{num_slots = 1 : i64, num_ranks = 0 : i64}> : (tensor<?x2xi32>) -> (tensor<?x2xi32>, tensor<?x2x2xi32>, tensor<1xi32>, tensor<?x2xi32>, tensor<1xi32>)
  return
}

// -----

func.func @many_slots(%slots: tensor<?x2xi32>) {
  // expected-error@+1 {{expected slots between 1 and 1, got 2}}
  %t, %l, %s, %h, %r = moe.partition %slots slots(2) ranks(2147483647) : tensor<?x2xi32>
  return
}

// -----

func.func @row_length(%x: tensor<?x16xf32>, %send: tensor<8xi32>) {
  // expected-error@+1 {{expected rows of one static length and element type on both sides, got 'tensor<?x16xf32>' and 'tensor<?x8xf32>'}}
  %r, %c = moe.exchange %x send(%send : tensor<8xi32>) : tensor<?x16xf32> -> tensor<?x8xf32> received tensor<8xi32>
  return
}

// -----

func.func @counts(%x: tensor<?x16xf32>, %send: tensor<8xi32>) {
  // expected-error@+1 {{expected received counts without expect}}
  %r = moe.exchange %x send(%send : tensor<8xi32>) : tensor<?x16xf32> -> tensor<?x16xf32>
  return
}

// -----

func.func @counts_type(%x: tensor<?x16xf32>, %send: tensor<8xi32>) {
  // expected-error@+1 {{expected counts of one type, 'tensor<8xi32>', got 'tensor<4xi32>'}}
  %r, %c = moe.exchange %x send(%send : tensor<8xi32>) : tensor<?x16xf32> -> tensor<?x16xf32> received tensor<4xi32>
  return
}

// -----

func.func @rows(%x: tensor<?x?xf32>) {
  // expected-error@+1 {{expected rows of a static shape, got 'tensor<?x?xf32>'}}
  %a = moe.all_gather %x : tensor<?x?xf32>
  return
}
