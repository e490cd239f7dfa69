"""How what a balance misses in a step is spread over the field."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from gpytorch.distributions import MultivariateNormal
from jaxtyping import Float
from linear_operator.operators import (
    DenseLinearOperator,
    DiagLinearOperator,
    LinearOperator,
    PsdSumLinearOperator,
    RootLinearOperator,
)
from torch import Tensor
from torch.distributions import Normal

from probconserv._linalg.covariance import covariance_of
from probconserv._linalg.gain import factorise
from probconserv._linalg.values import as_tensor, square_root
from probconserv.errors import DependentConstraintsError, IncompatibleQueryError, InvalidArgumentError
from probconserv.fitted.covariance import FittedCovariance
from probconserv.rollout.wall_response import WallResponse, operators_with_walls
from probconserv.sampling import draw
from solvers.recording import are_readable


@dataclass(frozen=True, kw_only=True, eq=False)
class StepUpdate:
    """The metric of the update, and what of the law is uncertain.

    Args:
        covariance: Σ of the operator's error in one step: variances ``(c, *space)``, or a covariance over all channels
            and points, such as that of ``fit_covariance``. Without it every value of a channel moves by the same amount
            (HardC); around an operator that meets walls, by the response of its walls.
        fixed: Values that do not move, ``(*space)`` or ``(c, *space)``. Walls that an operator with a ``response``
            meets, as those of ``boon`` have, do not leave what they meet in any case.
        total_variance: Variance of the operator's error of the totals in one step, a number or ``(k,)``, where there is
            no covariance; that of the law is weighed against it.
        noise_variance: σ² of the balance of a step, a number or ``(k,)``, added to that of the trapezoid rule. Without
            a covariance or a total_variance the balance is exact.
    """

    covariance: Float[Tensor, "..."] | LinearOperator | FittedCovariance | None = None
    fixed: Tensor | None = None
    total_variance: float | Float[Tensor, " k"] | None = None
    noise_variance: float | Float[Tensor, " k"] = 0.0

    def __post_init__(self) -> None:
        for name in ("noise_variance", "total_variance"):
            value = getattr(self, name)
            if value is not None and not bool(((given := as_tensor(value)) >= 0).all() and given.isfinite().all()):
                raise InvalidArgumentError(f"{name} must be finite and not negative, got {value}.")
        noisy = bool((as_tensor(self.noise_variance) != 0).any())
        if noisy and not self.has_scale:
            raise InvalidArgumentError(
                "A noise_variance of the balance is weighed against the error of the operator; give its covariance or "
                "total_variance as well, for instance those that diagnose finds."
            )

    @property
    def has_scale(self) -> bool:
        """Whether the variance of the law can be weighed against that of the operator."""
        return self.covariance is not None or self.total_variance is not None

    def noise(self, of_rule: Tensor | None, like: Tensor) -> Tensor | None:
        """σ² of every step, or one for all, given that of the trapezoid rule ``(*batch, steps, k)``; None for 0."""
        own = as_tensor(self.noise_variance).to(like.device)
        if not self.has_scale or (of_rule is None and not bool((own != 0).any())):
            return None
        return own.expand(1, like.shape[-1]) if of_rule is None else of_rule + own

    def response(
        self, weights: Tensor, channels: tuple[int, ...], count: int, walls: WallResponse | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """How fields move when a total changes by one ``(k, c·points)``, the covariance of totals ``(k, k)``, and the
        variances that are the metric of bounds ``(c·points,)``: at walls those by which r is a move.

        Args:
            weights: Quadrature weights ``(*space)``.
            channels: The channels that have a total.
            count: Number c of channels.
            walls: What moves without leaving the walls that the operator meets; None if it meets none.

        Raises:
            DependentConstraintsError: If no value may move that a total counts.
        """
        rows = rows_of(weights, channels, count)
        epsilon = torch.finfo(torch.float64).eps
        covariance = covariance_of(self._covariance(weights, channels, count, walls))
        try:
            gain = factorise(covariance, rows, rows.new_zeros(len(rows)), epsilon)
        except DependentConstraintsError as error:
            raise DependentConstraintsError(
                "The balance contradicts the walls: no value that some total counts may move, since all are fixed "
                "or without variance. Free some, or leave that channel out of conserved."
            ) from error
        units = torch.eye(len(rows), dtype=torch.float64, device=rows.device)
        totals = covariance.times(rows) @ rows.mT
        if self.covariance is None and self.total_variance is not None:
            deviation = square_root(as_tensor(self.total_variance).to(totals.device)).expand(len(rows))
            totals = totals * deviation * deviation[:, None]
        response = gain.correct(torch.zeros_like(rows), units)
        if walls is not None:
            response = walls.homogeneous(response.reshape(-1, count, *weights.shape)).flatten(1)
            response = torch.linalg.solve(response @ rows.mT, response)
            self._check_fixed(response, (count, *weights.shape))
        if walls is not None or self.covariance is None:
            covariance = covariance_of(self._uniform(weights, tuple(range(count)), count, walls))
        return response, totals, covariance.variance

    def _check_fixed(self, response: Tensor, shape: tuple[int, ...]) -> None:
        """Refuses fixed values that conditions at walls move."""
        if self.fixed is None or not are_readable(response):
            return
        fixed = _of_shape(self.fixed.to(response.device), shape, "fixed").flatten()
        if bool((response.detach()[:, fixed] != 0).any()):
            raise InvalidArgumentError(
                "fixed holds values at a wall where the operator meets a slope or a Robin condition, which follow the "
                "values next to them; leave them out of fixed: walls that the operator meets are kept without it."
            )

    def _covariance(
        self, weights: Tensor, channels: tuple[int, ...], count: int, walls: WallResponse | None
    ) -> LinearOperator:
        shape, given = (count, *weights.shape), self.covariance
        if given is None:
            return self._uniform(weights, channels, count, walls)
        moving = self._moving(weights, count)
        if isinstance(given, FittedCovariance | LinearOperator):
            given = given.covariance if isinstance(given, FittedCovariance) else given
            given = covariance_of(given).operator.to(weights.device)
            if given.shape != (moving.numel(), moving.numel()):
                raise IncompatibleQueryError(
                    f"The covariance must be over the {moving.numel()} points of fields {shape}, without batch axes, "
                    f"got {tuple(given.shape)}."
                )
            return given if self.fixed is None else _limited(given, moving.flatten())
        return DiagLinearOperator(
            (moving * _of_shape(as_tensor(given).to(weights.device), shape, "covariance")).flatten()
        )

    def _uniform(
        self, weights: Tensor, channels: tuple[int, ...], count: int, walls: WallResponse | None
    ) -> DiagLinearOperator:
        """The covariance by which values of a channel move alike, or as the walls' r, with totals of variance 1."""
        moving = self._moving(weights, count)
        if walls is not None:
            of_walls = walls.field.to(weights.device)
            of_walls = of_walls[0] if len(of_walls) == 1 else of_walls
            moving = moving * _of_shape(of_walls, moving.shape, "response of operator")
        counted = torch.zeros(count, dtype=torch.float64, device=weights.device)
        counted[list(channels)] = 1.0
        size = (moving * weights).flatten(1).sum(dim=1).clamp_min(torch.finfo(torch.float64).tiny)
        level = (counted / size).reshape(-1, *[1] * weights.ndim)
        return DiagLinearOperator((moving * level / weights).flatten())

    def _moving(self, weights: Tensor, count: int) -> Tensor:
        """1 where values may move, 0 where they are fixed ``(c, *space)``."""
        moving = torch.ones((count, *weights.shape), dtype=torch.float64, device=weights.device)
        if self.fixed is None:
            return moving
        return moving * (~_of_shape(self.fixed.to(weights.device), moving.shape, "fixed")).to(torch.float64)


