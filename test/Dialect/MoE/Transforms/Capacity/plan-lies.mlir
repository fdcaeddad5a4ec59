// RUN: moe-opt %s -moe-reference-to-buffers -split-input-file -verify-diagnostics

// Plans that were edited and do not hold: moe-export knows what the dispatches
// need, moe-allocs-to-arena what the buffers take.

#rows = affine_map<(d0) -> (d0 * 2)>
#small = affine_map<(d0) -> (d0 + 100)>
#one = affine_map<(d0) -> (d0 * 2)>
#tiles = affine_map<(d0) -> ((d0 * 2 + 28) floordiv 8, d0 * 2)>
#padding = affine_map<(d0) -> (28, d0 * 14)>
func.func @rows(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> tensor<?x16xf32> attributes {
    moe.tokens = [0, 1000],
    moe.plan = #moe.plan<min = 0, max = 1000, dispatches = [#moe.dispatch_plan<
      experts = 4, top_k = 2, rows = #small, fullest = #one, overflow = impossible, ranges = [
      #moe.tile_range<min = 0, max = 1000, variant = "v", rows = 8, tiles = #tiles, padding = #padding>]>]>} {
  // expected-error @+1 {{moe.plan does not hold for dispatch 0: expected 'rows' of at least 202 at 101 tokens, got 201}}
  %g, %o, %p = moe.dispatch %x, %ids experts(4) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

// -----

#rows = affine_map<(d0) -> (d0 * 2)>
#few = affine_map<(d0) -> (d0)>
#padding = affine_map<(d0) -> (28, d0 * 14)>
func.func @tiles(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> tensor<?x16xf32> attributes {
    moe.tokens = [0, 1000],
    moe.plan = #moe.plan<min = 0, max = 1000, dispatches = [#moe.dispatch_plan<
      experts = 4, top_k = 2, rows = #rows, fullest = #rows, overflow = impossible, ranges = [
      #moe.tile_range<min = 0, max = 1000, variant = "v", rows = 8, tiles = #few, padding = #padding>]>]>} {
  // expected-error @+1 {{expected 'tiles' of at least 2 at 1 tokens, got 1}}
  %g, %o, %p = moe.dispatch %x, %ids experts(4) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

// -----

#many = affine_map<(d0) -> (d0 * 9223372036854775807)>
func.func @overflow(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> tensor<?x16xf32> attributes {
    moe.tokens = [0, 1000],
    moe.plan = #moe.plan<min = 0, max = 1000, dispatches = [#moe.dispatch_plan<
      experts = 4, top_k = 2, rows = #many, fullest = #many, overflow = impossible, ranges = [
      #moe.tile_range<min = 0, max = 1000, variant = "v", rows = 8, tiles = #many, padding = #many>]>]>} {
  // expected-error @+1 {{expected 'rows' within 64 bits at 2 tokens}}
  %g, %o, %p = moe.dispatch %x, %ids experts(4) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

// -----

#rows = affine_map<(d0) -> (d0 * 2)>
#tiles = affine_map<(d0) -> (d0 * 2)>
#padding = affine_map<(d0) -> (28, d0 * 14)>
func.func @policy(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> tensor<?x16xf32> attributes {
    moe.tokens = [0, 1000],
    moe.plan = #moe.plan<min = 0, max = 1000, dispatches = [#moe.dispatch_plan<
      experts = 4, top_k = 2, rows = #rows, fullest = #rows, overflow = impossible, ranges = [
      #moe.tile_range<min = 0, max = 1000, variant = "v", rows = 8, tiles = #tiles, padding = #padding>]>]>} {
  // expected-error @+1 {{expected overflow = drop, got impossible}}
  %g, %o, %p = moe.dispatch %x, %ids experts(4) capacity(<fixed = 7>) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

// -----

#rows = affine_map<(d0) -> (d0 * 2)>
func.func @other_dispatch(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> tensor<?x16xf32> attributes {
    moe.tokens = [0, 1000],
    moe.plan = #moe.plan<min = 0, max = 1000, dispatches = [#moe.dispatch_plan<
      experts = 8, top_k = 2, rows = #rows, fullest = #rows, overflow = impossible, ranges = [
      #moe.tile_range<min = 0, max = 1000, variant = "v", rows = 8, tiles = #rows, padding = #rows>]>]>} {
  // expected-error @+1 {{expected experts = 4 and top_k = 2, got 8 and 2}}
  %g, %o, %p = moe.dispatch %x, %ids experts(4) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

// -----

// expected-error @+1 {{expected moe.plan for 0 to 1000 tokens, got 0 to 999}}
func.func @range(%l: tensor<?x4xf32>) -> tensor<?x2xf32> attributes {
    moe.tokens = [0, 1000], moe.plan = #moe.plan<min = 0, max = 999, dispatches = []>} {
  %w, %i = moe.gate %l top_k(2) : tensor<?x4xf32>
  return %w : tensor<?x2xf32>
}

// -----

// expected-error @+1 {{expected moe.plan with 1 dispatches, got 0}}
func.func @missing(%x: tensor<?x16xf32>, %ids: tensor<?x2xi32>) -> tensor<?x16xf32> attributes {
    moe.tokens = [0, 1000], moe.plan = #moe.plan<min = 0, max = 1000, dispatches = []>} {
  %g, %o, %p = moe.dispatch %x, %ids experts(4) : tensor<?x16xf32>, tensor<?x2xi32>
  %y = moe.combine %g, %p : tensor<?x16xf32>, tensor<?x2xi32>
  return %y : tensor<?x16xf32>
}

// -----

// expected-error @+1 {{expected moe.plan to be #moe.plan, got 7 : i64}}
func.func @no_plan(%l: tensor<?x4xf32>) -> tensor<?x2xf32> attributes {moe.plan = 7} {
  %w, %i = moe.gate %l top_k(2) : tensor<?x4xf32>
  return %w : tensor<?x2xf32>
}

// -----

// expected-error @+1 {{expected a workspace of at most the 100 bytes that moe.plan promises for 1000 tokens, got }}
func.func @workspace(%l: tensor<?x4xf32>) -> tensor<?x2xf32> attributes {
    moe.tokens = [0, 1000], moe.plan = #moe.plan<min = 0, max = 1000, workspace = 100, dispatches = []>} {
  %w, %i = moe.gate %l top_k(2) : tensor<?x4xf32>
  return %w : tensor<?x2xf32>
}
