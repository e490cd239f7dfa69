"""Five kinds of input: missing values, another unit, a batch axis of one, few cases, a second call.

Each is a change of the numbers that a feature takes, and a rule for what its answer must then be.
"""

import re
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from solvers.errors import LibraryError
from tests.probconserv.pairs.changes import USUAL, Answer, Change, Given

UNITS = 2.0**-30, 2.0**30
"""About 1e-9 and 1e9, without rounding."""
FEW = 3, 4, 5, 10


@dataclass(frozen=True, kw_only=True)
class Feature:
    """Something of the library that is made once and asked, perhaps several times.

    Args:
        ask: (what was made, inputs) → answers.
        make: Inputs → what is asked; inputs may name a folder.
        save: Writes what was made.
        load: (file, inputs) → what was made.
        dropped: (inputs with a hole) → the answers without the missing values, where they are allowed.
        expected: Inputs → the answers in closed form, for few cases.
        rounding: Largest relative error between answers that must be equal, 4e6 machine epsilons unless a reason is
            given.
        unused: Inputs and options that do not change the answers, such as those of a progress bar.
        single: The same for inputs in single precision, 2e3 machine epsilons.
        lengths: Whether the unit of length can be changed.
        alike: Whether an entry in a batch of three is as alone: not where random numbers, the number of components or
            the end of an optimisation are those of the batch.
        errors: What it may refuse by.
        long: Whether its pairs are left to the long tests.
    """

    ask: Callable[[Any, Given], Answer]
    make: Callable[[Given], Any] = lambda _: None
    save: Callable[[Any, Path], None] | None = None
    load: Callable[[Path, Given], Any] | None = None
    dropped: Callable[[Given], Answer] | None = None
    expected: Callable[[Given], Answer] | None = None
    rounding: float = 1e-9
    single: float = 2e-4
    unused: tuple[str, ...] = ()
    lengths: bool = True
    alike: bool = True
    errors: tuple[type[Exception], ...] = (LibraryError,)
    long: bool = False

    def __call__(self, change: Change = USUAL, folder: Path | None = None) -> tuple[Answer, Given]:
        """The answers, and the inputs that they belong to."""
        given = Given(change, folder)
        return self.ask(self.make(given), given), given


class Verdict(NamedTuple):
    """What became of a pair of a feature and a kind of input: "right", "refused", "warned" or "wrong", and why."""

    pair: str
    outcome: str
    text: str = ""


Result = Answer | Exception


