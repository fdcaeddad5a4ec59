//===- ptx_lexer.cpp - The tokens of PTX ----------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "ptx_lexer.h"
#include "machine/fault.h"

#include <cctype>

using namespace moe::gpu;

static bool isWord(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' ||
         c == '%' || c == '.';
}

std::vector<Token> moe::gpu::tokenize(std::string_view source) {
  std::vector<Token> tokens;
  size_t at = 0, size = source.size();
  int line = 1;
  auto peek = [&](size_t ahead) {
    return at + ahead < size ? source[at + ahead] : '\0';
  };
  auto skipLine = [&] {
    while (at < size && source[at] != '\n')
      ++at;
  };
  while (at < size) {
    char c = source[at];
    if (c == '\n')
      ++line;
    if (std::isspace(static_cast<unsigned char>(c)) || c == '\0') {
      ++at;
      continue;
    }
    if (c == '/' && peek(1) == '/') {
      skipLine();
      continue;
    }
    if (c == '/' && peek(1) == '*') {
      size_t end = source.find("*/", at + 2);
      if (end == std::string_view::npos)
        fail(CUDA_ERROR_INVALID_PTX, "line ", line, ": unterminated comment");
      for (; at < end + 2; ++at)
        line += source[at] == '\n';
      continue;
    }
    size_t begin = at;
    if (c == '"') {
      size_t end = source.find('"', at + 1);
      if (end == std::string_view::npos)
        fail(CUDA_ERROR_INVALID_PTX, "line ", line, ": unterminated string");
      at = end + 1;
      tokens.push_back(
          {Token::Kind::String, source.substr(begin, at - begin), line});
      continue;
    }
    if (isWord(c)) {
      // "::" is part of a qualifier, a single ":" ends a label. ".reg.b32" is
      // two tokens, "add.u32" is one.
      do
        at += peek(0) == ':' ? 2 : 1;
      while ((isWord(peek(0)) && !(c == '.' && peek(0) == '.')) ||
             (peek(0) == ':' && peek(1) == ':' && isWord(peek(2))));
      std::string_view word = source.substr(begin, at - begin);
      if (word == ".loc" || word == ".file") {
        skipLine();
        continue;
      }
      tokens.push_back({Token::Kind::Word, word, line});
      continue;
    }
    tokens.push_back({Token::Kind::Punctuation, source.substr(at, 1), line});
    ++at;
  }
  tokens.push_back({Token::Kind::End, source.substr(size, 0), line});
  return tokens;
}
