import pytest

from experiments.documents import fill
from experiments.errors import DataFileError


@pytest.mark.parametrize("inner", ["\n", "\n\nold\n\n", "\n\nold\n\nlines\n\n"])
def test_the_content_takes_the_place_of_what_stood_there(inner: str) -> None:
    filled = fill(f"a\n<b>{inner}<e>\nz\n", "<b>", "<e>", "new")
    assert filled == "a\n<b>\n\nnew\n\n<e>\nz\n"
    assert fill(filled, "<b>", "<e>", "new") == filled
    assert fill(filled, "<b>", "<e>", "") == "a\n<b>\n<e>\nz\n"


@pytest.mark.parametrize("text", ["", "<b>", "<e>", "<e> <b>", "<b> <b> <e>", "<b> <e> <e>"])
def test_missing_marks_are_named(text: str) -> None:
    with pytest.raises(DataFileError, match="needs the marks '<b>' and '<e>' once each, in this order; put them on"):
        fill(text, "<b>", "<e>", "new")
