"""The one exception of this package."""

from __future__ import annotations

# The codes of moe_rt_code_t (runtime/include/moe_rt/moe_rt.h).
INVALID_ARGUMENT = 3
DEADLINE_EXCEEDED = 4
NOT_FOUND = 5
RESOURCE_EXHAUSTED = 8
FAILED_PRECONDITION = 9
OUT_OF_RANGE = 11
UNIMPLEMENTED = 12
INTERNAL = 13
UNAVAILABLE = 14
DATA_LOSS = 15

_CODE_NAMES = {
    INVALID_ARGUMENT: "INVALID_ARGUMENT", NOT_FOUND: "NOT_FOUND",
    RESOURCE_EXHAUSTED: "RESOURCE_EXHAUSTED", FAILED_PRECONDITION: "FAILED_PRECONDITION",
    OUT_OF_RANGE: "OUT_OF_RANGE", UNIMPLEMENTED: "UNIMPLEMENTED", INTERNAL: "INTERNAL",
    DATA_LOSS: "DATA_LOSS", DEADLINE_EXCEEDED: "DEADLINE_EXCEEDED", UNAVAILABLE: "UNAVAILABLE",
}


class MoEError(Exception):
    """A failure of the compiler, the runtime or a call.

    Attributes:
      code: a ``moe_rt_code_t``, e.g. ``moe.INVALID_ARGUMENT``.
      message: what went wrong, without the code.
    """

    #: Whether the runtime said it, which then has told the other ranks of a group.
    _from_runtime = False

    def __init__(self, code: int, message: str):
        super().__init__(code, message)
        self.code = code
        self.message = message

    @property
    def code_name(self) -> str:
        return _CODE_NAMES.get(self.code, str(self.code))

    def __str__(self) -> str:
        return f"{self.code_name}: {self.message}"
