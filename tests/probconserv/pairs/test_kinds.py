"""Where features meet kinds of input: all is right, or refused by name.

Every feature takes all its numbers from ``Given``, so that a kind of input is a change of these; see ``kinds``. The
default tests hold part of the pairs, ``make test-long`` the others; ``python -m tests.probconserv.pairs.census``
counts them.
"""

from pathlib import Path

import pytest

from tests.probconserv.pairs import features_boundary, features_fields, features_fits, features_models, features_update
from tests.probconserv.pairs.kinds import KINDS, Feature, kinds_of

MODULES = features_update, features_fits, features_fields, features_models, features_boundary
FEATURES: dict[str, Feature] = {name: feature for module in MODULES for name, feature in module.FEATURES.items()}


PAIRS = [
    pytest.param(name, kind, marks=[pytest.mark.long] * feature.long, id=f"{name}, {kind}")
    for name, feature in FEATURES.items()
    for kind in kinds_of(feature)
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("name", "kind"), PAIRS)
def test_a_pair_is_right_or_refused_by_name(name: str, kind: str, tmp_path: Path) -> None:
    wrong = [verdict for verdict in KINDS[kind](FEATURES[name], tmp_path) if verdict.outcome == "wrong"]
    assert not wrong, "\n".join(f"{verdict.pair}: {verdict.text}" for verdict in wrong)
