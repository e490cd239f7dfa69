"""Flows on disk: coordinates, weights and settings in one safetensors file."""

from pathlib import Path
from typing import Any

from torch import nn

from probconserv.errors import InvalidArgumentError, WeightsError
from probconserv.surrogates.flow.latent import FieldLatent, KarhunenLoeve, Latent
from probconserv.surrogates.flow.network import ResidualVelocity
from probconserv.surrogates.weights import Weights, fill, read_weights, write_weights

_KIND = "FlowMatching"


def write_flow(
    path: str | Path, latent: Latent, velocity: nn.Module, settings: dict[str, Any], notes: dict[str, Any]
) -> None:
    """Writes a flow; modules from outside this library store their tensors only.

    Raises:
        WeightsError: If the file cannot be written.
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

    Raises:
        WeightsError: If the file is missing, damaged or of another model, or a module has other sizes.
    """
    weights = read_weights(path, _KIND)
    parts = {part: _under(weights.tensors, f"{part}.") for part in ("latent", "velocity")}
    config = weights.config
    try:
        latent = latent or _stored_latent(path, config, parts["latent"])
        velocity = velocity or _stored_velocity(path, config, latent)
        settings = dict(config["settings"])
    except (KeyError, TypeError, ValueError, InvalidArgumentError) as error:
        raise WeightsError(f"The config in '{path}' is not that of a flow ({error}); train again.") from error
    for module, tensors in ((latent, parts["latent"]), (velocity, parts["velocity"])):
        fill(path, module, tensors)
    return latent, velocity, settings


def _under(tensors: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def _stored_latent(path: str | Path, config: dict[str, Any], tensors: dict[str, Any]) -> Latent:
    shape = tuple(config["shape"])
    if config["latent"] == FieldLatent.__name__:
        return FieldLatent(KarhunenLoeve(**_under(tensors, "modes."), shape=shape), tensors.get("noise_root"))
    if config["latent"] != KarhunenLoeve.__name__:
        raise WeightsError(f"'{path}' holds a flow in {config['latent']}; give load one of the same sizes as latent=.")
    tensors.setdefault("spread", tensors["mean"].new_ones(len(tensors["basis"])))  # files before it was stored
    return KarhunenLoeve(**tensors, shape=shape)


def _stored_velocity(path: str | Path, config: dict[str, Any], latent: Latent) -> nn.Module:
    if config["velocity"] != ResidualVelocity.__name__:
        raise WeightsError(
            f"'{path}' holds a velocity {config['velocity']}; give load a module of the same sizes as velocity=."
        )
    return ResidualVelocity(latent.state_shape[0], **config["network"])
