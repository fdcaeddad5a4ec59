// RUN: moe-opt %s -pass-pipeline='builtin.module(gpu.module(math-extend-to-supported-types,moe-expand-device-math,convert-math-to-llvm))' | FileCheck %s

// CHECK-LABEL: llvm.func @on_the_host(
// CHECK:         math.exp
llvm.func @on_the_host(%x: f32) -> f32 {
  %y = math.exp %x : f32
  llvm.return %y : f32
}

gpu.module @kernels {
  // 2^t and what rounding t left: within bounds, where neither is infinite or 0.
  // CHECK-LABEL: llvm.func @exp(
  // CHECK-SAME:    %[[X:.*]]: f32)
  // CHECK:         %[[LOW:.*]] = arith.constant -1.500000e+02 : f32
  // CHECK:         %[[A:.*]] = arith.maximumf %[[X]], %[[LOW]]
  // CHECK:         %[[HIGH:.*]] = arith.constant 1.500000e+02 : f32
  // CHECK:         %[[B:.*]] = arith.minimumf %[[A]], %[[HIGH]]
  // CHECK:         %[[T:.*]] = arith.mulf %[[B]], %[[LOG2E:.*]] : f32
  // CHECK:         %[[N:.*]] = arith.negf %[[T]]
  // CHECK:         %[[REST:.*]] = llvm.call_intrinsic "llvm.fma"(%[[B]], %[[LOG2E]], %[[N]])
  // CHECK:         %[[R:.*]] = llvm.call_intrinsic "llvm.fma"(%[[B]], %{{.*}}, %[[REST]])
  // CHECK:         %[[P:.*]] = llvm.call_intrinsic "llvm.nvvm.ex2.approx"(%[[T]]) : (f32) -> f32
  // CHECK:         %[[C:.*]] = arith.mulf %[[R]], %{{.*}} : f32
  // CHECK:         %[[Y:.*]] = llvm.call_intrinsic "llvm.fma"(%[[P]], %[[C]], %[[P]])
  // ∞ · 0 would be NaN.
  // CHECK:         %[[INF:.*]] = arith.cmpf oeq, %[[P]], %{{.*}} : f32
  // CHECK:         %[[E:.*]] = arith.select %[[INF]], %[[P]], %[[Y]]
  // CHECK:         llvm.return %[[E]]
  llvm.func @exp(%x: f32) -> f32 {
    %y = math.exp %x : f32
    llvm.return %y : f32
  }

  // Half the bits are not enough to compute with.
  // CHECK-LABEL: llvm.func @narrow_exp(
  // CHECK-DAG:     arith.extf %{{.*}} f16 to f32
  // CHECK-DAG:     arith.extf %{{.*}} bf16 to f32
  // CHECK:         "llvm.nvvm.ex2.approx"
  // CHECK:         arith.truncf %{{.*}} f32 to f16
  // CHECK:         "llvm.nvvm.ex2.approx"
  // CHECK:         arith.truncf %{{.*}} f32 to bf16
  // CHECK-NOT:     math.
  llvm.func @narrow_exp(%x: f16, %y: bf16, %p: !llvm.ptr) {
    %0 = math.exp %x : f16
    llvm.store %0, %p : f16, !llvm.ptr
    %1 = math.exp %y : bf16
    llvm.store %1, %p : bf16, !llvm.ptr
    llvm.return
  }

  // CHECK-LABEL: llvm.func @narrow(
  // CHECK-NOT:     math.
  // CHECK-NOT:     llvm.call @
  // CHECK:         llvm.return
  llvm.func @narrow(%x: f16, %y: bf16) -> f16 {
    %0 = math.tanh %x : f16
    %1 = math.erf %0 : f16
    %2 = math.log %1 : f16
    %3 = math.powf %2, %x : f16
    %4 = math.clampf %3 to [%0, %1] : f16
    %5 = math.roundeven %4 : f16
    %6 = math.log2 %y : bf16
    %7 = math.atan2 %6, %y : bf16
    %8 = arith.extf %7 : bf16 to f32
    %9 = arith.truncf %8 : f32 to f16
    %10 = arith.addf %5, %9 : f16
    llvm.return %10 : f16
  }

  // What the device has an instruction for; nothing calls a library.
  // CHECK-LABEL: llvm.func @instructions(
  // CHECK:         llvm.call_intrinsic "llvm.fma"
  // CHECK:         llvm.call_intrinsic "llvm.fabs"
  // CHECK:         llvm.call_intrinsic "llvm.sqrt"
  // CHECK:         llvm.call_intrinsic "llvm.floor"
  // CHECK:         llvm.call_intrinsic "llvm.ceil"
  // CHECK:         llvm.call_intrinsic "llvm.trunc"
  // CHECK:         llvm.call_intrinsic "llvm.round"(
  // CHECK:         llvm.call_intrinsic "llvm.roundeven"
  // CHECK:         llvm.call_intrinsic "llvm.copysign"
  // CHECK-NOT:     math.
  // CHECK:         llvm.return
  llvm.func @instructions(%x: f32) -> f32 {
    %0 = math.fma %x, %x, %x : f32
    %1 = math.absf %0 : f32
    %2 = math.sqrt %1 : f32
    %3 = math.floor %2 : f32
    %4 = math.ceil %3 : f32
    %5 = math.trunc %4 : f32
    %6 = math.round %5 : f32
    %7 = math.roundeven %6 : f32
    %8 = math.copysign %7, %x : f32
    llvm.return %8 : f32
  }
  // The lower bound first, also of f64.
  // CHECK-LABEL: llvm.func @clamp(
  // CHECK-SAME:    %[[X:.*]]: f64, %[[LOW:.*]]: f64, %[[HIGH:.*]]: f64)
  // CHECK-NEXT:    %[[MORE:.*]] = arith.maximumf %[[X]], %[[LOW]]
  // CHECK-NEXT:    %[[HELD:.*]] = arith.minimumf %[[MORE]], %[[HIGH]]
  // CHECK-NEXT:    llvm.return %[[HELD]]
  llvm.func @clamp(%x: f64, %low: f64, %high: f64) -> f64 {
    %y = math.clampf %x to [%low, %high] : f64
    llvm.return %y : f64
  }
  // CHECK-LABEL: llvm.func @double(
  // CHECK:         llvm.call_intrinsic "llvm.sqrt"({{.*}}) : (f64) -> f64
  // CHECK-NOT:     math.
  // CHECK:         llvm.return
  llvm.func @double(%x: f64, %low: f64) -> f64 {
    %0 = math.rsqrt %x : f64
    %1 = math.roundeven %0 : f64
    %2 = math.clampf %1 to [%low, %x] : f64
    llvm.return %2 : f64
  }
  // CHECK-LABEL: llvm.func @integers(
  // CHECK:         "llvm.intr.abs"
  // CHECK:         "llvm.intr.ctlz"
  // CHECK:         "llvm.intr.cttz"
  // CHECK:         llvm.intr.ctpop
  // CHECK:         llvm.return
  llvm.func @integers(%x: i32) -> i32 {
    %0 = math.absi %x : i32
    %1 = math.ctlz %0 : i32
    %2 = math.cttz %1 : i32
    %3 = math.ctpop %2 : i32
    llvm.return %3 : i32
  }

  // Polynomials and what else is made of the above.
  // CHECK-LABEL: llvm.func @others(
  // CHECK-NOT:     math.
  // CHECK-NOT:     llvm.call @
  // CHECK:         llvm.return
  llvm.func @others(%x: f32) -> f32 {
    %0 = math.tanh %x : f32
    %1 = math.erf %0 : f32
    %2 = math.log %1 : f32
    %3 = math.log1p %2 : f32
    %4 = math.powf %3, %x : f32
    %5 = math.exp2 %4 : f32
    %6 = math.expm1 %5 : f32
    %7 = math.sin %6 : f32
    %8 = math.cos %7 : f32
    %9 = math.atan %8 : f32
    %10 = math.rsqrt %9 : f32
    %11 = math.tan %10 : f32
    %12 = math.cosh %11 : f32
    %13 = math.clampf %12 to [%0, %1] : f32
    %14 = math.log2 %13 : f32
    llvm.return %14 : f32
  }

  // Arithmetic is what it was.
  // CHECK-LABEL: llvm.func @arithmetic(
  // CHECK-NEXT:    %[[Y:.*]] = arith.addf
  // CHECK-NEXT:    llvm.return %[[Y]]
  llvm.func @arithmetic(%x: f32) -> f32 {
    %y = arith.addf %x, %x : f32
    llvm.return %y : f32
  }

  // With afn: instructions that approximate, and no bounds.
  // CHECK-LABEL: llvm.func @approximate_exp(
  // CHECK-SAME:    %[[X:.*]]: f32)
  // CHECK-NEXT:    %[[LOG2E:.*]] = arith.constant 1.442695
  // CHECK-NEXT:    %[[T:.*]] = arith.mulf %[[X]], %[[LOG2E]]
  // CHECK-NEXT:    %[[Y:.*]] = llvm.call_intrinsic "llvm.nvvm.ex2.approx.ftz"(%[[T]])
  // CHECK-NEXT:    llvm.return %[[Y]]
  llvm.func @approximate_exp(%x: f32) -> f32 {
    %y = math.exp %x fastmath<afn> : f32
    llvm.return %y : f32
  }

  // A divisor of at least 1 needs nothing but its reciprocal.
  // CHECK-LABEL: llvm.func @approximate_sigmoid(
  // CHECK:         %[[D:.*]] = arith.addf
  // CHECK-NEXT:    %[[R:.*]] = llvm.call_intrinsic "llvm.nvvm.rcp.approx.ftz.f"(%[[D]])
  // CHECK-NEXT:    arith.mulf %{{.*}}, %[[R]]
  // CHECK-NOT:     div
  // CHECK:         llvm.return
  llvm.func @approximate_sigmoid(%x: f32) -> f32 {
    %one = arith.constant 1.0 : f32
    %e = math.exp %x fastmath<afn> : f32
    %d = arith.addf %e, %one : f32
    %y = arith.divf %x, %d fastmath<afn> : f32
    llvm.return %y : f32
  }

  // Others may be anything, like a power that has 2 added.
  // CHECK-LABEL: llvm.func @approximate_quotients(
  // CHECK:         llvm.call_intrinsic "llvm.nvvm.div.full"
  // CHECK:         llvm.call_intrinsic "llvm.nvvm.div.full"
  // CHECK:         arith.truncf %{{.*}} : f32 to bf16
  // CHECK-NOT:     arith.divf
  // CHECK:         llvm.return
  llvm.func @approximate_quotients(%x: f32, %h: bf16) -> bf16 {
    %two = arith.constant 2.0 : f32
    %e = math.exp %x fastmath<afn> : f32
    %d = arith.addf %e, %two : f32
    %q = arith.divf %x, %d fastmath<afn> : f32
    %t = arith.truncf %q : f32 to bf16
    %y = arith.divf %t, %h fastmath<afn> : bf16
    llvm.return %y : bf16
  }

  // What polynomials divide is approximated, too.
  // CHECK-LABEL: llvm.func @approximate_others(
  // CHECK:         "llvm.nvvm.ex2.approx.ftz"
  // CHECK:         "llvm.nvvm.rcp.approx.ftz.f"
  // CHECK:         "llvm.nvvm.div.full"
  // CHECK:         "llvm.nvvm.sqrt.approx.f"
  // CHECK:         "llvm.nvvm.rsqrt.approx.f"
  // CHECK:         "llvm.nvvm.ex2.approx.ftz"
  // CHECK-NOT:     arith.divf
  // CHECK:         llvm.return
  llvm.func @approximate_others(%x: f32) -> f32 {
    %0 = math.tanh %x fastmath<afn> : f32
    %1 = math.erf %0 fastmath<afn> : f32
    %2 = math.sqrt %1 fastmath<afn> : f32
    %3 = math.rsqrt %2 fastmath<afn> : f32
    %4 = math.exp2 %3 fastmath<afn> : f32
    llvm.return %4 : f32
  }

  // Near 0 a polynomial is better, unless 1 is added.
  // CHECK-LABEL: llvm.func @approximate_tanh(
  // CHECK:         "llvm.nvvm.rcp.approx.ftz.f"
  // CHECK:         arith.select
  // CHECK:         llvm.return
  llvm.func @approximate_tanh(%x: f32) -> f32 {
    %y = math.tanh %x fastmath<afn> : f32
    llvm.return %y : f32
  }
  // CHECK-LABEL: llvm.func @approximate_tanh_plus_one(
  // CHECK:         "llvm.nvvm.rcp.approx.ftz.f"
  // CHECK-NOT:     arith.select
  // CHECK:         llvm.return
  llvm.func @approximate_tanh_plus_one(%x: f32) -> f32 {
    %one = arith.constant 1.0 : f32
    %t = math.tanh %x fastmath<afn> : f32
    %y = arith.addf %t, %one : f32
    llvm.return %y : f32
  }

  // Without afn, next to those with it; f64 has no approximation.
  // CHECK-LABEL: llvm.func @precise(
  // CHECK:         "llvm.nvvm.ex2.approx"(
  // CHECK:         arith.divf %{{.*}} : f32
  // CHECK:         arith.divf %{{.*}} fastmath<afn> : f64
  llvm.func @precise(%x: f32, %d: f64) -> f64 {
    %0 = math.exp %x : f32
    %1 = arith.divf %x, %0 fastmath<arcp> : f32
    %2 = arith.extf %1 : f32 to f64
    %3 = arith.divf %2, %d fastmath<afn> : f64
    llvm.return %3 : f64
  }
}
