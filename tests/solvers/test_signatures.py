"""Former names and positions of arguments."""

from dataclasses import KW_ONLY, dataclass, replace

import pytest

from solvers._signatures import accepting
from solvers.errors import InvalidArgumentError


@accepting("size", "unit", instead="An area is Area.", length="size")
@dataclass(frozen=True)
class Named:
    name: str
    _: KW_ONLY
    size: float = 1.0
    unit: str = "m"


@accepting(n="draws", count="draws")
def drawn(start: int, draws: int = 3) -> tuple[int, int]:
    """Docstring."""
    return start, draws


def test_todays_arguments_pass_as_they_are() -> None:
    assert replace(Named("a", size=2.0), unit="s") == Named("a", unit="s", size=2.0)
    assert drawn(1, 2) == drawn(start=1, draws=2) == (1, 2)
    assert drawn.__name__ == "drawn"
    assert drawn.__doc__ == "Docstring."


def test_former_arguments_work_with_a_deprecation_at_the_line_that_gives_them() -> None:
    for former in (lambda: drawn(1, n=2), lambda: drawn(1, count=2)):
        with pytest.warns(DeprecationWarning, match="of drawn is draws since release 0.5.*goes with 0.7") as found:
            assert former() == (1, 2)
        assert found[0].filename == __file__
    with pytest.warns(
        DeprecationWarning, match="Named takes size, unit by keyword .*until 0.7. An area is Area.$"
    ) as found:
        assert Named("a", 2.0, "s") == Named("a", size=2.0, unit="s")
    assert found[0].filename == __file__
    with pytest.warns(DeprecationWarning, match="length of Named is size"):
        assert Named("a", length=3.0) == Named("a", size=3.0)  # type: ignore[call-arg]


def test_two_names_of_one_argument_and_unknown_ones_are_refused() -> None:
    for both in ({"n": 1, "draws": 2}, {"draws": 2, "n": 1}):
        with pytest.raises(InvalidArgumentError, match="drawn got draws and n, its former name; give draws alone"):
            drawn(1, **both)
    with (
        pytest.warns(DeprecationWarning, match="n of drawn"),
        pytest.raises(InvalidArgumentError, match="draws and count, its former name"),
    ):
        drawn(1, n=1, count=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'members'"):
        drawn(1, members=2)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Named takes 2 arguments after the first ones, size, unit"):
        Named("a", 1.0, "s", 4)  # type: ignore[call-arg]
    with (
        pytest.warns(DeprecationWarning, match="by keyword"),
        pytest.raises(TypeError, match="multiple values for argument 'size'"),
    ):
        Named("a", 1.0, size=2.0)  # type: ignore[call-arg]
