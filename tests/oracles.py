"""Slow, dense, independent re-statements of what the packages compute, in NumPy."""

import itertools

import numpy as np
from scipy.stats import multivariate_normal


def condition_densely(mean, covariance, G, b, noise):
    """Mean and covariance of N(μ, Σ) given G u = b + ε, with every matrix formed: (n,), (n, n), (k, n), (k,), (k,)."""
    gain = np.linalg.solve(G @ covariance @ G.T + np.diag(noise), G @ covariance).T
    return mean - gain @ (G @ mean - b), covariance - gain @ G @ covariance


def log_density_on_surface(u, mean, covariance, G, b):
    """Log-density on {G u = b} by a change of variables to an orthonormal basis of the surface.

    u = p + Z y with G p = b and Z an orthonormal basis of the null space of G: y is an ordinary Gaussian.
    """
    k = len(b)
    basis = np.linalg.svd(G)[2][k:].T
    particular = np.linalg.lstsq(G, b, rcond=None)[0]
    conditioned, reduced = condition_densely(mean, covariance, G, b, np.zeros(k))
    return multivariate_normal.logpdf(
        basis.T @ (u - particular), basis.T @ (conditioned - particular), basis.T @ reduced @ basis
    )


def crps_by_quadrature(u, mean, deviation):
    """∫ (F(x) − 1[x ≥ u])² dx of a Gaussian on a fine grid."""
    from scipy.stats import norm

    grid = np.linspace(min(mean, u) - 12 * deviation, max(mean, u) + 12 * deviation, 400_001)
    return np.trapezoid((norm.cdf(grid, mean, deviation) - (grid >= u)) ** 2, grid)


def padded_spectral_convolution(x, weight, periods):
    """ŷ(k) = x̂(k) W(k) by full FFTs of the field padded with zeros to the periods, truncated to the kept modes.

    The modes of all axes but the last are stored in the order 0, 1 … m − 1, −1 … −(m − 1).
    """
    dims = tuple(range(2, x.ndim))
    spectrum = np.fft.rfftn(x, s=tuple(periods), axes=dims)
    result = np.zeros((x.shape[0], weight.shape[-1], *spectrum.shape[2:]), dtype=complex)
    for index in itertools.product(*(range(size) for size in weight.shape[:-2])):
        target = []
        for axis, i in enumerate(index):
            modes = (weight.shape[axis] + 1) // 2
            last = axis == len(index) - 1
            target.append(i if last or i < modes else periods[axis] - (i - modes + 1))
        key = (slice(None), slice(None), *target)
        result[key] = spectrum[key] @ weight[index]
    y = np.fft.irfftn(result, s=tuple(periods), axes=dims)
    return y[(..., *(slice(n) for n in x.shape[2:]))]


def eliminate_densely(x, weight, periods, axes, margin=0, convolution=padded_spectral_convolution):
    """K T₂ x with every matrix formed: K from unit vectors on the padded grid, one T₂ per axis and end.

    T₂ replaces x_B by 2 x_B − (K x)_B / s on all padded nodes of a face, with s the response of channel 0 at a node to
    ones in all channels there. Ends lie ``margin`` nodes inside of the field; ``convolution`` applies K.
    """
    batch, channels, *shape = x.shape
    padded = np.zeros((batch, channels, *periods))
    padded[(..., *(slice(n) for n in shape))] = x
    size = channels * int(np.prod(periods))
    unit = np.eye(size).reshape(size, channels, *periods)
    kernel = convolution(unit, weight, periods).reshape(size, size).T
    index = np.arange(size).reshape(channels, *periods)
    node = index.reshape(channels, -1)[:, 0]
    scalar = kernel[node[0], node].sum()
    state = padded.reshape(batch, size).T
    for axis in axes:
        for end in (margin, shape[axis] - 1 - margin):
            face = np.take(index, [end], axis=1 + axis).ravel()
            state = state.copy()
            state[face] = 2 * state[face] - (kernel @ state)[face] / scalar
    result = (kernel @ state).T.reshape(batch, channels, *periods)
    return result[(..., *(slice(n) for n in shape))]


def most_probable_by_enumeration(mean, covariance, rows, b, inequalities, limits):
    """argmin (u − μ)ᵀ Σ⁻¹ (u − μ) with G u = b and C u ≥ d, by trying every set of active inequalities.

    The minimiser is the best feasible one among the minimisers on {G u = b, C_A u = d_A}; few inequalities only.
    """
    precision = np.linalg.inv(covariance)
    best, lowest = None, np.inf
    scale = 1 + np.abs(mean).max() + np.abs(b).max(initial=0) + np.abs(limits).max(initial=0)
    for active in itertools.product((False, True), repeat=len(limits)):
        chosen = np.array(active, dtype=bool)
        fixed, goal = np.vstack([rows, inequalities[chosen]]), np.concatenate([b, limits[chosen]])
        gap = np.linalg.lstsq(fixed @ covariance @ fixed.T, goal - fixed @ mean, rcond=1e-12)[0]
        u = mean + covariance @ fixed.T @ gap
        if np.abs(fixed @ u - goal).max(initial=0) > 1e-9 * scale or (inequalities @ u < limits - 1e-9 * scale).any():
            continue
        objective = (u - mean) @ precision @ (u - mean)
        if objective < lowest:
            best, lowest = u, objective
    return best


def truncated_moments_by_quadrature(mean, covariance, rows, b, noise, bounds, points=120):
    """Mean and variance of N(μ, Σ) given G u = b + ε between two bounds, by a tensor product of midpoint rules."""
    axis = bounds[0] + (bounds[1] - bounds[0]) * (np.arange(points) + 0.5) / points
    grid = np.stack(np.meshgrid(*[axis] * len(mean), indexing="ij"), axis=-1).reshape(-1, len(mean))
    off = grid - mean
    exponent = (off @ np.linalg.inv(covariance) * off).sum(-1) + ((grid @ rows.T - b) ** 2).sum(-1) / noise
    weight = np.exp(-0.5 * (exponent - exponent.min()))
    weight /= weight.sum()
    centre = weight @ grid
    return centre, weight @ (grid - centre) ** 2
