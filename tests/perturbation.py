"""Sums and products of PyTorch with one more rounding, to find tests that accept those of one machine alone.

``pytest --perturb`` multiplies every element that an operation below returns with 1 − ε, 1 or 1 + ε. A hash of its bits
says which, so that equal rows have equal results in any company and at any time. Whole numbers, halves and others whose
last bits are zero come from no rounding and stay. A test that compares bits which the code guarantees, and that would
see these factors, has the mark ``bits``, which says why, and runs without them.
"""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

OPERATIONS = frozenset(
    (
        *("mm", "bmm", "addmm", "addbmm", "baddbmm", "mv", "addmv", "addr", "dot", "vdot", "convolution"),
        *("sum", "mean", "cumsum", "prod", "cumprod", "logsumexp", "logcumsumexp", "_softmax", "_log_softmax"),
        *("var", "var_mean", "std", "std_mean", "linalg_vector_norm", "_fft_r2c", "_fft_c2r", "_fft_c2c"),
        *("linalg_cholesky_ex", "cholesky_solve", "cholesky_inverse", "linalg_qr", "_linalg_svd", "_linalg_eigh"),
        *("_linalg_solve_ex", "linalg_solve_triangular", "triangular_solve", "linalg_lu_factor_ex", "linalg_lu_solve"),
        *("linalg_lstsq", "linalg_inv_ex", "_linalg_det", "_linalg_slogdet", "linalg_eig", "linalg_lu"),
    )
)
"""Of ATen, without overload; what is not among them either rounds alike on every machine or is made of them."""
_MULTIPLIER = -7046029254386353131  # 2⁶⁴ over the golden ratio: neighbours have unrelated products
_BITS = {torch.float64: (torch.int64, 52), torch.float32: (torch.int32, 23), torch.float16: (torch.int16, 10)}
_BITS[torch.bfloat16] = torch.int16, 7


class Perturbation(TorchDispatchMode):
    """Within it every result of ``OPERATIONS`` has one more rounding, but for those inside a compiled graph."""

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Lets torch.compile work, which otherwise leaves all functions alone within a mode."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None) -> Any:
        """Calls the operation, or those it is made of, and perturbs the result in place."""
        kwargs = kwargs or {}
        if func.namespace == "aten":  # torch.export asks others, prim::device, for a tensor's attributes
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        result = func(*args, **kwargs)
        if func.overloadpacket.__name__.rstrip("_") in OPERATIONS:
            for leaf in tree_leaves(result):
                if isinstance(leaf, Tensor):
                    perturb(torch.view_as_real(leaf) if leaf.is_complex() else leaf)
        return result


def perturb(values: Tensor) -> None:
    """Multiplies in place by 1 + δ ε, δ ∈ {−1, 0, 1} by the bits of each value."""
    if values.dtype not in _BITS:
        return
    as_integer, mantissa = _BITS[values.dtype]
    bits = values.contiguous().view(as_integer).long()
    chosen = ((bits * _MULTIPLIER) >> 33) % 3 - 1
    rounded = bits % 2 ** (mantissa // 4) != 0
    values.mul_(1 + torch.finfo(values.dtype).eps * (chosen * rounded).to(values.dtype))
