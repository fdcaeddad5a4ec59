//===- GateEmitter.cpp - Gate one token with a warp -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "GateEmitter.h"

#include "Limits.h"
#include "moe/Conversion/Utils/ScoreFormula.h"

#include "mlir/Dialect/Math/IR/Math.h"

#include <limits>

using namespace mlir;
using namespace mlir::moe;

using Row = WarpRows::Row;

/// The selection is unrolled up to so many steps; beyond, ptxas takes minutes.
static constexpr int64_t maxSteps = 1024;

GateEmitter::GateEmitter(GateOp op, GPUBuilder &b)
    : WarpRows(b), op(op), experts(op.getNumExperts()), topK(op.getTopK()),
      scoreType(op.getScoreElementType()) {}

void GateEmitter::declareInputs(GateOp op, KernelArguments &arguments,
                                Pointers &pointers) {
  arguments.input(op.getBias(), pointers.bias);
  arguments.input(op.getNoise(), pointers.noise);
  arguments.input(op.getGivenIds(), pointers.givenIds);
}

//===----------------------------------------------------------------------===//
// Values
//===----------------------------------------------------------------------===//

Value GateEmitter::noColumn() {
  return b.i32(std::numeric_limits<int32_t>::max());
}
Value GateEmitter::nanToNegInf(Value x) {
  return b.select(isNaN(x), negInf(), x);
}
Value GateEmitter::roundToScore(Value x) {
  return b.toFloat(b.toFloat(x, scoreType), b.getF32Type());
}

//===----------------------------------------------------------------------===//
// Scores
//===----------------------------------------------------------------------===//

Row GateEmitter::score(const Row &row, const Row &valid) {
  Row scores = op.getScore() == Score::Softmax ? softmax(row, valid) : row;
  return map(scores, [&](Value x) {
    return roundToScore(scoreOf(b, x, op.getScore()));
  });
}

//===----------------------------------------------------------------------===//
// Selection
//===----------------------------------------------------------------------===//

GateEmitter::Argmax GateEmitter::argmax(const Row &scores, const Row &taken) {
  // Ties go to the lowest column.
  auto isBetter = [&](Value value, Value id, Value than, Value thanId) {
    Value greater = compare(arith::CmpFPredicate::OGT, value, than);
    Value equal = compare(arith::CmpFPredicate::OEQ, value, than);
    return b.either(greater, b.both(equal, b.less(id, thanId)));
  };
  Argmax found{negInf(), noColumn()};
  for (unsigned slot = 0; slot < scores.size(); ++slot) {
    Value column = columnOf(slot);
    Value better =
        b.both(b.logicalNot(taken[slot]),
               isBetter(scores[slot], column, found.value, found.id));
    found = {b.select(better, scores[slot], found.value),
             b.select(better, column, found.id)};
  }
  for (int64_t distance = 16; distance > 0; distance /= 2) {
    Value value = b.shuffleXor(found.value, distance);
    Value id = b.shuffleXor(found.id, distance);
    Value better = isBetter(value, id, found.value, found.id);
    found = {b.select(better, value, found.value),
             b.select(better, id, found.id)};
  }
  return found;
}

void GateEmitter::mark(Row &taken, Value id) {
  for (auto [slot, flag] : llvm::enumerate(taken))
    flag = b.either(flag, b.equal(columnOf(slot), id));
}

void GateEmitter::setColumn(Row &row, int64_t k, Value value) {
  Value &slot = row[k / 32];
  slot = b.select(b.equal(lane, k % 32), value, slot);
}

Row GateEmitter::selectTopK(const Row &scores, int64_t columns, int64_t count,
                            Row &chosen) {
  chosen.assign(scores.size(), b.i1(false));
  Row taken =
      map(validColumns(columns), [&](Value x) { return b.logicalNot(x); });
  Row ids(slotsOf(count), b.i32(-1));
  for (int64_t k = 0; k < count; ++k) {
    Value id = argmax(scores, taken).id;
    mark(taken, id);
    mark(chosen, id);
    setColumn(ids, k, b.select(b.equal(id, noColumn()), b.i32(-1), id));
  }
  return ids;
}

