//===- decoder.cpp - Resolve operands and qualifiers ----------------------===//
//
// Licensed under the Apache License v2.0 with LLVM Exceptions.
// SPDX-License-Identifier: Apache-2.0 WITH LLVM-exception
//
//===----------------------------------------------------------------------===//

#include "decoder.h"

#include <algorithm>
#include <cstring>

using namespace moe::gpu;
using syntax::Operand;

Decoder::Decoder(FunctionDecoder &function, const syntax::Statement &statement,
                 Instruction &instruction)
    : out(instruction), function(function), statement(statement) {
  std::string_view rest = statement.opcode;
  size_t dot = rest.find('.');
  opcode = rest.substr(0, dot);
  while (dot != std::string_view::npos) {
    rest.remove_prefix(dot);
    dot = rest.find('.', 1);
    qualifiers.push_back(rest.substr(0, dot));
  }
}

//===----------------------------------------------------------------------===//
// Qualifiers
//===----------------------------------------------------------------------===//

bool Decoder::has(std::string_view qualifier) {
  auto found = std::find(qualifiers.begin(), qualifiers.end(), qualifier);
  if (found == qualifiers.end())
    return false;
  qualifiers.erase(found);
  return true;
}

void Decoder::need(std::string_view qualifier) {
  if (!has(qualifier))
    error("expected ", qualifier);
}

std::optional<Type> Decoder::optionalType() {
  for (auto it = qualifiers.begin(); it != qualifiers.end(); ++it)
    if (Type type = typeNamed(*it); type != Type::None) {
      qualifiers.erase(it);
      return type;
    }
  return std::nullopt;
}

Type Decoder::type() {
  std::optional<Type> found = optionalType();
  if (!found)
    error("expected a type");
  return *found;
}

std::optional<std::string_view> Decoder::startingWith(std::string_view prefix) {
  for (auto it = qualifiers.begin(); it != qualifiers.end(); ++it)
    if (it->substr(0, prefix.size()) == prefix) {
      std::string_view rest = it->substr(prefix.size());
      qualifiers.erase(it);
      return rest;
    }
  return std::nullopt;
}

Space Decoder::space() {
  if (has(".global"))
    return Space::Global;
  if (has(".shared::cluster"))
    return Space::SharedCluster;
  if (has(".shared") || has(".shared::cta"))
    return Space::Shared;
  if (has(".local"))
    return Space::Local;
  if (has(".param") || has(".param::entry") || has(".param::func"))
    return Space::Param;
  if (has(".const"))
    return Space::Const;
  return Space::Generic;
}

void Decoder::ignoreCacheHints() {
  static constexpr std::string_view hints[] = {".ca", ".cg", ".cs", ".lu",
                                               ".cv", ".wb", ".wt", ".nc"};
  for (std::string_view hint : hints)
    has(hint);
  while (startingWith(".L1::"))
    ;
  while (startingWith(".L2::"))
    ;
}

uint8_t Decoder::ordering() {
  static constexpr struct {
    std::string_view name;
    uint8_t order;
  } orders[] = {
      {".relaxed", StrongOrder},
      {".acquire", StrongOrder | AcquireOrder},
      {".release", StrongOrder | ReleaseOrder},
      {".acq_rel", StrongOrder | AcquireOrder | ReleaseOrder},
      {".sc", StrongOrder | AcquireOrder | ReleaseOrder},
      {".volatile", StrongOrder},
      {".mmio", StrongOrder},
  };
  uint8_t result = 0;
  for (const auto &entry : orders)
    if (has(entry.name))
      result |= entry.order;
  has(".weak");
  bool narrow = false;
  for (std::string_view scope : {".cta", ".cluster"})
    narrow |= has(scope);
  for (std::string_view scope : {".gpu", ".sys"})
    has(scope);
  return narrow ? result : result | DeviceScope;
}

void Decoder::finish() {
  if (!qualifiers.empty())
    error("unknown qualifier ", qualifiers[0], " of ", opcode);
}

//===----------------------------------------------------------------------===//
// Operands
//===----------------------------------------------------------------------===//

void Decoder::expectOperands(size_t least, size_t most) {
  if (operands() < least || operands() > most)
    error("wrong number of operands");
}

int64_t Decoder::immediate(size_t i) {
  if (operand(i).kind != Operand::Kind::Integer)
    error("operand ", i + 1, " must be an integer");
  return static_cast<int64_t>(operand(i).bits);
}

