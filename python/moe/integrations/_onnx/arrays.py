"""Arrays of initializers of ONNX models, which may be in files of their own."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from ..._error import INVALID_ARGUMENT, MoEError

__all__ = ["array_of"]


def array_of(tensor: onnx.TensorProto, directory: str, where: str) -> np.ndarray:
    """Read an initializer; ``where`` begins the message of an error."""
    try:
        return numpy_helper.to_array(tensor, directory)
    except (OSError, ValueError, onnx.checker.ValidationError) as error:
        raise MoEError(INVALID_ARGUMENT, f"{where}cannot read '{tensor.name}': {error}") from error
