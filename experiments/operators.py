"""What the operators of all families have in common: those that are released belong to version 0.1 of the library."""

from boon import FourierTransform, MatchedTransform, NodeFourier

TRANSFORM: FourierTransform = NodeFourier()
"""Of every new operator of an experiment. To change it raise the versions of the data too: trainings are identified by
their sizes and the version, not by this."""

DEFAULT = MatchedTransform
"""The correction that tables call the default."""
