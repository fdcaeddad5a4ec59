//===- ptx_parser.cpp - Parse PTX -----------------------------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "machine/fault.h"
#include "ptx_lexer.h"
#include "ptx_syntax.h"

#include <cstdlib>
#include <cstring>

using namespace moe::gpu;
using namespace moe::gpu::syntax;

static constexpr struct {
  std::string_view name;
  Type type;
  int bits;
} typeNames[] = {
    {".pred", Type::Pred, 1},      {".b8", Type::B8, 8},
    {".b16", Type::B16, 16},       {".b32", Type::B32, 32},
    {".b64", Type::B64, 64},       {".b128", Type::B128, 128},
    {".u8", Type::U8, 8},          {".u16", Type::U16, 16},
    {".u32", Type::U32, 32},       {".u64", Type::U64, 64},
    {".s8", Type::S8, 8},          {".s16", Type::S16, 16},
    {".s32", Type::S32, 32},       {".s64", Type::S64, 64},
    {".u16x2", Type::U16x2, 32},   {".s16x2", Type::S16x2, 32},
    {".f16", Type::F16, 16},       {".f16x2", Type::F16x2, 32},
    {".bf16", Type::BF16, 16},     {".bf16x2", Type::BF16x2, 32},
    {".tf32", Type::TF32, 32},     {".f32", Type::F32, 32},
    {".f64", Type::F64, 64},       {".e4m3", Type::E4M3, 8},
    {".e5m2", Type::E5M2, 8},      {".e4m3x2", Type::E4M3x2, 16},
    {".e5m2x2", Type::E5M2x2, 16},
};

Type moe::gpu::typeNamed(std::string_view qualifier) {
  for (const auto &entry : typeNames)
    if (entry.name == qualifier)
      return entry.type;
  return Type::None;
}

int moe::gpu::bitsOf(Type type) {
  for (const auto &entry : typeNames)
    if (entry.type == type)
      return entry.bits;
  return 0;
}

bool moe::gpu::isSigned(Type type) {
  return type >= Type::S8 && type <= Type::S64;
}

bool moe::gpu::isFloat(Type type) { return type >= Type::F16; }

namespace {

class Parser {
public:
  explicit Parser(Module &module)
      : module(module), tokens(tokenize(module.source)) {}

  void parse();

private:
  const Token &peek(size_t ahead = 0) const {
    return tokens[std::min(at + ahead, tokens.size() - 1)];
  }
  const Token &next() {
    const Token &token = peek();
    if (at + 1 < tokens.size())
      ++at;
    return token;
  }
  template <typename T> bool accept(T what) {
    if (!peek().is(what))
      return false;
    next();
    return true;
  }
  void expect(char c) {
    if (!accept(c))
      error("expected '", c, "' but found '", peek().text, "'");
  }
  std::string_view word() {
    if (peek().kind != Token::Kind::Word)
      error("expected a name but found '", peek().text, "'");
    return next().text;
  }
  template <typename... Args> [[noreturn]] void error(const Args &...args) {
    fail(CUDA_ERROR_INVALID_PTX, "line ", peek().line, ": ", args...);
  }

  uint64_t integer();
  void number(Operand &operand, bool negative);
  Operand operand();
  Operand address();
  void operands(std::vector<Operand> &list, char end);

  void skipTo(char end);
  void skipBraces();
  Variable variable(Space space, int scope, bool external);
  void initializer(Variable &variable, uint64_t elementBytes);
  void dimensions(uint32_t (&extents)[3]);
  void function(bool entry);
  void parameters(std::vector<Variable> &list);
  void tuning(Function &function);
  void body(Function &function);
  void registers(Function &function, int scope);
  void statement(Function &function, int scope);

  Module &module;
  std::vector<Token> tokens;
  size_t at = 0;
};

} // namespace

static bool isDigit(char c) { return c >= '0' && c <= '9'; }

uint64_t Parser::integer() {
  Operand value;
  number(value, accept('-'));
  if (value.kind != Operand::Kind::Integer)
    error("expected an integer");
  return value.bits;
}

