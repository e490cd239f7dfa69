"""What released operators of version 0.1 have in common."""

from boon import FourierTransform, NodeFourier

TRANSFORM: FourierTransform = NodeFourier()
"""Of the operators of the combined experiments. To change it raise the versions of the data too: trainings are
identified by their sizes and the version, not by this."""
