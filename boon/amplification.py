"""How much an operator amplifies noise in its input."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from boon.errors import InvalidArgumentError


def noise_gain(
    operator: Callable[[Tensor], Tensor],
    a: Float[Tensor, "batch channels *space"],
    noise: float = 1e-4,
    draws: int = 4,
    generator: Generator | None = None,
) -> float:
    """Response to white noise δ: the root mean square of N(a + δ) − N(a) over that of δ, dimensionless.

    For small noise it is ‖J‖/√n_out, J the Jacobian of one sample in the Frobenius norm, n_out the size of its output.
    An operator that differentiates has a gain that grows with the number of nodes; a sound one has one that does not.

    Args:
        operator: The operator as a function of its input field alone: ``lambda a: operator(a, boundary)``.
        a: Input fields.
        noise: Standard deviation of δ relative to the root mean square of a.
        draws: Number of fields δ.
        generator: Source of the random numbers; None means torch's global one.

    Raises:
        InvalidArgumentError: If the noise is not positive, there are no draws, or a is zero everywhere.
    """
    size = a.detach().square().mean().sqrt()
    if not (noise > 0 and draws >= 1 and bool(size > 0)):
        raise InvalidArgumentError(
            f"noise_gain needs noise > 0, at least one draw and a field that is not zero, got noise={noise}, "
            f"draws={draws} and a field of root mean square {float(size):.3g}."
        )
    with torch.no_grad():
        before, response, given = operator(a), [], []
        for _ in range(draws):
            delta = noise * size * torch.randn(a.shape, generator=generator, dtype=a.dtype).to(a.device)
            disturbed = a + delta
            response.append((operator(disturbed) - before).double().square().mean())
            given.append((disturbed - a).double().square().mean())  # in half precision less than delta, or none
        return float((torch.stack(response).sum() / torch.stack(given).sum()).sqrt())
