"""Counts the pairs, lists those that fail: ``python -m tests.probconserv.pairs.census [part of a feature's name]``."""

import sys
import tempfile
import traceback
import warnings
from collections import Counter
from pathlib import Path

from tests.probconserv.pairs.kinds import KINDS, Feature, Verdict, kinds_of
from tests.probconserv.pairs.test_kinds import FEATURES


def verdicts(feature: Feature, kind: str) -> list[Verdict]:
    """What became of one pair; an error of the matrix itself is a failure."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return list(KINDS[kind](feature, Path(folder)))
        except Exception:
            return [Verdict("-", "wrong", traceback.format_exc(limit=-1))]


def main(part: str = "") -> None:
    pairs: Counter[str] = Counter()
    checks: Counter[str] = Counter()
    for name, feature in FEATURES.items():
        for kind in kinds_of(feature) if part in name else ():
            found = verdicts(feature, kind)
            wrong = [verdict for verdict in found if verdict.outcome == "wrong"]
            pairs["wrong" if wrong else "right"] += 1
            checks.update(verdict.outcome for verdict in found)
            for verdict in wrong:
                print(f"{name} × {kind}, {verdict.pair}: {verdict.text[:300]}")
    print(f"Pairs: {dict(pairs)}; checks in them: {dict(checks)}")


if __name__ == "__main__":
    main(*sys.argv[1:])
