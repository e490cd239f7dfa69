"""Runs Python with other processor instructions than the libraries choose, and proves that numbers change with them.

    python -m tests.processors -m pytest tests/solvers
    python -m tests.processors MKL_CBWR=AVX2 ATEN_CPU_CAPABILITY=default -m pytest tests/solvers

The first takes the settings of ``slowest()``, which change numbers on processors of Intel and of AMD; the second, those
given. A library that does not know a setting ignores it, so a few numbers are computed first without and with them.
"""

import hashlib
import json
import os
import subprocess
import sys

import numpy as np


def slowest() -> dict[str, str]:
    """Settings that leave each library the instructions that every processor has."""
    features = np.show_config(mode="dicts")["SIMD Extensions"].get("found", [])  # type: ignore[index]
    return {
        "MKL_CBWR": "COMPATIBLE",
        "OPENBLAS_CORETYPE": "Nehalem",
        "ATEN_CPU_CAPABILITY": "default",
        "ONEDNN_MAX_CPU_ISA": "SSE41",
        "NUMBA_CPU_NAME": "generic",
        "NPY_DISABLE_CPU_FEATURES": " ".join(features),
    }


def numbers() -> dict[str, str]:
    """Digests of the bits of numbers that libraries round differently with other instructions."""
    import scipy.linalg
    import torch
    from numba import njit

    @njit(fastmath={"reassoc"})
    def dot(x, y):  # as in solvers/finite_volume/march/gradients.py
        total = 0.0
        for i in range(len(x)):
            total += x[i] * y[i]
        return total

    array = np.random.default_rng(0).standard_normal((65, 65))
    tensor = torch.from_numpy(array)
    image = tensor.float().expand(1, 3, -1, -1)
    computed = {
        "product of matrices, torch": tensor @ tensor,
        "product of matrices, torch, float32": tensor.float() @ tensor.float(),
        "linear system, torch": torch.linalg.solve(tensor, tensor[0]),
        "eigenvalues, torch": torch.linalg.eigvalsh(tensor + tensor.mT),
        "softmax, torch": tensor.softmax(-1),
        "Fourier transform, torch": torch.fft.rfft(tensor),
        "convolution, torch, float32": torch.nn.functional.conv2d(image, image[..., :3, :3]),
        "product of matrices, NumPy": array @ array,
        "exponential, NumPy": np.exp(array),
        "Cholesky factor, SciPy": scipy.linalg.cholesky(array @ array.T + 65 * np.eye(65)),
        "compiled sum, Numba": dot(array.ravel(), array.ravel()),
    }
    return {name: hashlib.sha256(np.asarray(value).tobytes()).hexdigest() for name, value in computed.items()}


def numbers_under(settings: dict[str, str]) -> dict[str, str]:
    """``numbers()`` of a process of its own, whose libraries start with these settings and no other."""
    inherited = {name: value for name, value in os.environ.items() if name not in slowest()}
    command = [sys.executable, "-c", "import json; from tests.processors import numbers; print(json.dumps(numbers()))"]
    return json.loads(subprocess.check_output(command, env=inherited | settings))


def main(arguments: list[str]) -> None:
    """Prints which numbers the settings change, and runs Python with them; exits where they change none."""
    count = next((i for i, argument in enumerate(arguments) if "=" not in argument), len(arguments))
    settings = dict(argument.split("=", 1) for argument in arguments[:count]) or slowest()
    before, after = numbers_under({}), numbers_under(settings)
    changed = [name for name in before if before[name] != after[name]]
    print(" ".join(f"{name}='{value}'" for name, value in settings.items()))
    print(f"change the bits of {len(changed)} of {len(before)} numbers: {'; '.join(changed)}", flush=True)
    if not changed:
        sys.exit("These settings change nothing on this processor: tests would run as they do without them.")
    os.execve(sys.executable, [sys.executable, *arguments[count:]], os.environ | settings)


if __name__ == "__main__":
    main(sys.argv[1:])
