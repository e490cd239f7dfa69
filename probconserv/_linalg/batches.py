"""Batch axes of a prediction under a law."""

import torch

from probconserv.errors import IncompatibleQueryError


def check_batch(prior: torch.Size, constraint: torch.Size) -> torch.Size:
    """The batch axes of a conditioned prediction: those of the prior, or of the constraint for a single field."""
    if prior == constraint or len(constraint) == 0:
        return prior
    try:
        batch = torch.broadcast_shapes(prior, constraint)
    except RuntimeError as error:
        raise IncompatibleQueryError(
            f"The batch axes of the prediction {tuple(prior)} and of the constraint {tuple(constraint)} do not "
            "broadcast; give the constraint one total per function."
        ) from error
    if batch != prior and prior.numel() != 1:
        raise IncompatibleQueryError(
            f"The constraint has the batch axes {tuple(constraint)} but the prediction {tuple(prior)}, so that every "
            f"field would be combined with several totals, to {tuple(batch)}; give the constraint the axes of the "
            "prediction, or expand the prediction if that is meant."
        )
    return batch
