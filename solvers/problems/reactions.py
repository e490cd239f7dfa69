"""Reaction–diffusion systems with patterns and waves, for ``solve_system``."""

from solvers._compiled import compiled
from solvers.systems.pointwise import State
from solvers.systems.reactions import ReactionDiffusion


@compiled
def _gray_scott(u: State, feed: float, kill: float) -> State:
    made = u[0] * u[1] * u[1]
    return feed * (1.0 - u[0]) - made, made - (feed + kill) * u[1]


@compiled
def _fitzhugh_nagumo(u: State, threshold: float, rate: float, decay: float) -> State:
    return u[0] * (1.0 - u[0]) * (u[0] - threshold) - u[1], rate * (u[0] - decay * u[1])


@compiled
def _brusselator(u: State, a: float, b: float) -> State:
    made = u[0] * u[0] * u[1]
    return a - (b + 1.0) * u[0] + made, b * u[0] - made


def gray_scott(
    feed: float = 0.04, kill: float = 0.06, diffusivities: tuple[float, float] = (2e-5, 1e-5)
) -> ReactionDiffusion:
    """Gray and Scott's autocatalysis: u_t = D₁∇²u − uv² + F (1 − u), v_t = D₂∇²v + uv² − (F + K) v (Pearson 1993)."""
    return ReactionDiffusion(reaction=_gray_scott, diffusivities=diffusivities, parameters=(feed, kill))


def fitzhugh_nagumo(
    threshold: float = 0.1, rate: float = 0.01, decay: float = 0.5, diffusivities: tuple[float, float] = (1e-4, 0.0)
) -> ReactionDiffusion:
    """FitzHugh and Nagumo's excitable medium: u_t = D₁∇²u + u (1 − u)(u − a) − v, v_t = D₂∇²v + ε (u − γ v)."""
    return ReactionDiffusion(
        reaction=_fitzhugh_nagumo, diffusivities=diffusivities, parameters=(threshold, rate, decay)
    )


def brusselator(a: float = 1.0, b: float = 3.0, diffusivities: tuple[float, float] = (1e-3, 1e-3)) -> ReactionDiffusion:
    """The Brusselator: u_t = D₁∇²u + A − (B + 1) u + u²v, v_t = D₂∇²v + B u − u²v; oscillates for B > 1 + A²."""
    return ReactionDiffusion(reaction=_brusselator, diffusivities=diffusivities, parameters=(a, b))
