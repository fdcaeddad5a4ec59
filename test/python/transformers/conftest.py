"""What the tests of transformers' models share."""

from __future__ import annotations

import pytest


@pytest.fixture
def inference(compiled):
    """Compiled experts are registered with transformers, and nothing has a gradient."""
    import moe.integrations.transformers as ce
    import torch

    ce.register()
    with torch.no_grad():
        yield
