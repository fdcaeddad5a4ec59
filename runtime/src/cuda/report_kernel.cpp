//===- report_kernel.cpp - Check and add up reports -----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "cuda/report_kernel.h"

using namespace moe::rt;
using namespace moe::rt::cuda;

static constexpr unsigned blockSize = 256; // the source has it, too

// One block. It looks at all dispatches, by the rules of Statistics::check,
// before it counts any. A record is written under a lock that is tried once:
// who does not get it comes second. The lock is not the record's own word, as
// atomics on memory of the host are not to be had on every machine.
static const char source[] = R"(
.version 7.0
.target sm_80
.address_size 64

.visible .entry moe_rt_report(
    .param .u64 p_call, .param .u64 p_layer, .param .u64 p_entries,
    .param .u64 p_record, .param .u64 p_lock, .param .u32 p_count)
    .maxntid 256, 1, 1
{
  .reg .pred leader, done, bad;
  .reg .b32 thread, count, dispatch, expert, experts, counted;
  .reg .b32 from, to, first, kept, flag;
  .reg .b64 call, layer, entries, record, lock;
  .reg .b64 entry, offsets, counters, totals, at;
  .reg .b64 choices, invalid, padding, number;

  ld.param.u64 call, [p_call];
  ld.param.u64 layer, [p_layer];
  ld.param.u64 entries, [p_entries];
  ld.param.u64 record, [p_record];
  ld.param.u64 lock, [p_lock];
  ld.param.u32 count, [p_count];
  cvta.to.global.u64 call, call;
  cvta.to.global.u64 layer, layer;
  cvta.to.global.u64 entries, entries;
  cvta.to.global.u64 record, record;
  cvta.to.global.u64 lock, lock;
  mov.u32 thread, %tid.x;
  setp.eq.u32 leader, thread, 0;

  // Check every dispatch: offsets that begin at 0 and never descend,
  mov.u32 dispatch, 0;
Check:
  setp.ge.u32 done, dispatch, count;
  @done bra Count;
  mad.wide.u32 entry, dispatch, 32, entries;
  ld.global.u64 offsets, [entry];
  ld.global.u64 counters, [entry+8];
  ld.global.u32 experts, [entry+24];
  ld.global.u32 counted, [entry+28];
  add.u64 offsets, offsets, call;
  add.u64 counters, counters, call;
  setp.ne.u32 bad, thread, thread;
  mov.u32 expert, thread;
CheckExpert:
  setp.ge.u32 done, expert, experts;
  @done bra CheckCounters;
  mad.wide.u32 at, expert, 4, offsets;
  ld.global.u32 from, [at];
  ld.global.u32 to, [at+4];
  setp.gt.or.s32 bad, from, to, bad;
  add.u32 expert, expert, 256;
  bra CheckExpert;

  // and counters, if there are any, that they fit. All threads look, which costs
  // nothing.
CheckCounters:
  mad.wide.u32 at, experts, 4, offsets;
  ld.global.u32 first, [offsets];
  ld.global.u32 kept, [at];
  cvt.s64.s32 number, kept;
  mov.u64 choices, number;
  mov.u64 invalid, 0;
  setp.ne.u32 done, counted, 0;
  @done ld.global.u64 choices, [counters];
  @done ld.global.u64 invalid, [counters+8];
  setp.ne.or.s32 bad, first, 0, bad;
  setp.ne.or.s64 bad, invalid, 0, bad;
  setp.lt.or.s64 bad, choices, number, bad;
  mov.u64 padding, 0;
  setp.gt.u32 done, counted, 2;
  @done ld.global.u64 padding, [counters+16];
  setp.lt.or.s64 bad, padding, 0, bad;
  bar.red.or.pred bad, 0, bad;
  @bad bra Refuse;
  add.u32 dispatch, dispatch, 1;
  bra Check;

  // Add them to the totals.
Count:
  mov.u32 dispatch, 0;
CountDispatch:
  setp.ge.u32 done, dispatch, count;
  @done bra End;
  mad.wide.u32 entry, dispatch, 32, entries;
  ld.global.u64 offsets, [entry];
  ld.global.u64 counters, [entry+8];
  ld.global.u64 totals, [entry+16];
  ld.global.u32 experts, [entry+24];
  ld.global.u32 counted, [entry+28];
  add.u64 offsets, offsets, call;
  add.u64 counters, counters, call;
  add.u64 totals, totals, layer;
  mov.u32 expert, thread;
CountExpert:
  setp.ge.u32 done, expert, experts;
  @done bra CountCounters;
  mad.wide.u32 at, expert, 4, offsets;
  ld.global.u32 from, [at];
  ld.global.u32 to, [at+4];
  sub.s32 to, to, from;
  cvt.s64.s32 number, to;
  mad.wide.u32 at, expert, 8, totals;
  red.global.add.u64 [at+32], number;
  add.u32 expert, expert, 256;
  bra CountExpert;
CountCounters:
  @!leader bra CountNext;
  mad.wide.u32 at, experts, 4, offsets;
  ld.global.u32 kept, [at];
  cvt.s64.s32 number, kept;
  mov.u64 choices, number;
  setp.ne.u32 done, counted, 0;
  @done ld.global.u64 choices, [counters];
  red.global.add.u64 [totals], 1;
  red.global.add.u64 [totals+8], choices;
  sub.s64 number, choices, number;
  red.global.add.u64 [totals+16], number;
  setp.le.u32 done, counted, 2;
  @done bra CountNext;
  ld.global.u64 padding, [counters+16];
  red.global.add.u64 [totals+24], padding;
CountNext:
  add.u32 dispatch, dispatch, 1;
  bra CountDispatch;

  // Record the first bad one, unless there is an earlier one that nobody has
  // read.
Refuse:
  @!leader bra End;
  atom.global.cas.b32 flag, [lock], 0, 1;
  setp.ne.u32 done, flag, 0;
  @done bra End;
  membar.sys;
  ld.volatile.global.u32 flag, [record];
  setp.ne.u32 done, flag, 0;
  @done bra Unlock;
  st.volatile.global.u32 [record+4], dispatch;
  st.volatile.global.u64 [record+8], choices;
  st.volatile.global.u64 [record+16], invalid;
  st.volatile.global.u32 [record+24], first;
  st.volatile.global.u32 [record+28], kept;
  membar.sys;
  st.volatile.global.u32 [record], 1;
Unlock:
  membar.sys;
  st.volatile.global.u32 [lock], 0;
End:
  ret;
}
)";

moe_rt_status_t ReportKernel::load() {
  MOE_RT_TRY(image.load(source, "the kernel of the statistics"));
  return image.find("moe_rt_report", function);
}

moe_rt_status_t ReportKernel::launch(ReportParameters parameters,
                                     CUstream stream) const {
  void *pointers[] = {&parameters.call,    &parameters.layer,
                      &parameters.entries, &parameters.record,
                      &parameters.lock,    &parameters.count};
  CUlaunchConfig config = {};
  config.gridDimX = config.gridDimY = config.gridDimZ = 1;
  config.blockDimX = blockSize;
  config.blockDimY = config.blockDimZ = 1;
  config.hStream = stream;
  const Driver &driver = device.driver();
  return driver.check(
      driver.cuLaunchKernelEx(&config, function, pointers, nullptr),
      "start the kernel of the statistics");
}
