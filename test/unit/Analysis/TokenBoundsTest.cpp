//===- TokenBoundsTest.cpp - Bounds are never too small -------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe/Analysis/TokenBounds.h"

#include "mlir/Dialect/Arith/IR/Arith.h"
#include "mlir/Dialect/Func/IR/FuncOps.h"
#include "mlir/Dialect/MemRef/IR/MemRef.h"
#include "mlir/Dialect/SCF/IR/SCF.h"
#include "mlir/IR/BuiltinOps.h"
#include "mlir/IR/Verifier.h"
#include "mlir/Parser/Parser.h"
#include "gtest/gtest.h"

#include <functional>
#include <random>

using namespace mlir;
using namespace mlir::moe;

/// What arithmetic on constants comes to.
static Attribute evaluate(Value value) {
  Operation *op = value.getDefiningOp();
  if (!op)
    return {};
  SmallVector<Attribute> operands;
  for (Value operand : op->getOperands())
    operands.push_back(evaluate(operand));
  SmallVector<OpFoldResult> results;
  if (failed(op->fold(operands, results)) || results.size() != 1)
    return {};
  if (auto folded = dyn_cast<Value>(results[0]))
    return evaluate(folded);
  return cast<Attribute>(results[0]);
}

namespace {
class TokenBoundsTest : public testing::Test {
protected:
  TokenBoundsTest() {
    context.loadDialect<arith::ArithDialect, func::FuncDialect,
                        memref::MemRefDialect, scf::SCFDialect>();
  }

  /// The bound of the size of the only allocation of a function `@f`, for some
  /// numbers of tokens; −1 where it has none.
  std::vector<int64_t> boundsOf(StringRef text,
                                ArrayRef<int64_t> tokens = {0, 1, 7, 1000}) {
    std::vector<int64_t> bounds;
    for (int64_t t : tokens) {
      auto module = parseSourceString<ModuleOp>(text, &context);
      EXPECT_TRUE(module);
      if (!module)
        return {};
      func::FuncOp function = *module->getOps<func::FuncOp>().begin();
      OpBuilder b(&context);
      b.setInsertionPointToStart(&function.getBody().front());
      Value constant = arith::ConstantIndexOp::create(b, function.getLoc(), t);
      TokenBounds analysis(b, constant);
      memref::AllocOp last;
      function.walk([&](memref::AllocOp alloc) { last = alloc; });
      Value bound = analysis.boundOfExtent(last, 0);
      // The bound stands at the start and is computed from T alone.
      EXPECT_TRUE(succeeded(verify(*module)));
      auto integer = bound ? dyn_cast_or_null<IntegerAttr>(evaluate(bound))
                           : IntegerAttr();
      EXPECT_EQ(bool(bound), bool(integer)) << "does not fold";
      bounds.push_back(integer ? integer.getInt() : -1);
    }
    return bounds;
  }

  MLIRContext context;
};
} // namespace

using Bounds = std::vector<int64_t>;

TEST_F(TokenBoundsTest, ExtentOfArgument) {
  EXPECT_EQ(boundsOf(R"(
    func.func @f(%x: memref<3x?xf32>) {
      %c1 = arith.constant 1 : index
      %n = memref.dim %x, %c1 : memref<3x?xf32>
      %a = memref.alloc(%n) : memref<?xi8>
      return
    })"),
            Bounds({0, 1, 7, 1000}));
}

TEST_F(TokenBoundsTest, StaticExtent) {
  EXPECT_EQ(boundsOf(R"(
    func.func @f() {
      %a = memref.alloc() : memref<12xi8>
      return
    })"),
            Bounds({12, 12, 12, 12}));
}

TEST_F(TokenBoundsTest, DimensionThatDoesNotExist) {
  EXPECT_EQ(boundsOf(R"(
    func.func @f(%x: memref<?xf32>) {
      %c5 = arith.constant 5 : index
      %n = memref.dim %x, %c5 : memref<?xf32>
      %a = memref.alloc(%n) : memref<?xi8>
      return
    })"),
            Bounds({-1, -1, -1, -1}));
}