/// Parses a literal (PTX ISA 4.5 "Constants").
void Parser::number(Operand &operand, bool negative) {
  std::string text(word());
  if (!isDigit(text[0]))
    error("expected a number but found '", text, "'");
  char *end = nullptr;
  char kind = text.size() > 1 ? text[1] : '\0';
  if (text[0] == '0' &&
      (kind == 'f' || kind == 'F' || kind == 'd' || kind == 'D')) {
    uint64_t bits = std::strtoull(text.c_str() + 2, &end, 16);
    bool single = kind == 'f' || kind == 'F';
    operand.kind = Operand::Kind::Float;
    operand.floatBits = single ? 32 : 64;
    if (single) {
      uint32_t low = static_cast<uint32_t>(bits);
      float value;
      std::memcpy(&value, &low, 4);
      operand.real = value;
      // A conversion could change the bits of a NaN.
      operand.bits = bits;
    } else {
      std::memcpy(&operand.real, &bits, 8);
      operand.bits = bits;
    }
    if (negative) {
      operand.real = -operand.real;
      operand.bits ^= uint64_t(1) << (operand.floatBits - 1);
    }
  } else if (text.find('.') != std::string::npos) {
    operand.kind = Operand::Kind::Float;
    operand.floatBits = 64;
    operand.real = std::strtod(text.c_str(), &end);
    if (negative)
      operand.real = -operand.real;
    std::memcpy(&operand.bits, &operand.real, 8);
  } else {
    bool binary = text[0] == '0' && (kind == 'b' || kind == 'B');
    operand.kind = Operand::Kind::Integer;
    operand.bits =
        std::strtoull(text.c_str() + (binary ? 2 : 0), &end, binary ? 2 : 0);
    if (*end == 'U')
      ++end;
    if (negative)
      operand.bits = -operand.bits;
  }
  if (*end != '\0')
    error("malformed number '", text, "'");
}

void Parser::operands(std::vector<Operand> &list, char end) {
  if (accept(end))
    return;
  do
    list.push_back(operand());
  while (accept(','));
  expect(end);
}

/// Parses an address after its "[".
Operand Parser::address() {
  Operand result;
  result.kind = Operand::Kind::Address;
  result.parts.push_back(operand());
  Operand &base = result.parts[0];
  std::swap(result.offset, base.offset);
  while (accept(','))
    result.parts.push_back(operand());
  expect(']');
  return result;
}

Operand Parser::operand() {
  Operand result;
  if (accept('[')) {
    result = address();
  } else if (accept('{')) {
    result.kind = Operand::Kind::Vector;
    operands(result.parts, '}');
  } else if (accept('(')) {
    result.kind = Operand::Kind::List;
    operands(result.parts, ')');
  } else {
    bool inverted = accept('!');
    bool negative = accept('-');
    if (peek().kind != Token::Kind::Word)
      error("unexpected '", peek().text, "'");
    if (isDigit(peek().text[0])) {
      number(result, negative);
    } else {
      result.name = word();
      result.kind =
          result.name == "_" ? Operand::Kind::Sink : Operand::Kind::Name;
      result.negated = inverted || negative;
    }
    if (peek().is('+') || peek().is('-')) {
      bool minus = next().is('-');
      // LLVM writes a negative offset as "[%r1+-8]".
      if (accept('-'))
        minus = !minus;
      int64_t offset = static_cast<int64_t>(integer());
      result.offset = minus ? -offset : offset;
    }
  }
  if (accept('|')) {
    Operand pair;
    pair.kind = Operand::Kind::Pair;
    pair.parts.push_back(std::move(result));
    pair.parts.push_back(operand());
    return pair;
  }
  return result;
}

void Parser::skipTo(char end) {
  while (!peek().is(end)) {
    if (peek().kind == Token::Kind::End)
      error("unexpected end of the module");
    next();
  }
  next();
}

/// Skips a section of debug information.
void Parser::skipBraces() {
  skipTo('{');
  for (int depth = 1; depth > 0;) {
    if (peek().kind == Token::Kind::End)
      error("unexpected end of the module");
    const Token &token = next();
    depth += token.is('{') - token.is('}');
  }
}

static bool spaceNamed(std::string_view word, Space &space) {
  static constexpr struct {
    std::string_view name;
    Space space;
  } names[] = {{".global", Space::Global},
               {".shared", Space::Shared},
               {".local", Space::Local},
               {".const", Space::Const},
               {".param", Space::Param}};
  for (const auto &entry : names)
    if (entry.name == word) {
      space = entry.space;
      return true;
    }
  return false;
}

