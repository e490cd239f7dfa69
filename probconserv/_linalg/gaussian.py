"""A Gaussian over a field with prescribed values."""

from gpytorch.distributions import MultivariateNormal
from torch import Tensor


class FieldGaussian(MultivariateNormal):
    """A gpytorch ``MultivariateNormal`` whose variance is the diagonal of its covariance, to the last bit.

    The parent class raises variances below 1e-10 (1e-6 in single precision) to that number and warns. Here a prescribed
    value, such as a boundary value, keeps variance 0.
    """

    @property
    def variance(self) -> Tensor:
        """diag Σ ``(*batch, n)``."""
        return self.lazy_covariance_matrix.diagonal().expand(self.loc.shape)
