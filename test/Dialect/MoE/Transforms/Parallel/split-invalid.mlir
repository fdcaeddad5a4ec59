// RUN: moe-opt %s -split-input-file -verify-diagnostics --moe-split-at-exchanges

func.func @mixed(%x: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %all = moe.all_gather %x : tensor<?x4xf32>
  // expected-error@+1 {{reads the tokens of this rank and the tokens of all ranks: expected the tokens of one side of a moe.exchange}}
  %s = arith.addf %x, %all : tensor<?x4xf32>
  return %s : tensor<?x4xf32>
}

// -----

// expected-error@+1 {{expected results that are different values, and no arguments, to spread the experts over ranks; result 'y1' is also 'arg0'}}
func.func @argument(%x: tensor<?x4xf32>) -> (tensor<?x4xf32>, tensor<?x4xf32>) {
  %own = moe.own_rows %x : tensor<?x4xf32>
  return %own, %x : tensor<?x4xf32>, tensor<?x4xf32>
}

// -----

// expected-error@+1 {{expected results with the tokens of this rank, got others in 'y'}}
func.func @all(%x: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %all = moe.all_gather %x : tensor<?x4xf32>
  return %all : tensor<?x4xf32>
}

// -----

// expected-error@+1 {{expected moe.forward to be a function before this one that saves what argument 0 takes}}
func.func @saved(%x: tensor<?x4xf32> {moe.name = "saved0", moe.role = "saved"}) -> tensor<?x4xf32> attributes {moe.forward = @forward} {
  %own = moe.own_rows %x : tensor<?x4xf32>
  return %own : tensor<?x4xf32>
}

// -----

// expected-error@+1 {{expected a function of one block, to cut it at its exchanges}}
func.func @blocks(%x: tensor<?x4xf32>) -> tensor<?x4xf32> {
  %all = moe.all_gather %x : tensor<?x4xf32>
  cf.br ^bb1
^bb1:
  return %all : tensor<?x4xf32>
}
