//===- parallel_call.h - Call a layer over several ranks --------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_RT_SRC_PARALLEL_PARALLEL_CALL_H
#define MOE_RT_SRC_PARALLEL_PARALLEL_CALL_H

#include "parallel/call_memory.h"
#include "parallel/parallel_layer.h"
#include "parallel/saved_values.h"

namespace moe::rt {

/// The first token of a rank, where ranks have the same tokens; with
/// `rank` = `ranks` the number of tokens.
int64_t beginOfSlice(int64_t tokens, size_t rank, size_t ranks);

/// One call on one rank.
class ParallelCall {
public:
  explicit ParallelCall(ParallelLayer &layer);

  moe_rt_status_t run(const CallArguments &arguments);
  /// Let the other ranks know that this one cannot call.
  moe_rt_status_t refuse(moe_rt_status_t failure);
  /// The most memory that a call with `tokens` tokens on each rank takes.
  static uint64_t workspace(const ParallelLayer &layer, int64_t tokens);

private:
  /// How many rows go to and come from each rank in an exchange, or a round of
  /// one, and where they are.
  struct Traffic {
    std::vector<int64_t> sendRows, sendBegins, receiveRows, receiveBegins;

    explicit Traffic(size_t ranks)
        : sendRows(ranks), sendBegins(ranks), receiveRows(ranks),
          receiveBegins(ranks) {}
  };

  /// Meet, and note whether all ranks have the error.
  moe_rt_status_t agree(const Words &own, moe_rt_status_t failure,
                        const std::vector<Common> &common,
                        const int64_t *counts = nullptr);
  void beginStage(size_t step);

  bool isLeaving(size_t step) const;
  const RoundTrip *roundTripAt(size_t step) const;
  int64_t extentOf(const Value &value) const;
  char *addressOf(size_t value) const;
  const int32_t *idsOf(size_t value) const;

  // What calls keep.
  moe_rt_status_t checkSaved() const;
  moe_rt_status_t checkExtent(const Value &value) const;
  moe_rt_status_t keep();

  // What precedes the meeting of the ranks.
  moe_rt_status_t bind(const CallArguments &arguments);
  moe_rt_status_t allocateHome();
  /// Where all ranks have the same tokens, go on with those of this rank.
  moe_rt_status_t takeSlice();
  void shiftToSlice();
  moe_rt_status_t checkSend(size_t step);
  moe_rt_status_t checkHome(size_t step, int64_t expected) const;
  moe_rt_status_t checkSlots(const RoundTrip &trip);

  // The meeting.
  moe_rt_status_t meet(size_t step, moe_rt_status_t failure);
  moe_rt_status_t reserve(size_t step, int64_t &rounds);
  moe_rt_status_t reserveRows(int64_t rows, uint64_t packedRows, size_t step);
  moe_rt_status_t refuseRows() const;
  bool fits(int64_t rows, uint64_t packedRows, size_t step);
  bool hasMemory(int64_t rows);
  uint64_t packedBytes(size_t step, uint64_t rows) const;

  // What follows it.
  moe_rt_status_t finish(size_t step);
  moe_rt_status_t callPart(size_t step);
  moe_rt_status_t gather(size_t step);
  void takeOwn(size_t step);
  moe_rt_status_t comeHome(size_t step);
  moe_rt_status_t runRoundTrip(const RoundTrip &trip, int64_t rounds);
  int64_t chunksOf(const RoundTrip &trip) const;
  moe_rt_status_t runChunks(const RoundTrip &trip, int64_t chunks);
  moe_rt_status_t callBeside(size_t step);
  moe_rt_status_t checkReturns(const RoundTrip &trip,
                               const std::vector<int64_t> &arrived) const;
  std::vector<int64_t> homeBeginsOf(const RoundTrip &trip) const;
  moe_rt_status_t takeHome(const RoundTrip &trip, const Traffic &out,
                           std::vector<int64_t> &begins, Traffic &back);
  moe_rt_status_t receive(size_t step, Traffic &traffic, int64_t round,
                          int64_t rounds, size_t besideEnd = 0);
  void takeRound(Traffic &traffic, int64_t round, int64_t rounds);
  void writeReceived(size_t step, const Traffic &traffic);
  moe_rt_status_t startRows(size_t step, const Traffic &traffic,
                            int64_t label = 0);
  moe_rt_status_t move(size_t step, const Traffic &traffic,
                       size_t besideEnd = 0);
  void pack(const Sent &sent, const Traffic &traffic, char *to);
  /// Copy rows to `to`: the next ones of `index`, if there is one, or of
  /// `from`.
  void copyRows(const char *from, const int32_t *index, int64_t count, char *to,
                uint64_t rowBytes) const;

  // Where all tokens go to all ranks.
  bool gathersTokens(size_t step) const;
  static uint64_t gatheredBytes(const ParallelFunction &function,
                                const moe_rt_group_t &group,
                                const CallMemory &memory,
                                const Exchange &exchange, int64_t tokens);
  moe_rt_status_t gatherTokens(const RoundTrip &trip, const Traffic &traffic);

  // Where all ranks have the same tokens.
  static uint64_t replicatedBytes(const ParallelFunction &function,
                                  const moe_rt_group_t &group, int64_t whole,
                                  int64_t own);
  moe_rt_status_t gatherOutputs();

  // Where rows are read, not sent.
  size_t mostShared() const;
  moe_rt_status_t readRows(size_t step, const Traffic &traffic,
                           size_t besideEnd);
  moe_rt_status_t readGathered(const char *from, char *to, uint64_t rowBytes);
  moe_rt_status_t cannotRead(size_t rank) const;
  moe_rt_status_t tellPlaces(size_t step, const Traffic &traffic,
                             bool inMeeting);
  moe_rt_status_t tellInMeeting(size_t step);
  moe_rt_status_t readFrom(size_t rank, const Sent &sent,
                           const SharedRows &place, int64_t rows, char *to);

  static int64_t sumOfParts(const std::vector<int64_t> &rows, int64_t parts);
  int64_t countReturns(const RoundTrip &trip, const int32_t *slots,
                       int64_t begin, int64_t rows) const;

  ParallelLayer &layer;
  const ParallelFunction &function;
  moe_rt_group_t &group;
  CallMemory memory;

  std::vector<BoundTensor> bound; // of the arguments of the layer
  SavedValues *saved = nullptr;   // to keep, or of an earlier call
  int64_t tokens = 0, allTokens = 0;
  int64_t wholeTokens = 0;       // that this rank was called with
  int64_t sliceBegin = 0;        // of `tokens` in these
  std::vector<int64_t> tokensOf; // of each rank
  std::vector<int64_t> received; // rows of each exchange that receives
  std::vector<int64_t> sends;    // rows to each rank in the last `checkSend`
  std::vector<int64_t> comes;    // rows from each rank, as `meet` has heard
  std::vector<int32_t> listed;   // rows to read, a copy of another rank's
  uint64_t packedBegin = 0;      // where rows to send are packed
  uint64_t receivedBegin = 0;    // where rows are received
  size_t copiedStep = SIZE_MAX;  // whose values are where others read them
  bool hasTold = false;          // the meeting said where rows to read are
  size_t current = 0;            // step
  bool isCommon = false;         // the error is one of all ranks
  StageTimer timer;
};

} // namespace moe::rt

#endif // MOE_RT_SRC_PARALLEL_PARALLEL_CALL_H
