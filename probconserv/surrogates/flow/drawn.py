"""Predictions that are draws: fields from a generative model at the query points."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from probconserv._linalg.gaussian import FieldGaussian
from probconserv.errors import InvalidArgumentError
from probconserv.update import from_samples


class DrawnFields(FieldGaussian):
    """Draws ``(s, *batch, q)`` as a prediction: its samples are draws, its mean and covariance theirs.

    It can stand wherever a Gaussian can: ``condition`` reads it as the Gaussian of its mean and covariance.

    Args:
        draws: Fields, at least two.
        noise_variance: Variance added at every point, so that the covariance of few draws is not singular.
    """

    def __init__(self, draws: Float[Tensor, "s *batch q"], noise_variance: float | Tensor = 0.0) -> None:
        gaussian = from_samples(draws, noise_variance)
        super().__init__(gaussian.mean, gaussian.lazy_covariance_matrix)
        self.draws = draws

    def rsample(
        self,
        sample_shape: Sequence[int] = torch.Size(),
        base_samples: Tensor | None = None,
        *,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draws, chosen at random with repetitions: whole fields, with the correlations between their points.

        Args:
            sample_shape: Shape of the set of draws.
            base_samples: Must be None, since draws are no function of normal numbers.
            generator: Source of random numbers.

        Returns:
            Draws ``(*sample_shape, *batch, q)``.

        Raises:
            InvalidArgumentError: If ``base_samples`` is given.
        """
        if base_samples is not None:
            raise InvalidArgumentError("Drawn fields are no function of normal numbers; leave base_samples out.")
        shape = torch.Size(sample_shape)
        batch = self.draws.shape[1:-1]
        index = torch.randint(len(self.draws), (shape.numel(), *batch), generator=generator)
        chosen = self.draws.gather(0, index[..., None].expand(*index.shape, self.draws.shape[-1]))
        return chosen.reshape(*shape, *self.draws.shape[1:])
