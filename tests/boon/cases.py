"""The corrections that tests go through."""

from boon import Elimination, MixedTransform, Prescription, SmoothExtension

ONE_OF_A_KIND = [Prescription(hidden=True), SmoothExtension(hidden=True), MixedTransform()]
EVERY = [
    Prescription(),
    SmoothExtension(),
    SmoothExtension(reach=0.0),
    SmoothExtension(hidden=True, reach=0.0),
    *ONE_OF_A_KIND,
    Elimination(),
    Elimination(hidden=False),
    MixedTransform(share=0.0),
]