/// Replaces the scores outside of the best groups by the fill value.
Row GateEmitter::limitToGroups(const Row &scores) {
  GroupsAttr groups = *op.getGroups();
  int64_t count = groups.getCount(), size = experts / count;
  Row groupScores(slotsOf(count), negInf());
  Row groupOf;
  for (unsigned slot = 0; slot < scores.size(); ++slot)
    groupOf.push_back(b.div(columnOf(slot), size));
  for (int64_t group = 0; group < count; ++group) {
    Row taken = map(groupOf,
                    [&](Value of) { return b.logicalNot(b.equal(of, group)); });
    Argmax first = argmax(scores, taken);
    Value value = first.value;
    if (groups.getScore() == GroupScore::Top2Sum) {
      mark(taken, first.id);
      value = arith::AddFOp::create(b, value, argmax(scores, taken).value);
    }
    setColumn(groupScores, group, nanToNegInf(value));
  }
  Row kept;
  selectTopK(groupScores, count, groups.getKeep(), kept);
  Row flags = map(kept, [&](Value flag) { return b.toI32(flag); });
  Value fill = groups.getFill() == GroupFill::Zero ? b.f32(0.0) : negInf();
  Row limited;
  for (auto [of, value] : llvm::zip_equal(groupOf, scores)) {
    Value flag = b.i32(0);
    for (auto [slot, each] : llvm::enumerate(flags)) {
      Value other = b.shuffle(each, b.bitAnd(of, 31));
      flag = b.select(b.equal(b.shiftRight(of, 5), int64_t(slot)), other, flag);
    }
    limited.push_back(b.select(b.equal(flag, 0), fill, value));
  }
  return limited;
}

/// Selects one expert at a time, or takes the given one; the weight of a choice
/// is its score among the experts that are not taken yet and are within the
/// margin of the best. A given choice without an expert has taken the best.
void GateEmitter::selectScoringEachChoice(const Row &logits, Row &weights,
                                          Row &ids) {
  Row taken =
      map(validColumns(experts), [&](Value x) { return b.logicalNot(x); });
  weights.assign(slotsOf(topK), b.f32(0.0));
  ids.assign(slotsOf(topK), b.i32(-1));
  Row given;
  if (op.getGivenIds())
    given = loadRow(pointers.givenIds, b.getI32Type(), firstChoice, topK,
                    b.i32(-1));
  for (int64_t k = 0; k < topK; ++k) {
    Argmax chosen = argmax(logits, taken);
    Row counted;
    for (auto [logit, flag] : llvm::zip_equal(logits, taken)) {
      Value open = b.logicalNot(flag);
      if (op.getMargin()) {
        Value gap = arith::SubFOp::create(b, chosen.value, logit);
        Value factor = arith::MaximumFOp::create(
            b, math::AbsFOp::create(b, logit), chosen.value);
        Value far = compare(arith::CmpFPredicate::OGT,
                            arith::DivFOp::create(b, gap, factor),
                            b.f32(op.getMargin()->convertToDouble()));
        open = b.both(open, b.logicalNot(far));
      }
      counted.push_back(open);
    }
    Row id{b.select(b.equal(chosen.id, noColumn()), b.i32(-1), chosen.id)};
    Value taking = chosen.id;
    if (!given.empty()) {
      id.front() = b.shuffle(given[k / 32], b.i32(k % 32));
      taking = b.select(b.below(id.front(), experts), id.front(), taking);
    }
    Value weight = gather(score(logits, counted), id, experts).front();
    setColumn(weights, k, weight);
    setColumn(ids, k, id.front());
    mark(taken, taking);
  }
}

//===----------------------------------------------------------------------===//
// Weights
//===----------------------------------------------------------------------===//

