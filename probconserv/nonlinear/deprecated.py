"""Functions of release 0.3 for nonlinear laws, which ``condition`` takes now; they go with release 0.5."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor

from probconserv.inequalities.projected import Projected
from probconserv.nonlinear.law import NonlinearLaw
from probconserv.nonlinear.mode import NonlinearMode
from probconserv.posterior import Posterior
from probconserv.prior import Prior, as_prior
from probconserv.update import condition


def condition_nonlinear(
    prior: Prior,
    law: NonlinearLaw | Callable[[Tensor], Tensor],
    tolerance: float = 1e-10,
    max_iterations: int = 200,
    *,
    starts: int = 5,
    jacobian: Any = None,  # noqa: ARG001 - a law finds its own
) -> Posterior | Projected:
    """``condition(prior, NonlinearLaw(residual_function=g, points=n, …))``."""
    given = as_prior(prior)
    if not isinstance(law, NonlinearLaw):
        g, batch = law, given.batch_shape
        function = (lambda u: g(u.unflatten(0, batch)).flatten(0, -2)) if len(batch) > 1 else g
        law = NonlinearLaw(residual_function=function, points=given.event_shape[-1])
    law = replace(law, tolerance=tolerance, max_iterations=max_iterations, starts=starts)
    conditioned = condition(given, law)
    assert isinstance(conditioned, Posterior | Projected)
    return conditioned


def nonlinear_mode(*arguments: Any, **options: Any) -> NonlinearMode:
    """``condition(prior, law).search``; arguments are those of ``condition_nonlinear``."""
    search = condition_nonlinear(*arguments, **options).search
    assert search is not None
    return search
