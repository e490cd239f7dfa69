"""Arguments under their names of release 0.4."""

import warnings
from dataclasses import KW_ONLY, dataclass, replace

import pytest
from torch import Tensor, nn, ones

from solvers._former import by_keyword, renamed
from solvers.errors import InvalidArgumentError


@renamed(samples="draws")
def doubled(factor: float, *, draws: int = 1) -> float:
    """2 f n."""
    return 2 * factor * draws


class Scale(nn.Module):
    @renamed(by="factor")
    def forward(self, field: Tensor, *, factor: float = 1.0) -> Tensor:
        return factor * field


def test_a_former_name_has_the_result_of_the_new_one_and_warns_where_it_is_written() -> None:
    assert doubled.__doc__ == "2 f n."
    for call in (lambda: doubled(3.0, samples=2), lambda: float(Scale()(ones(()), by=12.0))):  # type: ignore[call-arg]
        with pytest.warns(DeprecationWarning, match=r"The argument \w+ of [\w.]+ is \w+ since release 0\.5") as found:
            assert call() == 12.0
        assert [each.filename for each in found] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert doubled(3.0, draws=2) == 12.0


def test_both_names_at_once_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="doubled takes draws, of which samples is the former name"):
        doubled(3.0, samples=2, draws=2)  # type: ignore[call-arg]


@by_keyword("size", "unit", after=1, instead="An area is Area.")
@dataclass(frozen=True)
class Named:
    name: str
    _: KW_ONLY
    size: float = 1.0
    unit: str = "m"


def test_a_former_position_warns_where_it_is_written_and_says_what_to_take_instead() -> None:
    assert replace(Named("a", size=2.0), unit="s") == Named("a", unit="s", size=2.0)
    with pytest.warns(
        DeprecationWarning, match=r"Named takes size, unit by keyword .*until 0.6. An area is Area"
    ) as found:
        assert Named("a", 2.0, "s") == Named("a", size=2.0, unit="s")  # type: ignore[call-arg]
    assert found[0].filename == __file__
    for wrong in (lambda: Named("a", 1.0, "s", 4), lambda: Named("a", 1.0, size=2.0)):  # type: ignore[call-arg]
        with pytest.raises(TypeError, match="Named takes 1 arguments, then size, unit, each of them once"):
            wrong()