void GateEmitter::normalize(Row &weights, const Row &valid) {
  NormalizeAttr normalize = *op.getNormalize();
  NormalizeKind kind = normalize.getKind();
  if (kind == NormalizeKind::Softmax) {
    weights =
        map(softmax(weights, valid), [&](Value x) { return roundToScore(x); });
    return;
  }
  double p = kind == NormalizeKind::Norm ? double(normalize.getP()) : 1.0;
  Value sum = b.f32(0.0);
  for (auto [weight, isValid] : llvm::zip_equal(weights, valid)) {
    Value term = weight;
    if (kind == NormalizeKind::Norm) {
      term = math::AbsFOp::create(b, term);
      if (p == 2.0)
        term = arith::MulFOp::create(b, term, term);
      else if (p != 1.0)
        term = math::PowFOp::create(b, term, b.f32(p));
    }
    sum = arith::AddFOp::create(b, sum, b.select(isValid, term, b.f32(0.0)));
  }
  Value d = b.sumWarp(sum);
  if (p == 2.0)
    d = math::SqrtOp::create(b, d);
  else if (p != 1.0)
    d = math::PowFOp::create(b, d, b.f32(1.0 / p));
  d = roundToScore(d);
  Value epsilon = b.f32(normalize.getEpsilon());
  if (normalize.getGuard() == NormalizeGuard::Clamp)
    d = arith::MaximumFOp::create(b, d, epsilon);
  else if (normalize.getEpsilon() != 0.0)
    d = arith::AddFOp::create(b, d, epsilon);
  d = roundToScore(d);
  Value none = compare(arith::CmpFPredicate::OEQ, d, b.f32(0.0));
  weights = map(weights, [&](Value weight) {
    Value quotient = roundToScore(arith::DivFOp::create(b, weight, d));
    return b.select(none, b.f32(0.0), quotient);
  });
}

/// Selects choices and their scores, before threshold, normalization and scale.
void GateEmitter::selectAndWeigh(const Row &logits, Row &weights, Row &ids) {
  if (op.getOrder() == Order::ScoreEachChoice)
    return selectScoringEachChoice(logits, weights, ids);
  bool scoreFirst = op.getOrder() == Order::ScoreThenSelect;
  Row scores = scoreFirst ? score(logits, validColumns(experts)) : logits;
  if (op.getGivenIds()) {
    ids = loadRow(pointers.givenIds, b.getI32Type(), firstChoice, topK,
                  b.i32(-1));
  } else {
    Row selection = scores;
    if (op.getBias()) {
      Row added =
          loadRow(pointers.bias, op.getBias().getType().getElementType(),
                  b.i64(0), experts, b.f32(0.0));
      for (auto [value, each] : llvm::zip_equal(selection, added))
        value = nanToNegInf(arith::AddFOp::create(b, value, each));
    }
    if (op.getGroups())
      selection = limitToGroups(selection);
    Row chosen;
    ids = selectTopK(selection, experts, topK, chosen);
  }
  weights = gather(scores, ids, experts);
  if (scoreFirst)
    return;
  Row valid = map(ids, [&](Value id) { return b.below(id, experts); });
  weights = score(weights, valid);
  for (auto [weight, isValid] : llvm::zip_equal(weights, valid))
    weight = b.select(isValid, weight, b.f32(0.0));
}

Row GateEmitter::loadLogits(Value token, Value logits, Value first) {
  Row row = loadRow(logits, op.getLogits().getType().getElementType(), first,
                    experts, negInf());
  if (pointers.noise) {
    Row added =
        loadRow(pointers.noise, op.getNoise().getType().getElementType(),
                b.mul(token, experts), experts, b.f32(0.0));
    for (auto [logit, each] : llvm::zip_equal(row, added))
      logit = arith::AddFOp::create(b, logit, each);
  }
  return map(row, [&](Value x) { return nanToNegInf(x); });
}

