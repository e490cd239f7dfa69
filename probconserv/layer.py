"""ProbConserv as a layer: a surrogate whose prediction is conditioned on a constraint."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any, Self

from linear_operator.operators import LinearOperator
from torch import Tensor, nn

from probconserv.errors import InvalidArgumentError
from probconserv.fields.prediction import FieldLayout, FieldPrediction, check_axes, points_of
from probconserv.fitted.members import from_samples
from probconserv.inequalities.inequality import Inequality
from probconserv.inequalities.projected import check_draws
from probconserv.mixture import with_draws
from probconserv.nonlinear.law import AnyLaw, NonlinearLaw
from probconserv.prediction import Prediction
from probconserv.surrogates.surrogate import Context, Query, Surrogate, ask
from probconserv.update import condition
from solvers.recording import check_recording


class ProbConserv(Surrogate):
    """A surrogate whose predictions meet a linear law, inequalities or both; itself a surrogate, so wrappers nest.

    A constraint given as a value moves with the module: ``.to(device)`` takes its tensors along, which stay in float64
    whatever the precision of the module. It is a setting, as an architecture is, and not part of ``state_dict``: a
    layer that loads weights keeps the constraint that it was built with. The layer can be exported,
    compiled as a whole graph, and used in ``torch.func.vmap``, ``jvp`` and ``grad``.

    Args:
        surrogate: A ``Surrogate``, or any module whose ``forward`` returns a ``Normal``, a ``MultivariateNormal``, a
            ``Mixture`` or samples ``(members, *batch, n)``.
        constraint: The constraint, or a function that builds it from the surrogate's arguments:
            ``(context, query)`` for a ``Surrogate``, the arguments of ``forward`` for another module or for an
            ``Ensemble`` of operators. A constraint with parameters to be trained is an ``nn.Module`` that builds it,
            whose parameters are those of the layer.
        layout: For surrogates that predict fields ``(*batch, channels, *space)``, a ``Normal`` or members: how they
            become points. The prediction is then a ``FieldPrediction``, with fields as mean, variance and draws.
        draws: Number of draws for mean and variance of a prediction with inequalities.
        keep_weights: Whether the components of a mixture keep their weights; see ``condition``.
        validate: Whether values are checked; see ``condition``.

    Raises:
        InvalidArgumentError: If a constraint given as a value depends on an ``nn.Parameter``, or is in the place of the
            surrogate, or if there are fewer than two draws.
    """

    if TYPE_CHECKING:
        __call__: Callable[..., Prediction]

    surrogate: nn.Module

    def __init__(
        self,
        surrogate: nn.Module,
        constraint: AnyLaw | Callable[..., AnyLaw],
        *,
        layout: FieldLayout | None = None,
        draws: int = 500,
        keep_weights: bool = False,
        validate: bool = True,
    ) -> None:
        super().__init__()
        if isinstance(surrogate, AnyLaw) or not callable(surrogate):
            raise InvalidArgumentError(
                "surrogate must be a Surrogate or a module that predicts, and comes before the constraint; got "
                f"{type(surrogate).__name__}, then {type(constraint).__name__}."
            )
        check_draws(draws)
        self.surrogate = surrogate
        self.layout = layout
        self.draws = draws
        self.keep_weights = keep_weights
        self.validate = validate
        self._constraint = constraint
        self._names: tuple[str, ...] = ()
        if isinstance(constraint, AnyLaw):
            self._constraint = _of_tensors(constraint)
            tensors = _tensors(self._constraint)
            self._names = tuple(tensors)
            for name, tensor in tensors.items():
                _refuse_parameters(name, tensor)
                self.register_buffer(f"constraint_{name}", tensor, persistent=False)

    @property
    def constraint(self) -> AnyLaw | Callable[..., AnyLaw]:
        """The constraint, on the device of the module, or the function that builds it."""
        if not isinstance(self._constraint, AnyLaw):
            return self._constraint
        tensors = {name: getattr(self, f"constraint_{name}") for name in self._names}
        if all(tensors[name] is tensor for name, tensor in _tensors(self._constraint).items()):
            return self._constraint
        return _with_tensors(self._constraint, tensors)

    def predict(self, context: Context, query: Query) -> Prediction:
        """Predicts with the surrogate and conditions the result; see ``Surrogate.predict`` and ``condition``."""
        return self(context, query)

    def forward(self, *arguments: Any) -> Prediction:
        """The conditioned prediction over n points, or of fields if the layer has a layout.

        Raises:
            MissingPackageError: If a PyTorch below 2.11 compiles or exports it.
        """
        check_recording()
        constraint, prior = self.constraint, ask(self.surrogate, arguments)
        constraint = constraint if isinstance(constraint, AnyLaw) else constraint(*arguments)
        if self.layout is not None:
            prior = points_of(prior, self.layout)
            check_axes(prior.mean.shape, constraint, self.layout)
        prior = from_samples(prior) if isinstance(prior, Tensor) else prior
        prediction = condition(prior, constraint, keep_weights=self.keep_weights, validate=self.validate)
        prediction = with_draws(prediction, self.draws) or prediction
        return prediction if self.layout is None else FieldPrediction(prediction, self.layout)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Self:
        """Moves the constraint with the module but leaves it in float64."""
        before = {name: getattr(self, f"constraint_{name}") for name in self._names}
        super()._apply(fn, recurse)
        for name, tensor in before.items():
            after = getattr(self, f"constraint_{name}")
            if after.dtype != tensor.dtype:
                setattr(self, f"constraint_{name}", tensor.to(after.device))
        self._constraint = self.constraint
        return self


def _of_tensors(constraint: AnyLaw) -> AnyLaw:
    """The same constraint as tensors and dataclasses of them."""
    if isinstance(constraint, Inequality):
        joined = constraint.joined()
        return joined if joined.law is None else replace(joined, law=_of_tensors(joined.law))
    if isinstance(constraint, NonlinearLaw):
        linear = constraint.linear
        return constraint if linear is None else replace(constraint, linear=_of_tensors(linear))
    return replace(constraint, G=constraint.rows) if isinstance(constraint.G, LinearOperator) else constraint


def _refuse_parameters(name: str, tensor: Tensor) -> None:
    """Refuses a tensor computed from parameters, which no optimiser of the layer would change."""
    if isinstance(tensor, nn.Parameter) or any(isinstance(leaf, nn.Parameter) for leaf in _leaves(tensor)):
        raise InvalidArgumentError(
            f"A constraint given as a value must not depend on an nn.Parameter, got one in its {name}: the layer would "
            "not have this parameter, nor follow its changes. Give an nn.Module that has it and whose "
            "forward(*arguments) builds the constraint, or call condition(surrogate(x), constraint) in every step."
        )


def _leaves(tensor: Tensor) -> Iterator[Tensor]:
    """The tensors with derivatives that a tensor was computed from."""
    nodes, seen = [tensor.grad_fn], set()
    while nodes:
        node = nodes.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if isinstance(leaf := getattr(node, "variable", None), Tensor):
            yield leaf
        nodes.extend(parent for parent, _ in node.next_functions)


def _tensors(constraint: Any, prefix: str = "") -> dict[str, Tensor]:
    """All tensors of a constraint, by the names of the fields that hold them."""
    tensors = {}
    for field in fields(constraint):
        value = getattr(constraint, field.name)
        if isinstance(value, Tensor):
            tensors[prefix + field.name] = value
        elif is_dataclass(value):
            tensors |= _tensors(value, f"{prefix}{field.name}_")
    return tensors


def _with_tensors(constraint: Any, tensors: Mapping[str, Tensor], prefix: str = "") -> Any:
    """The constraint with other tensors."""
    changes = {}
    for field in fields(constraint):
        value = getattr(constraint, field.name)
        if isinstance(value, Tensor):
            changes[field.name] = tensors[prefix + field.name]
        elif is_dataclass(value):
            changes[field.name] = _with_tensors(value, tensors, f"{prefix}{field.name}_")
    return replace(constraint, **changes)
