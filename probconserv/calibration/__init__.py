"""Corrected uncertainty for a surrogate used outside the range it was trained on.

A surrogate trained on some parameters is overconfident on others. For fields with fronts it then predicts the right
profile at a slightly wrong position; ``doubt`` adds that uncertainty as far as a law says, ``displaced`` always. The
usual alternatives are in ``probconserv.calibration.variance``.
"""

from solvers._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__)
