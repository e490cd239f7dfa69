"""When recomputed scores count as the released ones."""

from experiments.records.record import as_frame
from experiments.records.verdict import compare
from tests.experiments.records.test_records import record


def test_a_verdict_allows_three_digits_and_round_off() -> None:
    released = as_frame([record(1.0), record(1e-13, score="CE"), record(2.0, score="LL")])
    equal = compare(as_frame([record(1.0009), record(3e-13, score="CE"), record(2.0, score="LL", seed=1)]), released)
    assert equal.reproduced
    assert str(equal) == "Reproduced: the row equals the released ones to three digits."
    assert len(equal.compared) == 2, "other seeds are not compared"
    different = compare(as_frame([record(1.002), record(1e-5, score="CE"), record(2.0, score="LL")]), released)
    assert not different.reproduced
    assert different.different["score"].tolist() == ["MSE", "CE"]
    assert str(different).startswith("NOT reproduced: 2 of 3 scores differ (anp at u=0.6: MSE 1.002, released 1;")
    slower = compare(
        as_frame([record(1.0), record(9.0, score="draw_milliseconds")]),
        as_frame([record(1.0), record(2.0, score="draw_milliseconds")]),
    )
    assert slower.reproduced, "times of two runs differ"
    nothing = compare(as_frame([record(1.0, seed=5)]), released)
    assert not nothing.reproduced
    assert str(nothing).startswith("Nothing to compare")
    assert str(compare(released.head(0), released)) == str(nothing), "a study of which all rows are copied"


def test_relative_errors_of_round_off_count_as_equal() -> None:
    """A regression of float32 data; nothing above the eps of float32, and no other score, is compared less closely."""
    released = as_frame([record(3.364e-8, score="relative_l2"), record(1e-4, score="validation")])
    equal = compare(as_frame([record(3.3596e-8, score="relative_l2"), record(1.0001e-4, score="validation")]), released)
    assert str(equal) == (
        "Reproduced: the row equals the released ones to three digits; 1 score is at most 1.2e-07, the round-off of "
        "single precision, both times."
    )
    for score, mean, before in (
        ("relative_l2", 1.21e-7, 3e-8),
        ("relative_l2", 1e-8, 1.21e-7),
        ("validation", 2.003e-7, 2e-7),
        ("MSE", 3.3596e-8, 3.364e-8),
        ("CRPS", 3.3596e-8, 3.364e-8),
    ):
        different = compare(as_frame([record(mean, score=score)]), as_frame([record(before, score=score)]))
        assert not different.reproduced, (score, mean)
        assert "round-off" not in str(different)
