"""Devices, precision and several processes by lightning-fabric, in a module of its own since it is slow to import."""

from typing import Any

from lightning_fabric import Fabric
from lightning_fabric.plugins import MixedPrecision

from probconserv.training.config import TrainingConfig
from probconserv.training.processes import Ranks


def launched_fabric(config: TrainingConfig, ranks: Ranks) -> Fabric:
    """Fabric on the device, with the precision and the processes of a training, launched."""
    fabric = Fabric(**_placement(config, ranks), **_precision(config))
    fabric.launch()
    return fabric


class _Autocast(MixedPrecision):
    """Products in bfloat16, inputs as they are: rounded coordinates would move every front by a few thousandths."""

    def convert_input(self, data: Any) -> Any:
        return data


def _placement(config: TrainingConfig, ranks: Ranks) -> dict[str, Any]:
    """Fabric's arguments for device and processes."""
    kind, _, index = config.device.partition(":")
    nodes = ranks.world_size // ranks.local_world_size
    return {"accelerator": kind, "devices": [int(index)] if index else ranks.local_world_size, "num_nodes": nodes}


def _precision(config: TrainingConfig) -> dict[str, Any]:
    """Fabric's arguments for a number format."""
    if config.precision != "bf16-mixed":
        return {"precision": config.precision}
    return {"plugins": [_Autocast("bf16-mixed", config.device.partition(":")[0])]}