def attempt(call: Callable[[], Answer]) -> tuple[Result, list[str]]:
    """The answer or the error, and warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            result: Result = call()
        except Exception as error:  # judged by the caller
            result = error
    return result, [str(warning.message) for warning in caught]


def differences(answer: Answer, expected: Answer, rounding: float, changes: tuple[Change, Change]) -> list[str]:
    """Names of the answers that differ, with both values."""
    found = []
    for name, quantity in expected.items():
        values, aim = answer[name].in_units_of(changes[0]), quantity.in_units_of(changes[1])
        if values.shape != aim.shape:
            found.append(f"{name} has the shape {tuple(values.shape)} for {tuple(aim.shape)}")
            continue
        size = float(aim.nan_to_num(0, 0, 0).abs().max()) if aim.numel() else 0.0
        if not torch.allclose(values, aim, rtol=rounding, atol=rounding * size, equal_nan=True):
            found.append(f"{name} is {_shown(values)} for {_shown(aim)}")
    return found


def _shown(values: Tensor) -> str:
    flat = values.flatten()
    return ", ".join(f"{float(value):.6g}" for value in flat[:3]) + (" …" if len(flat) > 3 else "")


def judged(
    pair: str,
    result: Result,
    expected: Answer,
    rounding: float,
    changes: tuple[Change, Change],
    names: tuple[str, ...] | None = (),
) -> Verdict:
    """Right if it is as expected, refused if by an error of the library that has all names; names None: no refusal."""
    if isinstance(result, Exception):
        text = f"{type(result).__name__}: {result}"
        ours = names is not None and isinstance(result, LibraryError)
        named = ours and all(re.search(name, str(result)) for name in names or ())
        return Verdict(pair, "refused" if named else "wrong", text)
    wrong = differences(result, expected, rounding, changes)
    return Verdict(pair, "wrong" if wrong else "right", "; ".join(wrong))


def in_other_units(feature: Feature, _: Path) -> Iterator[Verdict]:
    """The answers are those in usual units, times the unit; never refused."""
    usual = USUAL
    for dtype in (torch.float64, torch.float32):
        usual = replace(USUAL, dtype=dtype)
        expected, _given = feature(usual)
        rounding = feature.rounding if dtype == torch.float64 else feature.single
        for name in ("unit", "length") if feature.lengths else ("unit",):
            for factor in UNITS:
                change = replace(usual, **{name: factor})
                result, _texts = attempt(lambda change=change: feature(change)[0])
                pair = f"{name} {factor:.1g}, {str(dtype)[6:]}"
                yield judged(pair, result, expected, rounding, (change, usual), None)


def in_a_batch_of_one(feature: Feature, _: Path) -> Iterator[Verdict]:
    """A batch axis of one, of all inputs or of one of them, changes nothing but shapes."""
    _usual, given = feature()
    many = replace(USUAL, shape=(3,))
    together, _texts = attempt(lambda: feature(many)[0])
    names = list(dict.fromkeys(given.batched))
    for name in ("", *names)[: 1 if len(names) < 2 else None] if names else ():
        one = replace(USUAL, shape=(1,), batched=name)
        result, _texts = attempt(lambda one=one: _of_shapes(feature(one)[0], _usual))
        pair = f"(1, …) of {name or 'all'}"
        yield judged(pair, result, _usual, feature.rounding, (one, USUAL))
    if not given.batched or not feature.alike:
        return
    if isinstance(together, Exception):
        yield judged("a batch of three", together, {}, 0, (USUAL, USUAL))
        return
    first = _of_entry(together, 0)
    fixed = {key: each for key, each in _usual.items() if key in first and not each.random}
    yield judged("in a batch of three", first, fixed, feature.rounding, (many, USUAL), None)


def _of_shapes(answer: Answer, like: Answer) -> Answer:
    """Answers without batch axes of one."""
    shapes = {key: each.values.shape for key, each in like.items()}
    return {
        key: replace(each, values=each.values.reshape(shapes[key]))
        if each.values.numel() == shapes[key].numel()
        else each
        for key, each in answer.items()
    }


def _of_entry(answer: Answer, number: int) -> Answer:
    """What an answer says of one entry of a batch."""
    return {key: each.entry(number) for key, each in answer.items() if each.lead is not None}


def with_holes(feature: Feature, _: Path) -> Iterator[Verdict]:
    """A missing value is refused by the name of its input, or leaves NaN, or what is without it; others stay."""
    _answer, alone = feature()
    can_batch = bool(alone.batched) and not isinstance(
        attempt(lambda: feature(replace(USUAL, shape=(3,)))[0])[0], Exception
    )
    shape = (3,) if can_batch else ()
    usual, given = feature(replace(USUAL, shape=shape))
    for name in given.inputs:
        change = replace(USUAL, shape=shape, hole=name)
        result, _texts = attempt(lambda change=change: feature(change)[0])
        if isinstance(result, Exception):
            if isinstance(result, feature.errors) and re.search(given.says[name], str(result)):
                yield Verdict(name, "refused", str(result))
            else:
                yield Verdict(name, "wrong", f"{type(result).__name__}: {result}")
            continue
        aim = usual
        if given.change.shape and given.inputs[name].shape != alone.inputs[name].shape:
            for entry in (1, 2):
                parts = (_of_entry(part, entry) for part in (result, usual))
                yield judged(f"{name}, another entry", *parts, feature.rounding, (change, change))
            result, aim = _of_entry(result, 0), _of_entry(usual, 0)
        if feature.dropped is not None:
            without = feature.dropped(Given(change))
            yield judged(name, result, without, feature.rounding, (change, change))
            continue
        finite = {key: each for key, each in aim.items() if bool(result[key].values.isfinite().all())}
        changed = differences(result, finite, feature.rounding, (change, change))
        yield Verdict(name, "wrong" if changed else "right", "without a word " + "; ".join(changed))


def of_few_cases(feature: Feature, _: Path) -> Iterator[Verdict]:
    """Closed form, or a warning, or a refusal."""
    assert feature.expected is not None
    for cases in FEW:
        change = replace(USUAL, cases=cases)
        result, texts = attempt(lambda change=change: feature(change)[0])
        pair = f"{cases} cases"
        if texts and not isinstance(result, Exception):
            yield Verdict(pair, "warned", texts[0])
            continue
        expected = feature.expected(Given(change)) if not isinstance(result, Exception) else {}
        yield judged(pair, result, expected, feature.rounding, (change, change))


def called_again(feature: Feature, folder: Path) -> Iterator[Verdict]:
    """What was asked, made, stored or changed before leaves no trace, and every input counts."""
    first = Given()
    made = feature.make(first)
    at_make = [*first.inputs, *first.options]
    usual = feature.ask(made, first)
    every = list(dict.fromkeys([*first.inputs, *first.options]))
    yield judged("the same again", feature.ask(made, Given()), usual, 0.0, (USUAL, USUAL), None)
    for name in every:
        change = replace(USUAL, other=name)
        fresh, _texts = attempt(lambda change=change: feature(change)[0])
        if isinstance(fresh, Exception):
            yield judged(f"other {name}", fresh, {}, 0, (change, change))
            continue
        if name not in feature.unused and not differences(fresh, usual, 1e-12, (USUAL, USUAL)):
            yield Verdict(f"other {name}", "wrong", "changes nothing")
        if name not in at_make:
            again, _texts = attempt(lambda change=change: feature.ask(made, Given(change)))
            yield judged(f"asked again with other {name}", again, fresh, feature.rounding, (change, change))
        elif feature.save is not None or _uses_folder(feature):
            yield from _in_the_same_folder(feature, folder, change, fresh)
    yield from _changed_in_place(feature, usual)
    if feature.save is not None and feature.load is not None:
        yield from _loaded(feature, made, usual, folder)


def _uses_folder(feature: Feature) -> bool:
    return "folder" in feature.make.__code__.co_names


def _in_the_same_folder(feature: Feature, folder: Path, change: Change, fresh: Answer) -> Iterator[Verdict]:
    """A fit in the folder of another one is that fit, or refused."""
    if not _uses_folder(feature):
        return
    place = folder / change.other.replace(" ", "-")
    first, _texts = attempt(lambda: feature(USUAL, place)[0])
    if isinstance(first, Exception):
        yield judged("fit in a folder", first, {}, 0, (USUAL, USUAL), None)
        return
    again, _texts = attempt(lambda: feature(change, place)[0])
    yield judged(f"in the folder with other {change.other}", again, fresh, feature.rounding, (change, change))


def _changed_in_place(feature: Feature, usual: Answer) -> Iterator[Verdict]:
    """Tensors that a user overwrites after a call: the object answers as before, or as made of the new ones.

    Not asked of predictions: as all distributions of torch they are views of what they were made of.
    """
    given = Given()
    made = feature.make(given)
    if made is None or hasattr(made, "rsample"):
        return
    feature.ask(made, Given())
    for name, tensor in given.inputs.items():
        change = replace(USUAL, other=name)
        other = Given(change)
        if isinstance(attempt(lambda other=other: feature.make(other) and {})[0], Exception):
            continue
        before = tensor.clone()
        tensor.copy_(other.inputs[name])
        again, _texts = attempt(lambda: feature.ask(made, Given()))
        tensor.copy_(before)
        fresh, _texts = attempt(lambda change=change: feature(change)[0])
        if isinstance(fresh, Exception):
            continue
        old = judged(f"{name} overwritten", again, usual, feature.rounding, (USUAL, USUAL))
        new = judged(f"{name} overwritten", again, fresh, feature.rounding, (USUAL, USUAL))
        yield old if new.outcome == "wrong" else new


def _loaded(feature: Feature, made: Any, usual: Answer, folder: Path) -> Iterator[Verdict]:
    """A file answers as what was saved; loaded with another setting it is refused, or what was made with that."""
    assert feature.save is not None
    assert feature.load is not None
    path, load = folder / "saved.safetensors", feature.load
    feature.save(made, path)
    given = Given()
    result, _texts = attempt(lambda: feature.ask(load(path, given), Given()))
    yield judged("loaded", result, usual, feature.rounding, (USUAL, USUAL), None)
    for name in (*given.inputs, *given.options):
        change = replace(USUAL, other=name)
        fresh, _texts = attempt(lambda change=change: feature(change)[0])
        again, _texts = attempt(lambda change=change: feature.ask(load(path, Given(change)), Given(change)))
        expected = {} if isinstance(fresh, Exception) else fresh
        yield judged(f"loaded with other {name}", again, expected, feature.rounding, (change, change))


KINDS: dict[str, Callable[[Feature, Path], Iterator[Verdict]]] = {
    "missing values": with_holes,
    "another unit": in_other_units,
    "a batch of one": in_a_batch_of_one,
    "few cases": of_few_cases,
    "a second call": called_again,
}


def kinds_of(feature: Feature) -> list[str]:
    """All kinds; few cases where there is a closed form, or another rule, for what is fitted to them."""
    return [kind for kind in KINDS if kind != "few cases" or feature.expected is not None]
