"""BOON: an operator whose output meets boundary conditions for any weights (Saad et al. 2023)."""

import warnings
from collections.abc import Callable, Sequence
from math import isclose
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon._tensors.values import check_tensor
from boon.conditions.discretisation import SideValues, discretise
from boon.conditions.functionals import Boundary, prescribe
from boon.conditions.response import coefficients_of, homogeneous, response
from boon.conditions.sides import AxisCondition, AxisSides, check_conditions, sides_of
from boon.conditions.walls import warn_off_walls
from boon.corrections.correction import CorrectedLayers, Correction, HiddenConditions, check_correction
from boon.corrections.extension import SmoothExtension
from boon.corrections.mixed import MixedTransform
from boon.domain import domain_of
from boon.errors import InvalidArgumentError, TrainedWeightsWarning
from boon.fno import FNO
from boon.neuraloperator import NeuralOperatorFNO, check_precision, is_neuraloperator
from boon.normalisation import Normalised
from boon.scores import relative_residual
from boon.transforms import CellFourier, DomainFourier, NodeFourier
from solvers.grids import Grid
from solvers.recording import are_readable, check_recording


def default_correction(operator: nn.Module) -> Correction:
    """The default correction of an operator."""
    return MixedTransform() if isinstance(_core(operator), FNO) else SmoothExtension()


def _check_order(order: int) -> None:
    if order not in (1, 2, 3, 4):
        raise InvalidArgumentError(f"order of the one-sided differences must be 1, 2, 3 or 4, got {order}.")


def _check_axes(counts: tuple[int, ...] | None, shape: tuple[int, ...]) -> None:
    """Refuses a field with the numbers of values of the grid in another order; other numbers are another grid."""
    if counts is not None and shape != counts and sorted(shape) == sorted(counts):
        raise InvalidArgumentError(
            f"The grid has {counts} values along its axes but the field {shape}, the same numbers in another order: "
            "transpose the field, or give the grid the order of its axes."
        )


def _core(operator: nn.Module) -> nn.Module:
    """The operator without its normalisation."""
    return operator.operator if isinstance(operator, Normalised) else operator


def predicts_changes(operator: nn.Module) -> bool:
    """Whether an operator is an ``FNO`` of increments."""
    core = _core(operator)
    return isinstance(core, FNO) and core.config.increment is not None


