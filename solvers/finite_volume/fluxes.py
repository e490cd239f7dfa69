"""Fluxes through cell faces: means of conductivities, numerical fluxes and reconstructions, all in one place."""

from solvers.finite_volume.face_means import (
    ArithmeticMean,
    FaceFlux,
    FaceMean,
    HarmonicMean,
    IntegralMean,
    conductivity_with_slope,
)
from solvers.finite_volume.numerical_fluxes import Godunov, NumericalFlux, Rusanov
from solvers.finite_volume.reconstruction import MUSCL, WENO, Constant, Limiter, Reconstruction

__all__ = [
    "MUSCL",
    "WENO",
    "ArithmeticMean",
    "Constant",
    "FaceFlux",
    "FaceMean",
    "Godunov",
    "HarmonicMean",
    "IntegralMean",
    "Limiter",
    "NumericalFlux",
    "Reconstruction",
    "Rusanov",
    "conductivity_with_slope",
]
