"""Linear algebra of the update: covariances, gain, densities and compiled passes.

linear_operator scripts two functions when it is imported, of which torch warns. Nobody who imports this library can do
anything about it, so the first import is a quiet one.
"""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated")
    import linear_operator  # noqa: F401