def rows_of(weights: Tensor, channels: tuple[int, ...], count: int) -> Tensor:
    """The quadrature of the totals of channels as rows ``(k, c·points)``."""
    of_channel = torch.eye(count, dtype=torch.float64, device=weights.device)[list(channels)]
    return (of_channel[..., None] * weights.flatten()).flatten(1)


def _of_shape(values: Tensor, shape: tuple[int, ...], name: str) -> Tensor:
    if tuple(values.shape) not in (shape, shape[1:]):
        raise InvalidArgumentError(f"{name} must be {shape} or {shape[1:]} on this grid, got {tuple(values.shape)}.")
    return values.expand(shape)


def _limited(covariance: LinearOperator, moving: Tensor) -> LinearOperator:
    """The covariance without the points that do not move."""
    form = covariance_of(covariance)
    if not form.splits:
        return DenseLinearOperator(moving[:, None] * form.to_dense() * moving)
    metric, root = form.split()
    return PsdSumLinearOperator(RootLinearOperator((root * moving).mT), DiagLinearOperator(metric * moving))


def with_errors(
    operator: Callable[..., Tensor], errors: MultivariateNormal | Normal, generator: torch.Generator | None = None
) -> Callable[..., Tensor]:
    """The operator plus a draw of its error in one step, new in every step.

    A ``Rollout`` of several copies of a field, an axis of members first, is then an ensemble whose members meet the
    balance: draws of the operator's prediction given the law. Draws leave what an operator of ``boon`` meets at walls.

    Args:
        operator: From ``(*batch, c, *space)`` to the field one step on.
        errors: Gaussian over all channels and points, as ``fit_covariance(residuals).around(zeros)``.
        generator: Source of random numbers.
    """

    walls = operators_with_walls(operator)

    def perturbed(field: Tensor, *inputs: Tensor) -> Tensor:
        predicted = operator(field, *inputs)
        drawn = draw(errors, (predicted.numel() // errors.mean.shape[-1],), generator)
        drawn = drawn.to(predicted).reshape(predicted.shape)
        return predicted + (walls[0].response(None, drawn) if len(walls) == 1 else drawn)

    return perturbed