class BOON(nn.Module):
    """Wraps an operator so that its output meets boundary conditions to round-off.

    This package's ``FNO`` and that of neuraloperator (``neuralop.models.FNO``) can be corrected in every kernel,
    other field-to-field Modules at the output. Fields are given at nodes, both ends of every axis included:
    spacing = length/(n − 1). With a ``CellGrid`` they are averages over n cells, and conditions hold at outer faces:
    values and derivatives there are extrapolated from the next cells, (3 u₀ − u₁)/2 and (−2 u₀ + 3 u₁ − u₂)/h for
    order 2. An ``FNO`` around such fields needs ``FNOConfig(transform=CellFourier())``.

    Values are numbers, tensors or arrays that broadcast to ``(batch, out_channels, *face)``, or functions of position
    and time, called with the coordinates of the nodes of the face, one tensor ``(*face)`` per remaining axis in
    order, each running from 0 to the length of that axis; they return something that broadcasts as above. ``face``
    is the shape of the side, empty with one axis. One number for each sample is ``(batch, 1, …)``; an array with fewer
    axes is refused if its first has the size of the batch, since it could mean either. The value of a side is given
    either in its condition or at the call.

    Args:
        operator: ``(batch, in_channels, *space)`` → ``(batch, out_channels, *space)``, or ``Normalised`` around one:
            conditions and their values are those of the physical field.
        conditions: One (first, last) pair of ``Dirichlet``, ``Neumann`` or ``Robin`` per axis, or ``Periodic()``; None
            leaves an axis free (time), None in a pair leaves a side free (outflow, the end of a time axis). A ``Part``,
            or a sequence of them, is a condition on a part of a side; values at the call are then a list, one entry
            for each part. Coefficients of ``Robin`` are numbers or tensors ``(batch|1, channels|1, *face)``.
        lengths: Length of every axis in the units of gradients and coordinates; None means 1.
        correction: The correction; None means ``MixedTransform()`` for this package's ``FNO``,
            which must be wrapped before training, and ``SmoothExtension()`` for any other Module.
        order: Order 1 to 4 of the one-sided differences in Neumann and Robin conditions, and of values at the sides of
            cells.
        grid: In place of lengths, a ``NodeGrid`` or ``CellGrid``: its ends are those of the domain, also for
            coordinates, which else begin at 0. Fields may have other numbers of nodes or cells.

    Warns:
        TrainedWeightsWarning: If the correction acts inside the layers of an operator that is trained already.
        UserWarning: If the mean field of a ``Normalised`` has a given value half a step or a step away from its side.

    Raises:
        MissingBoundaryError: If neither side of a pair has a condition.
        InvalidArgumentError: If an argument is wrong, the correction needs an ``FNO``, or a neuralop FNO has an
            option that corrections inside its layers do not support.
    """

    _built: tuple[torch.Size, torch.device, Boundary] | None = None

    def __init__(
        self,
        operator: nn.Module,
        conditions: Sequence[object],
        lengths: Sequence[float] | None = None,
        correction: Correction | None = None,
        order: int = 2,
        *,
        grid: Grid | None = None,
    ) -> None:
        super().__init__()
        _check_order(order)
        self.operator = operator
        self.sides = check_conditions(conditions)
        self.domain = domain_of(lengths, grid, len(self.sides))
        self._counts = None if grid is None else tuple(grid.shape)
        self.correction = default_correction(operator) if correction is None else correction
        check_correction(self.correction)
        self.order = int(order)
        layered = self._layered()
        self._check_operator(layered)
        self._check_domain()
        if isinstance(operator, Normalised):
            warn_off_walls(operator.output_mean, self.sides, self.domain)
        if layered and self._inside and layered.is_trained:
            warnings.warn(
                f"The weights of the {type(_core(operator)).__name__} are trained already, and {self.correction} "
                "changes what its layers compute: errors grow many times unless it is trained on. Wrap an operator "
                "before training, or correct a trained one at its output: correction=Prescription(), or "
                "SmoothExtension(length=1 / (n - 1)), one grid step, on n nodes.",
                TrainedWeightsWarning,
                stacklevel=2,
            )
        config = layered.config if layered else None
        asked = [AxisSides() if self._is_plain(sides) else sides for sides in self.sides]
        step = self.correction.step(asked, config.out_channels if config else 1)
        self.step = step.for_increments() if predicts_changes(operator) else step
        self.hidden_conditions, self.hidden_steps = None, nn.ModuleList()
        if config and self.correction.hidden:
            if sides_of(self.sides):
                self.hidden_conditions = HiddenConditions(config.depth, config.out_channels, config.width)
            self.hidden_steps.extend(self.correction.step(asked, config.width) for _ in range(config.depth))

    @property
    def conditions(self) -> tuple[AxisCondition, ...]:
        """One (first, last) pair of conditions or tuples of parts per axis, or None, as they were given."""
        return tuple(sides.given for sides in self.sides)

    def forward(
        self, x: Float[Tensor, "batch in_channels *space"], boundary: SideValues | None = None
    ) -> Float[Tensor, "batch out_channels *space"]:
        """Maps input fields to output fields that meet the conditions.

        Args:
            x: Input fields, at nodes or in cells as the grid says.
            boundary: Values of the sides whose condition has none: one (first, last) pair or None per axis.

        Raises:
            MissingBoundaryError: If a side has no value, or two.
            IncompatibleCornersError: If Dirichlet values disagree where two sides meet.
            InvalidArgumentError: If a value has the wrong shape or is not finite, the axes do not match or are those
                of the grid in another order, or a neuralop FNO is in half precision outside autocast.
            MissingPackageError: If a PyTorch below 2.11 compiles or exports it.
        """
        u, discrete = self._operate(x, boundary)
        return prescribe(self.step(u, discrete), discrete)

    if TYPE_CHECKING:
        __call__: Callable[..., Tensor]

    def with_residual(
        self, x: Float[Tensor, "batch in_channels *space"], boundary: SideValues | None = None
    ) -> tuple[Float[Tensor, "batch out_channels *space"], Float[Tensor, ""]]:
        """``forward``, and how far the operator was from the conditions before they were enforced, for the loss.

        At the sides the output is right whatever the operator gives there. With a loss of the output alone the operator
        may therefore be wrong at the sides, by what the correction can bridge on the nodes of the training; between
        these, on finer grids, it cannot.

        Args:
            x: As in ``forward``.
            boundary: As in ``forward``.

        Returns:
            The output, and ‖B u − g‖₂ of the operator's own u over all sides relative to the norm of its terms, see
            ``scores.relative_residual``: dimensionless, differentiable. Add a tenth of it to a relative L2 error.
        """
        u, discrete = self._operate(x, boundary)
        missed = relative_residual(u, discrete)
        return prescribe(self.step(u, discrete), discrete), missed

    def _operate(self, a: Tensor, boundary: SideValues | None) -> tuple[Tensor, Boundary]:
        """The output before the conditions are enforced, and the conditions with their data."""
        check_recording()
        check_tensor(a)
        layered = self._layered()
        if layered and self.correction.amplifies_rounding and torch.is_autocast_enabled(a.device.type):
            with torch.autocast(a.device.type, enabled=False):
                return self._operate(a.to(self._weight_dtype), boundary)
        if self._inside or not torch.is_autocast_enabled(a.device.type):
            check_precision(_core(self.operator))
        if not layered or not self._inside:
            u = self.operator(a)
            return u, self.discretise(u, boundary)
        like = self._like(a).expand(a.shape[0], layered.config.out_channels, *a.shape[2:])
        discrete = self.discretise(like, boundary)
        return self._evaluate(layered, a, discrete), discrete

    def discretise(
        self,
        u: Float[Tensor, "batch out_channels *space"],
        boundary: SideValues | None = None,
        *,
        order: int | None = None,
    ) -> Boundary:
        """The conditions with their data on the grid of a field; see ``boon.scores``.

        Args:
            u: A field of the shape, dtype and device; on any grid, as a finer one than that of the training.
            boundary: As in ``forward``.
            order: Order of the one-sided differences; None means that of the operator, whose differences it enforces.
                Another one tells what the slope of the field at the wall is.
        """
        order = self.order if order is None else order
        _check_order(order)
        _check_axes(self._counts, tuple(u.shape[2:]))
        return discretise(self.sides, self.domain, boundary, u, order)

    def response(self, grid: Grid | None, fields: Float[Tensor, "..."] | None = None) -> Tensor:
        """How a field moves when its total changes and what it meets at the sides does not: r with B r = 0.

        ``probconserv.Rollout`` and other updates of the output add multiples of it, so that the conditions still hold.

        Args:
            grid: Grid of the field, of which location, shape and, where conditions have slopes, lengths are used.
            fields: Changes of fields ``(*batch, channels, *space)``, for which B is made 0: the nodes that a side sets
                follow the others.

        Returns:
            r ≥ 0 ``(channels|1, *space)``, float64, the solution of −Δ r = 1 with B r = 0, up to a factor, see
            ``conditions.response``; or the ``fields`` with new boundary nodes, linear in them.

        Raises:
            InvalidArgumentError: If the grid has cells and fields of the operator are at nodes, or the reverse, if
                lengths differ on an axis whose conditions have slopes, if coefficients of Robin differ between
                samples, or no r has one sign.
        """
        if fields is None:
            assert grid is not None
            if (grid.location == "cell") != self.domain.cells:
                raise InvalidArgumentError(
                    f"The walls of BOON are those of fields {self._place}, but the grid is a {type(grid).__name__}; "
                    "build BOON(..., grid=...) with the grid of the fields."
                )
            self._check_slopes(grid)
            return response(self.sides, self.domain, grid.shape, self.order)
        axes = len(self.sides) + 1
        return prescribe(fields.reshape(-1, *fields.shape[-axes:]), self._homogeneous(fields)).reshape(fields.shape)

    def _homogeneous(self, fields: Tensor) -> Boundary:
        """The conditions with data 0, built once for fields of a shape and device unless coefficients may change."""
        shape = fields.shape[-len(self.sides) :]
        if self._built is not None and self._built[:2] == (shape, fields.device):
            return self._built[2]
        boundary = homogeneous(self.sides, self.domain, shape, self.order, fields)
        numbers = all(isinstance(each, int | float) for each in coefficients_of(self.sides))
        if numbers and are_readable(fields) and not torch.is_inference_mode_enabled():
            self._built = shape, fields.device, boundary
        return boundary

    def _evaluate(self, layered: FNO | NeuralOperatorFNO, a: Tensor, boundary: Boundary) -> Tensor:
        """The operator with corrected layers; under a normalisation they carry data of the normalised field."""
        normalised = self.operator
        if not isinstance(normalised, Normalised):
            return layered(a, self._corrected(boundary))
        inside = normalised.inside(boundary, tuple(a.shape[2:]))
        return normalised.restore(layered(normalised.normalise(a), self._corrected(inside)))

    def _like(self, a: Tensor) -> Tensor:
        """A number of the dtype and device of the output."""
        mean = self.operator.output_mean if isinstance(self.operator, Normalised) else a
        return a.new_empty((), dtype=torch.promote_types(a.dtype, mean.dtype))

    @property
    def _weight_dtype(self) -> torch.dtype:
        return next(each.dtype for each in self.operator.parameters() if each.is_floating_point())

    @property
    def _place(self) -> str:
        return "in cells" if self.domain.cells else "at nodes"

    def _is_plain(self, sides: AxisSides) -> bool:
        """Whether nothing is to be set on an axis; in cells a periodic one has no two values at one point."""
        return sides.is_free or (self.domain.cells and sides.periodic)

    @property
    def _inside(self) -> bool:
        return self.correction.hidden or self.correction.acts_on_kernels

    def _layered(self) -> FNO | NeuralOperatorFNO | None:
        """The operator if its layers can be corrected, else None."""
        core = _core(self.operator)
        if isinstance(core, FNO):
            return core
        return NeuralOperatorFNO(core, self.domain.cells) if self._inside and is_neuraloperator(core) else None

    def _corrected(self, boundary: Boundary) -> CorrectedLayers:
        same = [boundary] * len(self.hidden_steps)
        hidden = self.hidden_conditions(boundary) if self.hidden_conditions else same
        return CorrectedLayers(
            correction=self.correction,
            conditions=self.sides,
            boundary=boundary,
            hidden=tuple(zip(hidden, self.hidden_steps, strict=True)),  # type: ignore[arg-type]
        )

    def _check_slopes(self, grid: Grid) -> None:
        """Refuses a grid of other lengths where conditions have slopes, which would be wrong by their ratio."""
        for axis, sides in enumerate(self.sides):
            length, other = self.domain.lengths[axis], grid.high[axis] - grid.low[axis]
            if not all(part.is_value for part in sides.parts) and not isclose(length, other, rel_tol=1e-6):
                raise InvalidArgumentError(
                    f"Slopes of BOON are those of an axis {axis} of length {length:g}, but the grid has {other:g}; "
                    "build BOON(..., lengths=...) or BOON(..., grid=...) with the lengths of the grid."
                )

    def _check_domain(self) -> None:
        """Refuses parts that take fields at nodes where they are in cells, or the reverse."""
        cells, core = self.domain.cells, _core(self.operator)
        if cells and self.correction.needs_nodes:
            raise InvalidArgumentError(f"{self.correction} needs fields at nodes; in cells take another correction.")
        transform = core.config.transform if isinstance(core, FNO) else None
        if transform is not None and (transform.cells != cells and not isinstance(transform, NodeFourier)):
            other = DomainFourier() if transform.cells else CellFourier()
            raise InvalidArgumentError(
                f"BOON has fields {self._place}, but the FNO has transform={transform}; build it with "
                f"FNOConfig(transform={other}), or give BOON the grid of the fields: grid=CellGrid(...) for cells."
            )
        if isinstance(self.operator, Normalised) and self.operator.cells != cells:
            raise InvalidArgumentError(
                f"BOON has fields {self._place}, its Normalised has cells={not cells}; give both the same: "
                "Normalised.fit(..., cells=True) and BOON(..., grid=CellGrid(...)) for cells."
            )

    def _check_operator(self, layered: FNO | NeuralOperatorFNO | None) -> None:
        if not layered:
            if self._inside:
                raise InvalidArgumentError(
                    f"{self.correction} acts inside the layers and needs boon.FNO, got "
                    f"{type(_core(self.operator)).__name__} (neuralop.models.FNO will do as well: "
                    "pip install 'probconserv-boon[neuraloperator]'); use Prescription() or SmoothExtension() at the "
                    "output."
                )
            return
        if layered.config.dimension != len(self.sides):
            raise InvalidArgumentError(
                f"The operator has {layered.config.dimension} axes but conditions are given for "
                f"{len(self.sides)}; give one pair or None per axis."
            )
        for axis, sides in enumerate(self.sides):
            if not sides.is_free and layered.config.is_periodic(axis) and not sides.periodic:
                raise InvalidArgumentError(
                    f"Axis {axis} of the operator is periodic but its conditions are not; set FNOConfig.periodic to "
                    "False there or give Periodic() on both sides."
                )