/// Parses an initialiser: a value or a list in braces.
void Parser::initializer(Variable &variable, uint64_t elementBytes) {
  auto append = [&](uint64_t bits) {
    for (uint64_t i = 0; i < elementBytes; ++i)
      variable.bytes.push_back(static_cast<uint8_t>(bits >> (8 * i)));
  };
  if (accept('{')) {
    do
      initializer(variable, elementBytes);
    while (accept(','));
    expect('}');
    return;
  }
  if (peek().kind == Token::Kind::Word && !isDigit(peek().text[0])) {
    Variable::Relocation relocation = {variable.bytes.size(), word(), 0, false};
    if (relocation.symbol == "generic") {
      relocation.generic = true;
      expect('(');
      relocation.symbol = word();
      if (accept('+'))
        relocation.offset = static_cast<int64_t>(integer());
      expect(')');
    }
    if (accept('+'))
      relocation.offset = static_cast<int64_t>(integer());
    variable.relocations.push_back(relocation);
    append(0);
    return;
  }
  Operand value;
  number(value, accept('-'));
  if (value.kind == Operand::Kind::Float && elementBytes == 4 &&
      value.floatBits == 64) {
    float single = static_cast<float>(value.real);
    uint32_t bits;
    std::memcpy(&bits, &single, 4);
    value.bits = bits;
  }
  append(value.bits);
}

/// Parses a variable or parameter from after its state space up to the
/// semicolon, comma or parenthesis that ends it, exclusively.
Variable Parser::variable(Space space, int scope, bool external) {
  Variable result;
  result.space = space;
  result.scope = scope;
  result.external = external;
  Type type = Type::None;
  int vector = 1;
  while (peek().kind == Token::Kind::Word && peek().text[0] == '.') {
    std::string_view qualifier = word();
    if (qualifier == ".align") {
      result.align = integer();
    } else if (qualifier == ".v2" || qualifier == ".v4") {
      vector = qualifier[2] - '0';
    } else if (qualifier == ".ptr" || qualifier == ".attribute" ||
               qualifier == ".unified" || qualifier == ".managed") {
      if (qualifier == ".attribute" && accept('('))
        skipTo(')');
    } else if (Type named = typeNamed(qualifier); named != Type::None) {
      type = named;
    } else if (Space pointee; !spaceNamed(qualifier, pointee)) {
      error("unknown qualifier '", qualifier, "' of a variable");
    }
  }
  if (type == Type::None)
    error("a variable without a type");
  uint64_t element = static_cast<uint64_t>((bitsOf(type) + 7) / 8);
  if (result.align < element * vector)
    result.align = std::max<uint64_t>(result.align, element * vector);
  result.name = word();
  uint64_t count = static_cast<uint64_t>(vector);
  bool open = false;
  while (accept('[')) {
    if (accept(']')) {
      open = true;
      continue;
    }
    count *= integer();
    expect(']');
  }
  result.size = open ? 0 : element * count;
  if (accept('=')) {
    initializer(result, element);
    if (open)
      result.size = result.bytes.size();
    if (result.bytes.size() > result.size)
      error("too many initialisers of '", result.name, "'");
  }
  return result;
}

void Parser::dimensions(uint32_t (&extents)[3]) {
  for (uint32_t &extent : extents)
    extent = 1;
  extents[0] = static_cast<uint32_t>(integer());
  for (int i = 1; i < 3 && accept(','); ++i)
    extents[i] = static_cast<uint32_t>(integer());
}

void Parser::parameters(std::vector<Variable> &list) {
  if (accept(')'))
    return;
  do {
    if (accept(".reg")) {
      error("parameters in registers are not supported");
    }
    if (!accept(".param"))
      error("expected .param but found '", peek().text, "'");
    list.push_back(variable(Space::Param, 0, false));
  } while (accept(','));
  expect(')');
}

void Parser::tuning(Function &function) {
  while (peek().kind == Token::Kind::Word && peek().text[0] == '.') {
    std::string_view name = word();
    if (name == ".maxntid")
      dimensions(function.maxThreads);
    else if (name == ".reqntid")
      dimensions(function.requiredThreads);
    else if (name == ".reqnctapercluster")
      dimensions(function.clusterSize);
    else if (name == ".minnctapersm")
      function.minBlocks = static_cast<uint32_t>(integer());
    else if (name == ".maxnreg")
      function.maxRegisters = static_cast<uint32_t>(integer());
    else if (name == ".maxclusterrank")
      integer();
    else if (name == ".explicitcluster")
      function.explicitCluster = true;
    else if (name == ".blocksareclusters")
      function.blocksAreClusters = true;
    else if (name == ".pragma")
      skipTo(';');
    else if (name != ".noreturn")
      error("unknown directive '", name, "' of a function");
  }
}

