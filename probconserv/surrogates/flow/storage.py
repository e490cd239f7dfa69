"""Flows on disk: coordinates, weights and settings in one safetensors file."""

import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import nn

from probconserv.errors import DataFileError, InvalidArgumentError
from probconserv.surrogates.flow.latent import KarhunenLoeve, Latent
from probconserv.surrogates.flow.network import ResidualVelocity
from probconserv.surrogates.flow.tasks import SamplingOptions
from probconserv.surrogates.weights import (
    Weights,
    check_size,
    fill,
    is_alike,
    read_weights,
    stored_config,
    write_weights,
)

_KIND = "FlowMatching"
_STEPS_OF_EULER = 100  # the default of release 0.2, which its files hold
_USUAL = asdict(SamplingOptions(resample=1)) | {"draws": 1, "seed": 0}
_KNOWN = (KarhunenLoeve.__name__, ResidualVelocity.__name__)
_LEFT = ("FieldLatent", "ResidualFieldVelocity")  # classes that release 0.3 alone has


def write_flow(
    path: str | Path, latent: Latent, velocity: nn.Module, settings: dict[str, Any], notes: dict[str, Any]
) -> None:
    """Writes a flow; modules from outside this library store their tensors only.

    Raises:
        DataFileError: If the file cannot be written.
    """
    tensors = {f"latent.{name}": tensor for name, tensor in latent.state_dict().items()}
    tensors |= {f"velocity.{name}": tensor for name, tensor in velocity.state_dict().items()}
    config = {
        "shape": list(latent.shape),
        "latent": type(latent).__name__,
        "velocity": type(velocity).__name__,
        "network": velocity.config if isinstance(velocity, ResidualVelocity) else None,
        "settings": settings,
    }
    write_weights(path, Weights(_KIND, config, tensors, notes))


def read_flow(
    path: str | Path, latent: Latent | None, velocity: nn.Module | None
) -> tuple[Latent, nn.Module, dict[str, Any]]:
    """Reads a flow in its stored dtypes; modules from outside this library must be given, and are filled in place.

    A module of another class may have tensors of the same sizes and do something else with them; a warning names both.

    Raises:
        DataFileError: If the file is missing, damaged or of another model, or a module has other sizes.
    """
    weights = read_weights(path, _KIND)
    parts = {part: _under(weights.tensors, f"{part}.") for part in ("latent", "velocity")}
    config = weights.config
    given = {"latent": latent is not None, "velocity": velocity is not None}
    with stored_config(path, "a flow"):
        latent = _stored_latent(path, config, parts["latent"]) if latent is None else latent
        velocity = _stored_velocity(path, config, latent, parts["velocity"]) if velocity is None else velocity
        settings = _stored_settings(path, config)
    for part, module in (("latent", latent), ("velocity", velocity)):
        way_out, kind = "train again", config.get(part)
        if given[part] and kind in _KNOWN:
            way_out = f"leave {part}= out, since the file has all that a {kind} needs"
        elif given[part]:
            way_out = f"give, as {part}=, a {kind} of the sizes that were saved"
        fill(path, module, parts[part], way_out)
        if kind not in (None, type(module).__name__):
            warnings.warn(
                f"'{path}' holds a {part} {kind} and fills a {type(module).__name__}; the weights fit, but "
                "mean the same only if that class is the old one under a new name.",
                stacklevel=3,
            )
    return latent, velocity, settings


def _under(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _stored_latent(path: str | Path, config: dict[str, Any], tensors: dict[str, Any]) -> Latent:
    shape = tuple(config["shape"])
    _require_alike("shape", list(shape), [1])
    _require_known(path, "latent", config["latent"], KarhunenLoeve)
    tensors.setdefault("spread", tensors["mean"].new_ones(len(tensors["basis"])))  # files before it was stored
    return KarhunenLoeve(**tensors, shape=shape)


def _stored_velocity(path: str | Path, config: dict[str, Any], latent: Latent, tensors: dict[str, Any]) -> nn.Module:
    _require_known(path, "velocity", config["velocity"], ResidualVelocity)
    network = dict(config["network"])
    if network.pop("inputs", 0):  # parameters, of which flows of 0.2 could be functions
        raise DataFileError(f"'{path}' holds the velocity of a conditional flow, which this version does not know.")
    for name, value in network.items():
        _require_alike(name, value, [0.0] if name == "spread" else 1)
    size = latent.state_shape[0]
    numbers = ResidualVelocity.least_parameters(size, network["width"], network["blocks"], network["frequencies"])
    check_size(path, tensors, numbers, network["blocks"])
    return ResidualVelocity(size, **network)


def _stored_settings(path: str | Path, config: dict[str, Any]) -> dict[str, Any]:
    """Arguments of ``FlowMatching``."""
    settings = dict(config["settings"])
    options, axes = dict(settings.pop("options")), settings.pop("axes")
    if options.pop("renewal", 0.0):  # noise that 0.2 could draw anew in every step
        raise DataFileError(f"'{path}' predicts with renewal, which this version does not know; save it without.")
    if "order" not in options and options["steps"] == _STEPS_OF_EULER:
        del options["steps"]
    for name, value in (*options.items(), *settings.items()):
        if value is not None:
            _require_alike(name, value, _USUAL[name])
    if axes is not None:
        _require_alike("axes", axes, [[0.0]])
        axes = [torch.tensor(axis, dtype=torch.float64) for axis in axes]
    return {"axes": axes, "options": SamplingOptions(**options), **settings}


def _require_alike(name: str, value: Any, usual: Any) -> None:
    if not is_alike(value, usual):
        raise InvalidArgumentError(f"{name} is {value!r}, of the wrong type")


def _require_known(path: str | Path, part: str, kind: str, known: type[nn.Module]) -> None:
    if kind in _LEFT:
        raise DataFileError(
            f"'{path}' holds a {part} {kind}, which left the library with release 0.4. Read the file with release 0.3, "
            f"or give load a module of yours with the same tensors as {part}=."
        )
    if kind != known.__name__:
        raise DataFileError(
            f"'{path}' holds a {part} {kind}, of which it has the tensors only; give load a module of the same sizes "
            f"as {part}=."
        )
