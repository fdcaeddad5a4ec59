//===- progress.cpp - A progress bar --------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "moe_rt/io.h"

#include <chrono>
#include <cstdio>
#include <unistd.h>

using namespace moe::io;

static constexpr int64_t silentMilliseconds = 2000;
static constexpr int64_t redrawMilliseconds = 100;
static constexpr int width = 30;

static int64_t now() {
  using namespace std::chrono;
  return duration_cast<milliseconds>(steady_clock::now().time_since_epoch())
      .count();
}

ProgressBar::ProgressBar(std::string label)
    : label(std::move(label)), start(now()), terminal(isatty(STDERR_FILENO)) {}

ProgressBar::~ProgressBar() {
  if (shown)
    std::fputs("\r\033[K", stderr); // remove it again
}

void ProgressBar::update(uint64_t done, uint64_t total) {
  if (!terminal || total == 0)
    return;
  int64_t time = now();
  if (time - start < silentMilliseconds || time - shown < redrawMilliseconds)
    return;
  shown = time;
  double part = static_cast<double>(done) / static_cast<double>(total);
  int filled = static_cast<int>(part * width);
  std::fprintf(stderr, "\r%s [", label.c_str());
  for (int i = 0; i < width; ++i)
    std::fputc(i < filled ? '#' : '.', stderr);
  double elapsed = static_cast<double>(time - start) / 1000;
  std::fprintf(stderr, "] %3d%%, %.0f s left\033[K",
               static_cast<int>(part * 100),
               part > 0 ? elapsed * (1 - part) / part : 0.0);
  std::fflush(stderr);
}