void GateEmitter::emitScores(Value token, Value logits, Value scores) {
  Value first = b.mul(token, experts);
  Row row = loadLogits(token, logits, first);
  if (op.getScore() != Score::Softmax ||
      op.getScoreAxis() == ScoreAxis::Experts)
    row = score(row, validColumns(experts));
  storeRow(row, scores, first, experts);
}

Row GateEmitter::emit(Value token, Value logits, Value first) {
  firstChoice = b.mul(token, topK);
  Row weights, ids;
  selectAndWeigh(loadLogits(token, logits, first), weights, ids);
  if (op.getThreshold())
    for (auto [weight, id] : llvm::zip_equal(weights, ids)) {
      Value above = compare(arith::CmpFPredicate::OGT, weight,
                            b.f32(op.getThreshold()->convertToDouble()));
      // Invalid ids stay as they are, to be reported.
      Value drops = b.both(b.below(id, experts), b.logicalNot(above));
      id = b.select(drops, b.i32(-1), id);
      weight = b.select(above, weight, b.f32(0.0));
    }
  if (op.getNormalize())
    normalize(weights,
              map(ids, [&](Value id) { return b.below(id, experts); }));
  Row result = map(weights, [&](Value weight) {
    if (op.getScale())
      weight = arith::MulFOp::create(b, weight,
                                     b.f32(op.getScale()->convertToDouble()));
    return b.toFloat(weight, scoreType);
  });
  storeRow(result, pointers.weights, firstChoice, topK);
  storeRow(ids, pointers.ids, firstChoice, topK);
  return ids;
}

void GateEmitter::emitNone(Value token) {
  Value none = b.toFloat(b.f32(0.0), scoreType);
  Value first = b.mul(token, topK);
  storeRow(Row(slotsOf(topK), none), pointers.weights, first, topK);
  storeRow(Row(slotsOf(topK), b.i32(-1)), pointers.ids, first, topK);
}

Value GateEmitter::liveTokens(GPUBuilder &b, Value tokens, Value address) {
  Type i32 = b.getI32Type();
  auto given = scf::IfOp::create(b, tokens.getType(),
                                 b.logicalNot(b.equal(address, 0)), true);
  OpBuilder::InsertionGuard guard(b);
  b.setInsertionPointToStart(given.thenBlock());
  auto global = LLVM::LLVMPointerType::get(
      b.getContext(), unsigned(NVVM::NVVMMemorySpace::Global));
  Value live = b.load(i32, LLVM::IntToPtrOp::create(b, global, address));
  live = b.max(live, b.i32(0));
  if (tokens.getType() != i32)
    live = b.toI64(live);
  scf::YieldOp::create(b, b.min(live, tokens));
  b.setInsertionPointToStart(given.elseBlock());
  scf::YieldOp::create(b, tokens);
  return given.getResult(0);
}

/// Returns the number of comparisons of a lane in the selection.
static int64_t stepsOf(GateOp op) {
  int64_t slots = WarpRows::slotsOf(op.getNumExperts());
  int64_t steps = op.getTopK() * slots;
  if (std::optional<GroupsAttr> groups = op.getGroups())
    steps += 2 * groups->getCount() * slots +
             groups->getKeep() * WarpRows::slotsOf(groups->getCount());
  return steps;
}

LogicalResult GateEmitter::verify(GateOp op, std::string &why) {
  int64_t experts = op.getNumExperts();
  if (op.getSelection() == Selection::ExpertChoice)
    return unsupported(why, "select(expert_choice)");
  if (op.getScoreAxis() == ScoreAxis::Tokens)
    return unsupported(why, "score_axis(tokens)");
  if (ShapedType::isDynamic(experts) || experts > maxExperts)
    return unsupported(why, "more than " + Twine(maxExperts) + " experts");
  if (stepsOf(op) > maxSteps)
    return unsupported(why, "a selection of " + Twine(stepsOf(op)) +
                                " comparisons, more than " + Twine(maxSteps));
  return success();
}
