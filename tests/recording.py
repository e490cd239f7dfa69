"""The mark of tests that compile or export constraints, which older versions of PyTorch cannot."""

import pytest
import torch

from solvers.recording import TOO_OLD

records = pytest.mark.skipif(
    TOO_OLD, reason=f"torch.compile and torch.export of a constraint need torch 2.11, got {torch.__version__}"
)
