"""Random numbers of several processes beside those of one."""

from collections.abc import Callable

import torch

from experiments.processes import Share, WholeBatchDraws


def check_shared_draws(draw: Callable[[int], list[torch.Tensor]], count: int) -> None:
    """Asserts that what processes draw for their rows are the rows of what one draws for a batch of six.

    Args:
        draw: Number of rows → random tensors, rows first.
        count: Number of processes.
    """
    torch.manual_seed(3)
    expected = draw(6)
    found = []
    for index in range(count):
        torch.manual_seed(3)
        with WholeBatchDraws(Share(index, count)):
            found.append(draw(6 // count))
    for whole, parts in zip(expected, zip(*found, strict=True), strict=True):
        assert torch.equal(whole, torch.cat(parts))