uint32_t Decoder::constant(uint64_t bits, int width) {
  return function.constant(bits, width);
}
uint32_t Decoder::special(Special which, uint32_t index) {
  return function.special(which, index);
}
const uint32_t *Decoder::keep(std::vector<uint32_t> list) {
  return function.result.keep(std::move(list));
}
void Decoder::keepData(std::shared_ptr<const void> data) {
  function.result.data.push_back(std::move(data));
}
uint32_t Decoder::newSite() { return function.module.sites++; }

int Decoder::registerBits(const Operand &operand) {
  if (operand.kind != Operand::Kind::Name)
    return 0;
  const RegisterInfo *info =
      function.findRegister(operand.name, statement.scope);
  return info ? bitsOf(info->type) : 0;
}

static const struct {
  std::string_view name;
  Special which;
} specialNames[] = {
    {"%tid.x", Special::TidX},
    {"%tid.y", Special::TidY},
    {"%tid.z", Special::TidZ},
    {"%ntid.x", Special::NtidX},
    {"%ntid.y", Special::NtidY},
    {"%ntid.z", Special::NtidZ},
    {"%ctaid.x", Special::CtaidX},
    {"%ctaid.y", Special::CtaidY},
    {"%ctaid.z", Special::CtaidZ},
    {"%nctaid.x", Special::NctaidX},
    {"%nctaid.y", Special::NctaidY},
    {"%nctaid.z", Special::NctaidZ},
    {"%laneid", Special::LaneId},
    {"%warpid", Special::WarpId},
    {"%nwarpid", Special::NwarpId},
    {"%smid", Special::SmId},
    {"%nsmid", Special::NsmId},
    {"%gridid", Special::GridId},
    {"%is_explicit_cluster", Special::IsExplicitCluster},
    {"%clusterid.x", Special::ClusterIdX},
    {"%clusterid.y", Special::ClusterIdY},
    {"%clusterid.z", Special::ClusterIdZ},
    {"%nclusterid.x", Special::NclusterIdX},
    {"%nclusterid.y", Special::NclusterIdY},
    {"%nclusterid.z", Special::NclusterIdZ},
    {"%cluster_ctaid.x", Special::ClusterCtaidX},
    {"%cluster_ctaid.y", Special::ClusterCtaidY},
    {"%cluster_ctaid.z", Special::ClusterCtaidZ},
    {"%cluster_nctaid.x", Special::ClusterNctaidX},
    {"%cluster_nctaid.y", Special::ClusterNctaidY},
    {"%cluster_nctaid.z", Special::ClusterNctaidZ},
    {"%cluster_ctarank", Special::ClusterCtarank},
    {"%cluster_nctarank", Special::ClusterNctarank},
    {"%lanemask_eq", Special::LanemaskEq},
    {"%lanemask_le", Special::LanemaskLe},
    {"%lanemask_lt", Special::LanemaskLt},
    {"%lanemask_ge", Special::LanemaskGe},
    {"%lanemask_gt", Special::LanemaskGt},
    {"%dynamic_smem_size", Special::DynamicSmemSize},
    {"%total_smem_size", Special::TotalSmemSize},
};

/// Converts a literal to the bits of a type.
static uint64_t literal(const Operand &operand, Type type) {
  if (type == Type::Pred)
    return operand.bits != 0;
  if (operand.kind == Operand::Kind::Integer)
    return operand.bits;
  if (bitsOf(type) == 64) {
    if (operand.floatBits == 64)
      return operand.bits;
    double value = operand.real;
    uint64_t bits;
    std::memcpy(&bits, &value, 8);
    return bits;
  }
  if (operand.floatBits == 32)
    return operand.bits;
  float value = static_cast<float>(operand.real);
  uint32_t bits;
  std::memcpy(&bits, &value, 4);
  return bits;
}

