"""Block means of fields, and the constraint layers that people put on a network's output to meet them.

The layers are those of Harder et al. 2023 (*Hard-Constrained Deep Learning for Climate Downscaling*, JMLR 24), section
4.2. Fields are ``(*batch, H, W)``, means ``(*batch, H/f, W/f)``.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate

Field = Float[Tensor, "batch rows columns"]


def means_of(field: Field, factor: int) -> Field:
    """The mean of every block of f × f points."""
    return avg_pool2d(field[:, None], factor)[:, 0]


def spread(means: Field, factor: int) -> Field:
    """A field that has a block's value at each of its points."""
    return means.repeat_interleave(factor, -1).repeat_interleave(factor, -2)


def bilinear(means: Field, factor: int) -> Field:
    """Bilinear interpolation between the centres of blocks, constant beyond the outermost."""
    return interpolate(means[:, None], scale_factor=factor, mode="bilinear")[:, 0]


def additive(field: Field, means: Field, factor: int) -> Field:
    """Adds to each block what its mean lacks: u + (b − mean u)."""
    return field + spread(means - means_of(field, factor), factor)


def multiplicative(field: Field, means: Field, factor: int) -> Field:
    """Scales each block to its mean: u · b / mean u; for fields whose block means do not vanish."""
    return field * spread(means / means_of(field, factor), factor)


def softmax(logits: Field, means: Field, factor: int) -> Field:
    """Divides each block's total by a softmax: exp ℓ · b / mean exp ℓ; for positive fields."""
    return multiplicative(torch.exp(logits - spread(means_of(logits, factor), factor)), means, factor)
