// RUN: moe-opt %s -split-input-file -verify-diagnostics

func.func @no_number(%e: !llvm.ptr, %n: i64) {
  // expected-error @+1 {{expected a region that takes the number of a task as i64, got }}
  moe_rt.parallel %e, %n {
    moe_rt.done
  } : !llvm.ptr
  return
}

// -----

func.func @number_type(%e: !llvm.ptr, %n: i64) {
  // expected-error @+1 {{expected a region that takes the number of a task as i64, got 'index'}}
  moe_rt.parallel %e, %n {
  ^bb0(%i: index):
    moe_rt.done
  } : !llvm.ptr
  return
}

// -----

func.func @two_numbers(%e: !llvm.ptr, %n: i64) {
  // expected-error @+1 {{expected a region that takes the number of a task as i64, got 'i64', 'i64'}}
  moe_rt.parallel %e, %n {
  ^bb0(%i: i64, %j: i64):
    moe_rt.done
  } : !llvm.ptr
  return
}

// -----

func.func @no_block(%e: !llvm.ptr, %n: i64) {
  // expected-error @+1 {{region #0 ('body') failed to verify constraint: region with at least 1 blocks}}
  "moe_rt.parallel"(%e, %n) ({
  }) : (!llvm.ptr, i64) -> ()
  return
}

// -----

func.func @count_type(%e: !llvm.ptr, %n: i32) {
  // expected-error @+1 {{operand #1 must be 64-bit signless integer, but got 'i32'}}
  "moe_rt.parallel"(%e, %n) ({
  ^bb0(%i: i64):
    moe_rt.done
  }) : (!llvm.ptr, i32) -> ()
  return
}

// -----

func.func @done_outside() {
  // expected-error @+1 {{expects parent op 'moe_rt.parallel'}}
  moe_rt.done
}