uint32_t Decoder::source(const Operand &operand, Type type, Width width) {
  int bits = std::max(bitsOf(type), 1);
  switch (operand.kind) {
  case Operand::Kind::Integer:
  case Operand::Kind::Float:
    return constant(literal(operand, type), type == Type::Pred ? 32 : bits);
  case Operand::Kind::Name:
    break;
  default:
    error("expected a register or a constant");
  }
  if (operand.negated)
    error("operand '", operand.name, "' cannot be negated here");
  if (const RegisterInfo *info =
          function.findRegister(operand.name, statement.scope)) {
    if (operand.offset != 0)
      error("a register with an offset outside of an address");
    int have = bitsOf(info->type);
    // 8-bit operands are in wider registers.
    if (width == Exact && bits >= 16 ? have != bits : have < bits)
      error("'", operand.name, "' has ", have, " bits, not ", bits);
    return info->slot;
  }
  for (const auto &entry : specialNames)
    if (entry.name == operand.name)
      return special(entry.which);
  if (operand.name == "WARP_SZ")
    return constant(32, bits);
  if (operand.name[0] == '%')
    error("unknown register '", operand.name, "'");
  error("'", operand.name, "' is not a register");
}

uint32_t Decoder::source(size_t i, Type type, Width width) {
  return source(operand(i), type, width);
}

uint32_t Decoder::destination(const Operand &operand, Type type, Width width) {
  if (operand.kind == Operand::Kind::Sink)
    return 0;
  if (operand.kind != Operand::Kind::Name || operand.negated)
    error("expected a register for the result");
  const RegisterInfo *info =
      function.findRegister(operand.name, statement.scope);
  if (!info)
    error("unknown register '", operand.name, "'");
  int bits = bitsOf(type), have = bitsOf(info->type);
  if (width == Exact && bits != 8 ? have != bits : have < bits)
    error("'", operand.name, "' has ", have, " bits, not ", bits);
  return info->slot;
}

uint32_t Decoder::destination(size_t i, Type type, Width width) {
  return destination(operand(i), type, width);
}

std::vector<uint32_t> Decoder::sources(size_t i, Type type, Width width) {
  std::vector<uint32_t> slots;
  if (isVector(i))
    for (const Operand &part : operand(i).parts)
      slots.push_back(source(part, type, width));
  else
    slots.push_back(source(i, type, width));
  return slots;
}

std::vector<uint32_t> Decoder::destinations(size_t i, Type type, Width width) {
  std::vector<uint32_t> slots;
  if (isVector(i))
    for (const Operand &part : operand(i).parts)
      slots.push_back(destination(part, type, width));
  else
    slots.push_back(destination(i, type, width));
  return slots;
}

uint32_t Decoder::predicate(const Operand &operand, uint8_t *negated) {
  if (operand.kind != Operand::Kind::Name)
    return source(operand, Type::Pred);
  if (operand.negated && !negated)
    error("operand '", operand.name, "' cannot be negated here");
  if (negated)
    *negated = operand.negated;
  Operand plain = operand;
  plain.negated = false;
  return source(plain, Type::Pred);
}

Decoder::Address Decoder::address(const Operand &operand, Space space) {
  if (operand.kind != Operand::Kind::Address)
    error("expected an address");
  Address result;
  result.space = space;
  result.offset = operand.offset;
  const Operand &base = operand.parts[0];
  if (base.kind == Operand::Kind::Integer) {
    result.offset += static_cast<int64_t>(base.bits);
    return result;
  }
  if (base.kind != Operand::Kind::Name)
    error("malformed address");
  if (const RegisterInfo *info =
          function.findRegister(base.name, statement.scope)) {
    int bits = bitsOf(info->type);
    if (bits != 32 && bits != 64)
      error("an address of ", bits, " bits");
    if (bits == 32 && (space == Space::Generic || space == Space::Global))
      error("an address of 32 bits in a space of 64 bits");
    result.base = info->slot;
    result.narrow = bits == 32;
    return result;
  }
  Address variable;
  if (!function.findVariable(base.name, statement.scope, variable))
    error("unknown name '", base.name, "'");
  bool shared = variable.space == Space::Shared;
  if (space != Space::Generic && space != variable.space &&
      !(space == Space::SharedCluster && shared) &&
      !(space == Space::Param && variable.space == Space::Local))
    error("'", base.name, "' is in another state space");
  variable.offset += operand.offset;
  if (space == Space::SharedCluster)
    variable.space = space;
  return variable;
}

Decoder::Address Decoder::address(size_t i, Space space) {
  return address(operand(i), space);
}

void Decoder::setAddress(const Address &address) {
  out.a = address.base;
  out.offset = address.offset;
  out.flags[0] = address.narrow;
  out.flags[1] = static_cast<uint8_t>(address.space);
}
