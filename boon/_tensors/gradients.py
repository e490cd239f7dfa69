"""Differentiable operations with gradients in one pass over the field.

Where a graph is recorded or a function transformed (``is_transformed``) they are plain operations of torch,
which compilers, ``vmap`` and ``jvp`` know, and nothing is overwritten.
"""

from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import torch
from torch import Tensor

from solvers.recording import is_transformed

Strip = tuple[int, int, int]


def take_strips(u: Tensor, strips: Sequence[Strip], overwrite: bool = False) -> tuple[Tensor, list[Tensor]]:
    """The field unchanged, and ``u.narrow(dim, start, width)`` for every strip.

    Use the returned field instead of u afterwards: its gradient and those of the strips are then added in one copy,
    whereas autograd would add a field of zeros for every strip.

    Args:
        u: ``(batch, channels, *space)``.
        strips: (dim, start, width) of each.
        overwrite: The returned field will be overwritten: u must be contiguous, not a view, and not used elsewhere.
    """
    if not strips:
        return u, []
    if is_transformed():
        return u, [u.narrow(*strip) for strip in strips]
    result: Any = _TakeStrips.apply(u, tuple(strips), None, overwrite)
    return result[0], list(result[1:])


def edit_nodes(
    u: Tensor,
    strips: Sequence[Strip],
    nodes: Tensor,
    find: Callable[[list[Tensor]], Tensor],
    overwrite: bool = False,
) -> Tensor:
    """The field with some nodes replaced by values computed from strips of it.

    Args:
        u: ``(batch, channels, *space)``.
        strips: (dim, start, width) of the arguments of ``find``.
        nodes: Indices of the nodes to replace in the flattened space, without repetition.
        find: Maps the strips to the new values ``(batch, channels, nodes)``.
        overwrite: Overwrites u, which must be contiguous, not a view, and not used elsewhere.
    """
    if is_transformed():
        return _with_nodes(u, nodes, find([u.narrow(*strip) for strip in strips]))
    result: Any = _TakeStrips.apply(u, tuple(strips), nodes, overwrite)
    values = find(list(result[1:]))
    edited: Any = _PutNodes.apply(result[0], nodes, values, overwrite)
    return edited


def add_at(u: Tensor, nodes: Tensor, values: Tensor) -> Tensor:
    """Adds values ``(batch, channels, nodes)`` at some nodes, in place; conditions on u as in ``edit_nodes``."""
    if is_transformed():
        return u.flatten(2).index_add(2, nodes, values).view(u.shape)
    result: Any = _AddAt.apply(u, nodes, values)
    return result


def add_profiles(u: Tensor, profiles: Tensor, amounts: Tensor, dim: int, overwrite: bool = False) -> Tensor:
    """u + Σ_s profile_s · amount_s along one dimension.

    Args:
        u: ``(batch, channels, *space)``.
        profiles: ``(n, s)``, without gradient.
        amounts: As u, with s instead of n.
        dim: The dimension of u with n nodes.
        overwrite: Overwrites u; conditions as in ``edit_nodes``.
    """
    if is_transformed():
        return u + (amounts.movedim(dim, -1) @ profiles.mT).movedim(-1, dim)
    result: Any = _AddProfiles.apply(u, profiles, amounts, dim, overwrite)
    return result


def multiply_modes(x: Tensor, weight: Tensor) -> Tensor:
    """Σ_c x_bck W_kco: ``(batch, c, modes)`` by ``(modes, c, o)`` → ``(batch, o, modes)``, complex or real.

    Autograd of this product uses transposed and conjugated views, which the complex matrix product copies mode by mode.
    """
    if is_transformed():
        return torch.bmm(_by_mode(x), weight).permute(1, 2, 0)
    result: Any = _MultiplyModes.apply(x, weight)
    return result


def _flat(u: Tensor) -> Tensor:
    """The field with its nodes in one axis, a view where u is contiguous; batches of gradients know no ``flatten``."""
    return u.reshape(*u.shape[:2], prod(u.shape[2:]))


