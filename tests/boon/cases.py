"""The corrections that tests go through."""

from boon import Elimination, MatchedTransform, MixedTransform, Prescription, ScalarElimination, SmoothExtension

AT_THE_OUTPUT = [Prescription(), SmoothExtension(), SmoothExtension(reach=0.0)]
INSIDE = [
    Prescription(hidden=True),
    SmoothExtension(hidden=True),
    SmoothExtension(hidden=True, reach=0.0),
    MatchedTransform(),
    MixedTransform(),
]
BOTH_ENDS = [Elimination(), Elimination(block=True), ScalarElimination()]
"""Those that need conditions at both ends of an axis."""
ONE_OF_A_KIND = [Prescription(hidden=True), SmoothExtension(hidden=True), MatchedTransform(), MixedTransform()]
EVERY = [
    *AT_THE_OUTPUT,
    *INSIDE,
    *BOTH_ENDS,
    Elimination(hidden=False),
    MatchedTransform(hidden=False),
    MixedTransform(share=0.0),
]