TEST_F(TokenBoundsTest, DimensionFromData) {
  EXPECT_EQ(boundsOf(R"(
    func.func @f(%x: memref<?x?xf32>, %i: index) {
      %n = memref.dim %x, %i : memref<?x?xf32>
      %a = memref.alloc(%n) : memref<?xi8>
      return
    })"),
            Bounds({-1, -1, -1, -1}));
}

TEST_F(TokenBoundsTest, ExactThroughAnyPureOperation) {
  EXPECT_EQ(boundsOf(R"(
    func.func @f(%x: memref<?xf32>) {
      %c0 = arith.constant 0 : index
      %c3 = arith.constant 3 : index
      %c9 = arith.constant 9 : index
      %t = memref.dim %x, %c0 : memref<?xf32>
      %q = arith.ceildivsi %t, %c3 : index
      %i = arith.index_cast %q : index to i64
      %g = arith.sitofp %i : i64 to f64
      %h = arith.constant 1.5 : f64
      %m = arith.mulf %g, %h : f64
      %r = arith.fptosi %m : f64 to i64
      %j = arith.index_cast %r : i64 to index
      %s = arith.subi %c9, %j : index
      %u = arith.maxui %s, %c0 : index
      %a = memref.alloc(%s) : memref<?xi8>
      return
    })"),
            Bounds({9, 8, 5, 0}));
}

TEST_F(TokenBoundsTest, Unranked) {
  EXPECT_EQ(boundsOf(R"(
    func.func @f(%x: memref<*xf32>) {
      %c0 = arith.constant 0 : index
      %n = memref.dim %x, %c0 : memref<*xf32>
      %a = memref.alloc(%n) : memref<?xi8>
      return
    })"),
            Bounds({-1, -1, -1, -1}));
}

TEST_F(TokenBoundsTest, CastsKnowMoreOnEitherSide) {
  EXPECT_EQ(boundsOf(R"(
    func.func @f(%x: memref<?xf32>, %d: index) {
      %c0 = arith.constant 0 : index
      %b = memref.alloc(%d) : memref<?xf32>
      %s = memref.cast %b : memref<?xf32> to memref<5xf32>
      %y = memref.cast %s : memref<5xf32> to memref<?xf32>
      %n = memref.dim %y, %c0 : memref<?xf32>
      %a = memref.alloc(%n) : memref<?xi8>
      return
    })"),
            Bounds({5, 5, 5, 5}));
}

TEST_F(TokenBoundsTest, SubviewThatDropsDimensions) {
  EXPECT_EQ(boundsOf(R"(
    func.func @f(%x: memref<4x?x8xf32>, %d: index) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %t = memref.dim %x, %c1 : memref<4x?x8xf32>
      %s = memref.subview %x[0, 0, 0] [1, %t, 3] [1, 1, 1]
        : memref<4x?x8xf32> to memref<?x3xf32, strided<[8, 1]>>
      %n = memref.dim %s, %c0 : memref<?x3xf32, strided<[8, 1]>>
      %a = memref.alloc(%n) : memref<?xi8>
      return
    })"),
            Bounds({0, 1, 7, 1000}));
}

TEST_F(TokenBoundsTest, BranchIsTheLarger) {
  EXPECT_EQ(boundsOf(R"(
    func.func @f(%x: memref<?xf32>, %y: memref<20xf32>, %c: i1) {
      %c0 = arith.constant 0 : index
      %z = memref.cast %y : memref<20xf32> to memref<?xf32>
      %r = scf.if %c -> memref<?xf32> {
        scf.yield %x : memref<?xf32>
      } else {
        scf.yield %z : memref<?xf32>
      }
      %n = memref.dim %r, %c0 : memref<?xf32>
      %a = memref.alloc(%n) : memref<?xi8>
      return
    })"),
            Bounds({20, 20, 20, 1000}));
}

