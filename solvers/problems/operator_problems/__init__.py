"""Problems whose solution operators are to be learned: random inputs and data of the sides, solved and restricted."""

from solvers._lazy import lazy_names

__getattr__, __dir__, __all__ = lazy_names(__name__)
