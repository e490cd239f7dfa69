"""From trajectories to an emulator: steps that meet the data of the walls and the balance, with bands.

The one module of ``probconserv`` that imports ``boon``: conditions at walls inside, the balance outside.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from boon import BOON, FNO, FNOConfig, Prescription
from probconserv._linalg.values import Array, as_tensor
from probconserv.errors import InvalidArgumentError
from probconserv.fitted.covariance import fit_covariance
from probconserv.rollout import emulator_files as files
from probconserv.rollout.candidates import (
    RESIDUALS,
    band_of,
    best_of,
    candidates_of,
    fit_flux,
    fit_regressions,
    report_of,
)
from probconserv.rollout.data_checks import Unchanged, places_of, ranges_of, warn_beyond, warn_of_missed_conditions
from probconserv.rollout.diagnosis import RolloutBand
from probconserv.rollout.emulator_sides import Given, unseen_parts
from probconserv.rollout.flux_model import FluxModel
from probconserv.rollout.learned_response import LearnedResponse
from probconserv.rollout.regression import ComponentRegression, Kernel
from probconserv.rollout.rollout import Rollout
from probconserv.rollout.sides import PerAxis, accepts_walls
from probconserv.rollout.step_network import EmulatorConfig, StepNetwork, StepOperator, train_steps
from probconserv.rollout.step_update import with_errors
from probconserv.rollout.trajectories import (
    Functions,
    Setting,
    conditions_of,
    given_sides,
    number_of,
    parts_of,
    predict,
)
from solvers._former import renamed
from solvers.grids import Grid

Network = nn.Module | Callable[[int, int], nn.Module]
Bases = Network | Sequence[StepNetwork]
_RANK = 20  # of the covariance of errors of single steps, of which draws are made


class Forecast(NamedTuple):
    """A rollout with its band.

    Attributes:
        fields: u at the start and after every step ``(functions, t, c, *space)``.
        lower: Lower end of the pointwise band; None without.
        upper: Upper end.
        totals: ∫ u of the channels that have a balance ``(functions, t, k)``, float64.
    """

    fields: Tensor
    lower: Tensor | None
    upper: Tensor | None
    totals: Tensor

    def __repr__(self) -> str:
        band = "no band" if self.lower is None else "a band"
        return f"Forecast(fields {tuple(self.fields.shape)}, totals {tuple(self.totals.shape)}, {band})"


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class Emulator:
    """Steps that were learnt from trajectories, meet the data of walls and the balance, and have bands.

    Build it with ``fit``.

    Args:
        setting: Grid, conditions and law.
        operator: One step.
        under_law: The operator under the law; None where there is none, or it does not help.
        flux: What passes walls whose fluxes are not given; None where it is not needed.
        band: Half widths by validation functions; None without.
        residuals: Errors of single steps ``(samples, c, *space)``, of which draws are made.
        report: One sentence: what was chosen, and why.
        errors: Mean error of the validation's rollouts by base and law.
        described: What a file says of it.
    """

    setting: Setting
    operator: StepOperator
    under_law: Rollout | None
    flux: FluxModel | None
    band: RolloutBand | None
    residuals: Tensor
    report: str
    errors: Mapping[str, float]
    described: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"Emulator({self.setting.grid}: {self.report})"

    @classmethod
    @renamed(law="balance")
    @accepts_walls
    def fit(
        cls,
        trajectories: Float[Array, "functions t c *space"],
        times: Float[Array, " t"],
        grid: Grid,
        conditions: Sequence[Any] | None = None,
        *,
        values: PerAxis | None = None,
        fluxes: PerAxis | None = None,
        balance: Mapping[str, Any] | None = None,
        impose: bool = False,
        media: Float[Array, "functions m *space"] | None = None,
        validation: int | Mapping[str, Any] | None = None,
        base: Bases | None = None,
        config: EmulatorConfig | None = None,
        level: float | None = 0.9,
        folder: str | Path | None = None,
        progress: bool = True,
    ) -> "Emulator":
        """Trains two networks and fits a regression, and takes what has the least error in rollouts.

        The walls are prescribed in all. One network learns changes in single steps, and in the second half of the
        training steps after several of its own (pushforward; Brandstetter et al. 2022), the other the next field in
        single steps. The third base is a kernel regression between principal components, with the ridge that is best
        in rollouts. Each is tried without the law, under it by the walls' response, and by a response that is learnt
        from errors of single steps; half of the validation functions choose, the others give the bands.

        Args:
            trajectories: True fields at the times, in equal steps.
            times: Times of the fields.
            grid: Nodes or cells of the fields.
            conditions: What is met at the walls, as for ``boon.BOON``, whose values may be left to ``values``.
            values: What conditions, or the flux of the balance, take at the sides: a pair (first, last) per axis,
                ``Periodic()`` for a periodic one. A side has values at the times ``(functions, t, m, *face)``; None
                where its condition has the value, or nothing is given.
            fluxes: What passes other sides, along +axis; a pair per axis as above. A side has fluxes integrated over
                the steps ``(functions, t − 1, k, *face)`` or at the times, or a number, 0.0 where it is closed.
            balance: Arguments of ``Rollout``: flux, source, bounds, conserved, tolerance; an empty one where fluxes
                are given. Without ``flux`` a ``FluxModel`` is trained for walls with conditions, from the totals. None
                for no balance.
            impose: Whether the balance holds even where rollouts are better without it; one with bounds always does.
            media: Coefficients of every function, further channels of what operators see.
            validation: How many of the last functions choose and calibrate, two fifths by default; or a
                dictionary of further ``trajectories``, ``values``, ``fluxes`` and ``media``, perhaps of more steps.
            base: In place of the FNO: a module from normalised channels, field, then data of sides (of values at both
                ends of the step) and media, to changes or fields in units of their standard deviation; both networks
                begin as copies of it. Or a function that makes one of the numbers of channels in and out. Or
                ``StepNetwork`` that are trained already, one or several.
            config: Sizes and training.
            level: Probability of the bands; None for none.
            folder: Folder of checkpoints, from which an interrupted ``fit`` goes on.
            progress: Whether progress bars are shown on standard error.

        Raises:
            InvalidArgumentError: If shapes do not match, steps differ, or there are too few validation functions.
            ConvergenceError: If every base diverges on the validation functions.
            TrainingInterruptedError: If it was interrupted by SIGINT; with a folder the same call goes on.
        """
        config, folder = EmulatorConfig() if config is None else config, None if folder is None else Path(folder)
        times = as_tensor(times).detach()
        given = Given.of(values, fluxes, conditions_of(grid, conditions), grid.dimension)
        setting = Setting.of(grid, conditions, balance, float(times.diff().mean()), given.walls, given.measured)
        setting.check_times(times)
        given.check(setting, len(times) - 1)
        fields, media = as_tensor(trajectories, dtype=None), None if media is None else as_tensor(media, dtype=None)
        known = Functions(fields=fields, walls=given.walls, media=media, setting=setting, first=float(times[0]))
        if len(times) != known.steps + 1:
            raise InvalidArgumentError(f"times must be the {known.steps + 1} of the trajectories, got {len(times)}.")
        training, choice, calibration = parts_of(known, unseen_parts(validation, setting), level)
        sides = given_sides(known.walls)
        warn_of_missed_conditions(training, met(Unchanged(), setting, sides))
        regressions = [met(each, setting, sides) for each in fit_regressions(training, choice)]
        networks = _trained(training, base, config, folder, progress)
        flux = fit_flux(training, config, folder and folder / "flux", progress) if any(setting.modelled) else None
        imposed = balance is not None and (impose or balance.get("bounds") is not None)
        candidates, errors = candidates_of({"regression": regressions} | networks, flux, choice, imposed)
        best = best_of(errors, imposed, choice.steps)
        operator, rollout = candidates[best]
        single = choice.single.thinned(RESIDUALS)
        with torch.no_grad():
            residuals = single.after - operator(single.before, *single.data)
        return cls(
            setting=setting,
            operator=operator,
            under_law=rollout,
            flux=flux,
            band=None if level is None else band_of(candidates[best], calibration, level),
            residuals=residuals,
            report=report_of(best, errors, choice.steps),
            errors={"/".join(name): float(error.mean()) for name, error in errors.items()},
            described=files.described(config, training, operator.base, flux)
            | {"ranges": ranges_of(training, choice, calibration), "kinds": given.kinds},
        )

    @accepts_walls
    def rollout(
        self,
        start: Float[Array, "functions c *space"],
        times: Float[Array, " t"],
        media: Array | None = None,
        *,
        values: PerAxis | None = None,
        fluxes: PerAxis | None = None,
    ) -> Forecast:
        """The fields at all times, with their bands; ``values``, ``fluxes`` and ``media`` as for ``fit``.

        Raises:
            InvalidArgumentError: If shapes do not match, or steps are not those of the training, or there are more
                than in the validation, for which there is no band; ``under_law`` and ``operator`` go on.
        """
        fields, totals = predict(self.operator, self.under_law, self._functions(start, times, media, values, fluxes))
        if self.band is None:
            return Forecast(fields, None, None, totals)
        count, held = fields.shape[1], len(self.band.fields)
        if count > held:
            raise InvalidArgumentError(
                f"The band holds for {held - 1} steps, those of the validation functions, got {count - 1}; give fit "
                "longer validation functions, or level=None for no band."
            )
        band = replace(self.band, fields=self.band.fields[:count])
        lower, upper = band.ends(fields)
        return Forecast(fields, lower, upper, totals)

    @renamed(members="draws")
    @accepts_walls
    def draw(
        self,
        start: Float[Array, "functions c *space"],
        times: Float[Array, " t"],
        draws: int,
        media: Array | None = None,
        generator: torch.Generator | None = None,
        *,
        values: PerAxis | None = None,
        fluxes: PerAxis | None = None,
    ) -> Float[Tensor, "draws functions t c *space"]:
        """Rollouts with a new error in every step, of the covariance of those in single steps; all meet the law."""
        functions = self._functions(start, times, media, values, fluxes).repeated(draws)
        errors = fit_covariance(self.residuals.flatten(1).double(), rank=_RANK)
        drawn = with_errors(self.operator, errors.around(torch.zeros_like(errors.bias)), generator)
        rollout = self.under_law and self.setting.rollout(drawn, self.flux, self.under_law.response)
        return predict(drawn, rollout, functions)[0].unflatten(0, (draws, len(start)))

    def _functions(self, start: Array, times: Array, media: Array | None, values: Any, fluxes: Any) -> Functions:
        given = Given.of(values, fluxes, self.setting.conditions, self.setting.grid.dimension)
        given.check(self.setting, len(times) - 1)
        functions = Functions.from_start(start, given.walls, as_tensor(times).detach(), media, self.setting)
        fitted, got = (places_of(sides) for sides in (self.described["sides"], given_sides(functions.walls)))
        if fitted != got:
            raise InvalidArgumentError(
                f"Sides must have tensors where fit had them, {fitted}, got them on {got}; give a tensor of equal "
                "values for a constant there, and what fit had on the other sides."
            )
        given.compare(self.described.get("kinds"))
        functions.check_channels(self.described.get("channels", functions.channels), "start, sides and media")
        warn_beyond(functions, self.described.get("ranges", {}))  # older files have neither
        return functions

    def save(self, path: str | Path) -> None:
        """Writes everything but grid, conditions and balance to a safetensors file, atomically."""
        tensors = {f"operator.{name}": each for name, each in self.operator.base.state_dict().items()}
        if self.flux is not None:
            tensors |= {f"flux.{name}": each for name, each in self.flux.state_dict().items()}
        if self.under_law is not None and self.under_law.response is not None:
            tensors["response"] = self.under_law.response.coefficients
        if self.band is not None:
            tensors |= {"band.fields": self.band.fields, "band.totals": self.band.totals}
        content = dict(self.described) | {"report": self.report, "errors": dict(self.errors)}
        content |= {"law": self.under_law is not None, "level": self.band and self.band.level}
        files.write(path, tensors | {"residuals": self.residuals}, content)

    @classmethod
    @renamed(law="balance")
    def load(
        cls,
        path: str | Path,
        grid: Grid,
        conditions: Sequence[Any] | None = None,
        *,
        balance: Mapping[str, Any] | None = None,
        base: Network | None = None,
    ) -> "Emulator":
        """Reads an emulator that ``save`` wrote; grid, conditions, balance and base are those of ``fit``.

        Raises:
            DataFileError: If the file is damaged, no emulator, or of another grid, other conditions or another law.
        """
        tensors, content = files.read(path, grid)
        setting = files.setting_of(path, content, grid, conditions, balance)
        parts = {name: files.below(tensors, name) for name in ("operator", "flux", "band")}
        if content["kernel"] is None:
            layout = content["layout"]
            inner = _network(base, EmulatorConfig(**content["config"]), setting, *layout["counts"])
            network = StepNetwork(inner, **layout)
            network.load_state_dict(parts["operator"])
        else:
            network = ComponentRegression(Kernel(**content["kernel"]), **parts["operator"])
        operator = met(network.requires_grad_(False).eval(), setting, content["sides"])
        flux = None
        if parts["flux"]:
            flux = FluxModel(grid, **content["flux"])
            flux.load_state_dict(parts["flux"])
        response = LearnedResponse(coefficients=tensors["response"]) if "response" in tensors else None
        bounds = (balance or {}).get("bounds") if content["law"] else None
        return cls(
            setting=setting,
            operator=operator,
            under_law=setting.rollout(operator, flux, response) if content["law"] else None,
            flux=flux,
            band=RolloutBand(level=content["level"], **parts["band"], bounds=bounds) if parts["band"] else None,
            residuals=tensors["residuals"],
            report=content["report"],
            errors=content["errors"],
            described=content,
        )


def _trained(
    training: Functions, base: Bases | None, config: EmulatorConfig, folder: Path | None, progress: bool
) -> dict[str, list[StepOperator]]:
    """Networks under the conditions of their walls, one of each kind, by name."""
    setting, sides = training.setting, given_sides(training.walls)
    if isinstance(base, StepNetwork | Sequence):
        networks = [base] if isinstance(base, StepNetwork) else list(base)
        names = [network.name for network in networks]
        if len(set(names)) < len(names):
            raise InvalidArgumentError(f"base takes one trained network of each kind, got {', '.join(names)}; choose.")
        for network in networks:
            network.check(training)
        return {network.name: [met(network, setting, sides)] for network in networks}
    operators = {}
    for network in (step_network(training, config, base, changes) for changes in (True, False)):
        operators[network.name] = [met(network, setting, sides)]
        how = config if network.changes else replace(config, unrolled=1)
        train_steps(operators[network.name][0], training, how, folder and folder / network.name, progress)
    return operators


def step_network(
    known: Functions, config: EmulatorConfig, base: Network | None = None, changes: bool = True
) -> StepNetwork:
    """An untrained network of changes or values, scaled by true steps; weights are drawn by the seed of the config."""
    setting, inputs, out = known.setting, known.inputs, known.fields.shape[2]
    axes = [axis for axis, pair in enumerate(given_sides(known.walls)) for given in pair or () if given]
    axes = [*axes, *[None] * (len(inputs) - len(axes))]
    count = out + sum(part.shape[2] for part in inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        network = _network(base, config, setting, count, out)
    repeated = [axis for axis, each in enumerate(setting.periodic) if each and setting.grid.location == "cell"]
    result = StepNetwork(network, setting.grid.shape, axes, repeated, (count, out), changes).scaled_by(known.single)
    result.check(known)
    return result


def _network(base: Network | None, config: EmulatorConfig, setting: Setting, count: int, out: int) -> nn.Module:
    """The network of the user, or an FNO, from so many channels."""
    if isinstance(base, nn.Module):
        return deepcopy(base)
    if base is not None:
        return base(count, out)
    d = setting.grid.dimension
    return FNO(
        FNOConfig(
            in_channels=count,
            out_channels=out,
            width=config.width,
            modes=(config.modes if d == 1 else max(1, config.modes // 2),) * d,
            depth=config.depth,
            periodic=setting.periodic,
        )
    )


def met(base: nn.Module, setting: Setting, sides: Sequence[Sequence[bool] | None]) -> StepOperator:
    """A base with the conditions of its walls prescribed; ``sides`` says which have data."""
    if not any(setting.conditions):
        return StepOperator(base, None, ())
    count, given = 0, []
    for pair, conditions in zip(sides, setting.conditions, strict=True):
        places: list[int | None] = []
        for has_data, condition in zip(pair or (), conditions or (), strict=False):
            places.append(count if has_data and number_of(condition) is None else None)
            count += has_data
        given.append(tuple(places) if any(place is not None for place in places) else None)
    walls = BOON(nn.Identity(), setting.conditions, correction=Prescription(), grid=setting.grid)
    return StepOperator(base, walls, given)