TEST_F(TokenBoundsTest, LoopIsAnyOfItsBuffers) {
  // Three buffers take turns, so any of them may be the last.
  const char *text = R"(
    func.func @f(%x: memref<?xf32>, %c: index) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %y = memref.alloc() : memref<20xf32>
      %z = memref.alloc() : memref<30xf32>
      %u = memref.cast %y : memref<20xf32> to memref<?xf32>
      %v = memref.cast %z : memref<30xf32> to memref<?xf32>
      %r:3 = scf.for %i = %c0 to %c step %c1 iter_args(%p = %x, %q = %u, %s = %v)
          -> (memref<?xf32>, memref<?xf32>, memref<?xf32>) {
        scf.yield %q, %s, %p : memref<?xf32>, memref<?xf32>, memref<?xf32>
      }
      %n = memref.dim %r#0, %c0 : memref<?xf32>
      %a = memref.alloc(%n) : memref<?xi8>
      return
    })";
  EXPECT_EQ(boundsOf(text), Bounds({30, 30, 30, 1000}));
}

TEST_F(TokenBoundsTest, LoopThatKeepsItsBuffer) {
  EXPECT_EQ(boundsOf(R"(
    func.func @f(%x: memref<?xf32>, %c: index) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %r = scf.for %i = %c0 to %c step %c1 iter_args(%p = %x) -> memref<?xf32> {
        %q = scf.for %j = %c0 to %c step %c1 iter_args(%s = %p) -> memref<?xf32> {
          scf.yield %s : memref<?xf32>
        }
        scf.yield %q : memref<?xf32>
      }
      %n = memref.dim %r, %c0 : memref<?xf32>
      %a = memref.alloc(%n) : memref<?xi8>
      return
    })"),
            Bounds({0, 1, 7, 1000}));
}

TEST_F(TokenBoundsTest, LoopThatGrowsItsView) {
  EXPECT_EQ(boundsOf(R"(
    func.func @f(%x: memref<?xf32>, %c: index) {
      %c0 = arith.constant 0 : index
      %c1 = arith.constant 1 : index
      %v = memref.subview %x[0] [%c1] [1] : memref<?xf32> to memref<?xf32, strided<[1]>>
      %r = scf.for %i = %c0 to %c step %c1 iter_args(%p = %v) -> memref<?xf32, strided<[1]>> {
        %m = memref.dim %p, %c0 : memref<?xf32, strided<[1]>>
        %k = arith.addi %m, %c1 : index
        %q = memref.subview %x[0] [%k] [1] : memref<?xf32> to memref<?xf32, strided<[1]>>
        scf.yield %q : memref<?xf32, strided<[1]>>
      }
      %n = memref.dim %r, %c0 : memref<?xf32, strided<[1]>>
      %a = memref.alloc(%n) : memref<?xi8>
      return
    })"),
            Bounds({-1, -1, -1, -1}));
}

TEST_F(TokenBoundsTest, ResultsOfOtherRegions) {
  EXPECT_EQ(boundsOf(R"(
    func.func @f(%x: memref<?xf32>) {
      %c0 = arith.constant 0 : index
      %t = memref.dim %x, %c0 : memref<?xf32>
      %n = scf.execute_region -> index {
        scf.yield %t : index
      }
      %a = memref.alloc(%n) : memref<?xi8>
      return
    })"),
            Bounds({-1, -1, -1, -1}));
}

//===----------------------------------------------------------------------===//
// Random arithmetic
//===----------------------------------------------------------------------===//

namespace {
/// Arithmetic on T, constants and data, as operations and as a function.
struct Expression {
  Value value;
  std::function<int64_t(int64_t tokens, ArrayRef<int64_t> data)> meaning;
};
} // namespace