def _with_nodes(u: Tensor, nodes: Tensor, values: Tensor) -> Tensor:
    """The field with other values at some nodes."""
    return u.flatten(2).index_copy(2, nodes, values).view(u.shape)


class _TakeStrips(torch.autograd.Function):
    """The field and strips of it; ``replaced`` are nodes that ``_PutNodes``, the field's only user, replaces."""

    @staticmethod
    def forward(
        ctx: Any, u: Tensor, strips: tuple[Strip, ...], replaced: Tensor | None, overwrite: bool
    ) -> tuple[Tensor, ...]:
        ctx.strips, ctx.replaced = strips, replaced
        if overwrite:
            ctx.mark_dirty(u)
        same = u if overwrite else u.view_as(u)
        return same, *(u.narrow(*strip).clone() for strip in strips)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *grads: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        total = grad.clone(memory_format=torch.contiguous_format)
        if ctx.replaced is not None:
            _flat(total).index_fill_(2, ctx.replaced, 0.0)
        for strip, part in zip(ctx.strips, grads, strict=True):
            total.narrow(*strip).add_(part)
        return total, None, None, None


class _PutNodes(torch.autograd.Function):
    """Replaces nodes; the gradient of the field keeps its entries there, which ``_TakeStrips`` clears."""

    @staticmethod
    def forward(ctx: Any, u: Tensor, nodes: Tensor, values: Tensor, overwrite: bool) -> Tensor:
        ctx.nodes = nodes
        if not overwrite:
            return _with_nodes(u, nodes, values)
        ctx.mark_dirty(u)
        _flat(u).index_copy_(2, nodes, values)
        return u

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, None]:  # type: ignore[override]
        return grad, None, _flat(grad).index_select(2, ctx.nodes), None


class _AddAt(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, nodes: Tensor, values: Tensor) -> Tensor:
        ctx.nodes = nodes
        ctx.mark_dirty(u)
        _flat(u).index_add_(2, nodes, values)
        return u

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor]:  # type: ignore[override]
        return grad, None, _flat(grad).index_select(2, ctx.nodes)


class _AddProfiles(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, u: Tensor, profiles: Tensor, amounts: Tensor, dim: int, overwrite: bool) -> Tensor:
        ctx.profiles, ctx.dim = profiles, dim
        if overwrite:
            ctx.mark_dirty(u)
        return _plus_profiles(
            u if overwrite else u.clone(memory_format=torch.contiguous_format), profiles, amounts, dim
        )

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, Tensor, None, None]:  # type: ignore[override]
        return grad, None, _products(grad, ctx.profiles, ctx.dim), None, None


def _products(u: Tensor, profiles: Tensor, dim: int) -> Tensor:
    """Products of u with every profile along one dimension; for two profiles, u @ profiles would be slower."""
    count, after = u.shape[dim], prod(u.shape[dim + 1 :])
    shape = (*u.shape[:dim], profiles.shape[1], *u.shape[dim + 1 :])
    rows = profiles.mT.contiguous()
    if after == 1:
        return (rows @ u.reshape(-1, count).mT).mT.reshape(shape)
    return (rows @ u.reshape(-1, count, after)).view(shape)


def _plus_profiles(u: Tensor, profiles: Tensor, amounts: Tensor, dim: int) -> Tensor:
    """Adds the profiles to u in place."""
    count, after = u.shape[dim], prod(u.shape[dim + 1 :])
    if after == 1:
        u.view(-1, count).addmm_(amounts.reshape(-1, profiles.shape[1]), profiles.mT)
        return u
    lines = u.view(-1, count, after)
    lines.baddbmm_(profiles.expand(len(lines), -1, -1), amounts.reshape(len(lines), profiles.shape[1], after))
    return u


class _MultiplyModes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.bmm(_by_mode(x), weight).permute(1, 2, 0)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        by_mode = _by_mode(grad)
        grad_x = torch.bmm(by_mode, weight.mH.resolve_conj().contiguous()).permute(1, 2, 0)
        return grad_x, torch.bmm(x.conj().permute(2, 1, 0).resolve_conj().contiguous(), by_mode)


def _by_mode(x: Tensor) -> Tensor:
    return x.permute(2, 0, 1).contiguous()