void Parser::function(bool entry) {
  auto result = std::make_unique<Function>();
  result->entry = entry;
  result->line = peek().line;
  if (accept('('))
    parameters(result->results);
  result->name = word();
  if (accept('('))
    parameters(result->parameters);
  tuning(*result);
  if (!accept(';')) {
    expect('{');
    result->defined = true;
    body(*result);
  }
  module.functions.push_back(std::move(result));
}

void Parser::registers(Function &function, int scope) {
  Type type = typeNamed(word());
  if (type == Type::None)
    error("a register without a type");
  do {
    Register declared;
    declared.scope = scope;
    declared.type = type;
    declared.name = word();
    if (accept('<')) {
      declared.count = static_cast<int>(integer());
      expect('>');
    }
    function.registers.push_back(declared);
  } while (accept(','));
  expect(';');
}

void Parser::statement(Function &function, int scope) {
  Statement result;
  result.scope = scope;
  result.line = peek().line;
  if (accept('@')) {
    result.guardNegated = accept('!');
    result.guard = word();
  }
  const char *begin = peek().text.data();
  result.opcode = word();
  while (!peek().is(';')) {
    result.operands.push_back(operand());
    if (!accept(','))
      break;
  }
  result.text =
      std::string_view(begin, static_cast<size_t>(peek().text.data() - begin));
  expect(';');
  function.statements.push_back(std::move(result));
}

void Parser::body(Function &function) {
  function.scopes.push_back(-1);
  int scope = 0;
  while (true) {
    if (peek().kind == Token::Kind::End)
      error("unexpected end of the module");
    if (accept('{')) {
      function.scopes.push_back(scope);
      scope = static_cast<int>(function.scopes.size()) - 1;
      continue;
    }
    if (accept('}')) {
      scope = function.scopes[scope];
      if (scope < 0)
        return;
      continue;
    }
    if (accept(';'))
      continue;
    if (peek().kind == Token::Kind::Word && peek(1).is(':')) {
      std::string_view name = word();
      expect(':');
      if (accept(".branchtargets")) {
        BranchTargets targets = {scope, name, {}};
        do
          targets.labels.push_back(word());
        while (accept(','));
        expect(';');
        function.targets.push_back(std::move(targets));
      } else if (peek().is(".callprototype") || peek().is(".calltargets")) {
        skipTo(';');
      } else {
        function.labels.push_back({scope, name, function.statements.size()});
      }
      continue;
    }
    Space space;
    if (accept(".reg")) {
      registers(function, scope);
    } else if (peek().kind == Token::Kind::Word &&
               spaceNamed(peek().text, space)) {
      next();
      do
        function.variables.push_back(variable(space, scope, false));
      while (accept(','));
      expect(';');
    } else if (accept(".pragma")) {
      skipTo(';');
    } else {
      statement(function, scope);
    }
  }
}

void Parser::parse() {
  while (peek().kind != Token::Kind::End) {
    if (accept(';') || accept(".visible") || accept(".weak") ||
        accept(".common"))
      continue;
    bool external = accept(".extern");
    Space space;
    if (accept(".version")) {
      std::string version(word());
      if (std::sscanf(version.c_str(), "%d.%d", &module.versionMajor,
                      &module.versionMinor) != 2)
        error("malformed version '", version, "'");
    } else if (accept(".target")) {
      module.target = word();
      while (accept(','))
        word();
    } else if (accept(".address_size")) {
      if (integer() != 64)
        error("only .address_size 64 is supported");
    } else if (accept(".entry")) {
      function(true);
    } else if (accept(".func")) {
      function(false);
    } else if (accept(".section")) {
      skipBraces();
    } else if (accept(".pragma")) {
      skipTo(';');
    } else if (peek().kind == Token::Kind::Word &&
               spaceNamed(peek().text, space)) {
      next();
      module.variables.push_back(variable(space, 0, external));
      expect(';');
    } else {
      error("unknown directive '", peek().text, "'");
    }
  }
  if (module.versionMajor == 0 || module.target.empty())
    error("a module without .version and .target");
}

std::unique_ptr<Module> moe::gpu::parsePtx(std::string source) {
  auto module = std::make_unique<Module>();
  module->source = std::move(source);
  Parser(*module).parse();
  return module;
}
