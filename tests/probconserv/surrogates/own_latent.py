"""Coordinates of a user: the fields themselves, centred and scaled, as published flows have them."""

import torch
from linear_operator.operators import DiagLinearOperator, LinearOperator, PsdSumLinearOperator, RootLinearOperator
from torch import Tensor

from probconserv.surrogates.flow import KarhunenLoeve, Latent


class Fields(Latent):
    """Fields whose covariance is that of a few modes and of an error at every point, with white noise."""

    scale: Tensor

    def __init__(self, fields: Tensor, size: int, error: float = 0.05) -> None:
        modes = KarhunenLoeve.of(fields, size)
        super().__init__(modes.shape, modes.shape)
        self.modes, self.error = modes, error
        self.register_buffer("scale", modes.root.square().sum(dim=0).mean().sqrt())

    def encode(self, fields: Tensor) -> Tensor:
        return ((self.flat(fields) - self.modes.mean) / self.scale).reshape(len(fields), *self.shape)

    def decode(self, z: Tensor) -> Tensor:
        return self.modes.mean + self.scale * z.to(torch.float64).flatten(1)

    def clean_covariance(self, t: float) -> LinearOperator:
        data, noise = self.modes.root.square().sum(dim=-1), ((1 - t) * self.scale) ** 2
        root = (noise / (t**2 * data + noise)).sqrt()[:, None] * self.modes.root
        left = ((self.error * self.scale) ** 2).expand(self.points)
        return PsdSumLinearOperator(RootLinearOperator(root.mT), DiagLinearOperator(left))
