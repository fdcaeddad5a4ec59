//===- ptx_lexer.h - The tokens of PTX --------------------------*- C++ -*-===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#ifndef MOE_CUDA_DOUBLE_PTX_LEXER_H
#define MOE_CUDA_DOUBLE_PTX_LEXER_H

#include <string_view>
#include <vector>

namespace moe::gpu {

struct Token {
  enum class Kind {
    Word,        // identifiers, directives, opcodes with qualifiers, numbers
    Punctuation, // one character
    String,      // with its quotes
    End,
  };
  Kind kind;
  std::string_view text;
  int line;

  bool is(char c) const {
    return kind == Kind::Punctuation && text.front() == c;
  }
  bool is(std::string_view word) const {
    return kind == Kind::Word && text == word;
  }
};

/// Splits a module into tokens. Skips comments and the debug directives that
/// end at the end of a line (.loc, .file). The last token is End.
std::vector<Token> tokenize(std::string_view source);

} // namespace moe::gpu

#endif // MOE_CUDA_DOUBLE_PTX_LEXER_H
