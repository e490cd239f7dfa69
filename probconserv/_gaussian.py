"""A Gaussian over a field some of whose values are known."""

from gpytorch.distributions import MultivariateNormal
from torch import Tensor


class FieldGaussian(MultivariateNormal):
    """A gpytorch ``MultivariateNormal`` whose variance is the diagonal of its covariance, to the last bit.

    The parent raises variances below 1e-10 (1e-6 in single precision) to that number and warns; a value that is known,
    as a prescribed boundary value is, has variance 0 here.
    """

    @property
    def variance(self) -> Tensor:
        """diag Σ ``(*batch, n)``."""
        return self.lazy_covariance_matrix.diagonal().expand(self.loc.shape)