/// Whatever the arithmetic, the bound is at least the value, for any data.
TEST_F(TokenBoundsTest, RandomArithmeticIsBounded) {
  constexpr unsigned numData = 3;
  std::mt19937 random(2026);
  auto upTo = [&](unsigned bound) { return random() % bound; };
  unsigned bounded = 0, inexact = 0;
  for (unsigned round = 0; round < 3000; ++round) {
    Location loc = UnknownLoc::get(&context);
    OwningOpRef<ModuleOp> module = ModuleOp::create(loc);
    OpBuilder b(&context);
    b.setInsertionPointToStart(module->getBody());
    Type index = b.getIndexType();
    auto x = MemRefType::get({ShapedType::kDynamic}, b.getF32Type());
    SmallVector<Type> types(numData, index);
    types.push_back(x);
    auto function =
        func::FuncOp::create(b, loc, "f", b.getFunctionType(types, {}));
    b.setInsertionPointToStart(function.addEntryBlock());
    b.setInsertionPoint(func::ReturnOp::create(b, loc));
    int64_t tokens = upTo(20);
    Value constantTokens = arith::ConstantIndexOp::create(b, loc, tokens);

    std::vector<Expression> pool;
    pool.push_back({memref::DimOp::create(b, loc, function.getArgument(numData),
                                          int64_t(0)),
                    [](int64_t t, ArrayRef<int64_t>) { return t; }});
    for (unsigned i = 0; i < numData; ++i)
      pool.push_back({function.getArgument(i),
                      [i](int64_t, ArrayRef<int64_t> d) { return d[i]; }});
    for (int64_t value : {-2, -1, 0, 1, 3})
      pool.push_back({arith::ConstantIndexOp::create(b, loc, value),
                      [value](int64_t, ArrayRef<int64_t>) { return value; }});
    unsigned steps = 1 + upTo(8);
    for (unsigned step = 0; step < steps; ++step) {
      Expression lhs = pool[upTo(pool.size())], rhs = pool[upTo(pool.size())];
      auto add = [&](Value value, auto combine) {
        pool.push_back({value, [=](int64_t t, ArrayRef<int64_t> d) {
                          return combine(lhs.meaning(t, d), rhs.meaning(t, d));
                        }});
      };
      Value l = lhs.value, r = rhs.value;
      switch (upTo(9)) {
      case 0:
        add(arith::AddIOp::create(b, loc, l, r),
            [](int64_t p, int64_t q) { return p + q; });
        break;
      case 1:
        add(arith::SubIOp::create(b, loc, l, r),
            [](int64_t p, int64_t q) { return p - q; });
        break;
      case 2:
        add(arith::MulIOp::create(b, loc, l, r),
            [](int64_t p, int64_t q) { return p * q; });
        break;
      case 3:
      case 4:
        add(arith::MinSIOp::create(b, loc, l, r),
            [](int64_t p, int64_t q) { return std::min(p, q); });
        break;
      case 5:
        add(arith::MaxSIOp::create(b, loc, l, r),
            [](int64_t p, int64_t q) { return std::max(p, q); });
        break;
      case 6:
        add(arith::MinUIOp::create(b, loc, l, r), [](int64_t p, int64_t q) {
          return int64_t(std::min(uint64_t(p), uint64_t(q)));
        });
        break;
      case 7:
        add(arith::MaxUIOp::create(b, loc, l, r), [](int64_t p, int64_t q) {
          return int64_t(std::max(uint64_t(p), uint64_t(q)));
        });
        break;
      default: {
        // To 8 bits and back, which is not monotone.
        Value narrow =
            arith::IndexCastOp::create(b, loc, b.getIntegerType(8), l);
        add(arith::IndexCastOp::create(b, loc, index, narrow),
            [](int64_t p, int64_t) { return int64_t(int8_t(p)); });
      }
      }
    }
    TokenBounds analysis(b, constantTokens);
    for (const Expression &expression : pool) {
      Value bound = analysis.boundOf(expression.value);
      if (!bound)
        continue;
      ASSERT_TRUE(succeeded(verify(*module)));
      auto limit = dyn_cast_or_null<IntegerAttr>(evaluate(bound));
      ASSERT_TRUE(limit);
      ++bounded;
      for (unsigned sample = 0; sample < 20; ++sample) {
        SmallVector<int64_t> data;
        for (unsigned i = 0; i < numData; ++i)
          data.push_back(int64_t(upTo(60)) - 30);
        int64_t value = expression.meaning(tokens, data);
        inexact += value < limit.getInt();
        if (value > limit.getInt()) {
          module->dump();
          FAIL() << "bound " << limit.getInt() << " of a value of " << value
                 << " for " << tokens << " tokens";
        }
      }
    }
  }
  // The test is about something.
  EXPECT_GT(bounded, 10000u);
  EXPECT_GT(inexact, 10000u);
}
