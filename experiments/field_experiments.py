"""The experiments on operators under both constraints: their rows, and what is compared.

combined               boundary conditions and the law on one ensemble, beside each alone and neither
operator_uncertainty   four ways to an operator's uncertainty, before and after the law (Mouli et al. 2024)
end_to_end             training through the update, against the update after training (Utkarsh et al. 2025)
"""

from dataclasses import replace

from boon import Prescription
from experiments.errors import UnknownNameError
from experiments.experiment import Durations, Experiment
from experiments.field_cases import FieldCase
from experiments.field_config import ADVECTION_CASE, HEAT_CASE, POROUS_MEDIUM_CASE, STEFAN_CASE, FieldSizes
from experiments.field_models import Network
from experiments.field_run import field_experiment
from experiments.field_study import FieldMethod, FieldStudy, Found
from experiments.operator_run import over_seeds
from experiments.tables import Row, published

PLAIN = Network(name="fno")
BOUNDED = Network(name="boon", correction=Prescription())
THROUGH_UPDATE = Network(name="end-to-end", conserved=True)
DROPOUT = 0.1
DIVERSITY = 1e-2
AFTER, IN_TRAINING = "ProbConserv after training", "ProbConserv in training"


def combined_methods(sizes: FieldSizes) -> tuple[FieldMethod, ...]:  # noqa: ARG001 - one signature for all studies
    """An ensemble with neither constraint, with each alone, and with both.

    With boundaries also trained under them, and with both also by the covariance of the members.
    """
    inside = (
        FieldMethod(name="FNO", network=PLAIN, joined=True),
        FieldMethod(name="BOON", network=PLAIN, joined=True, bounded=Prescription()),
        FieldMethod(name="BOON in training", network=BOUNDED, joined=True),
    )
    outside = tuple(replace(method, name=f"ProbConserv-{method.name}", conserved=True) for method in inside)
    return (*inside, *outside, replace(outside[1], name=f"{outside[1].name} (members' covariance)", correlated=True))


def uncertainty_methods(sizes: FieldSizes) -> tuple[FieldMethod, ...]:
    """Single operator, ensemble, heads kept apart, Monte-Carlo dropout; each before and after the update."""
    heads = Network(name="heads", heads=sizes.members, diversity=DIVERSITY)
    before = (
        FieldMethod(name="single operator", network=PLAIN),
        FieldMethod(name="Ensemble", network=PLAIN, joined=True),
        FieldMethod(name="diverse heads", network=heads),
        FieldMethod(name="MC dropout", network=Network(name="dropout", dropout=DROPOUT)),
    )
    return tuple(
        row for method in before for row in (method, replace(method, name=f"ProbConserv-{method.name}", conserved=True))
    )


def training_methods(sizes: FieldSizes) -> tuple[FieldMethod, ...]:  # noqa: ARG001
    """One operator: without the update, with it after training, and trained through it."""
    return (
        FieldMethod(name="FNO", network=PLAIN),
        FieldMethod(name=AFTER, network=PLAIN, conserved=True),
        FieldMethod(name=IN_TRAINING, network=THROUGH_UPDATE, conserved=True),
    )


def with_ratios(case: FieldCase, label: str, rows: list[Row], found: Found) -> list[Row]:
    """The CRPS of the operator trained through the update over that of the update after training, of equal seeds.

    On the training range the ratio of Utkarsh et al. stands beside it where they have the problem.
    """
    pairs = zip(found[IN_TRAINING], found[AFTER], strict=True)
    known = {"ratio": over_seeds([inside["CRPS"] / after["CRPS"] for inside, after in pairs])}
    paper = published("probharde2e").get(case.name)
    if paper and label == next(iter(case.ranges)):
        known["paper_ratio"] = paper["in_training"] / paper["after"], None
    return [replace(row, scores=row.scores | known) if row.method == IN_TRAINING else row for row in rows]


STUDIES: dict[str, FieldStudy] = {
    study.name: study
    for study in (
        FieldStudy(
            name="combined",
            title="Boundary conditions and conservation on one prediction",
            cases=(POROUS_MEDIUM_CASE, STEFAN_CASE),
            methods=combined_methods,
            drawn=("FNO", "BOON", "ProbConserv-FNO", "ProbConserv-BOON"),
        ),
        FieldStudy(
            name="operator_uncertainty",
            title="Uncertainty of operators before and after the conservation law",
            cases=(HEAT_CASE, POROUS_MEDIUM_CASE, STEFAN_CASE),
            methods=uncertainty_methods,
            drawn=("Ensemble", "ProbConserv-Ensemble", "diverse heads", "ProbConserv-diverse heads"),
        ),
        FieldStudy(
            name="end_to_end",
            title="Training through the update against the update after training",
            cases=(HEAT_CASE, POROUS_MEDIUM_CASE, STEFAN_CASE, ADVECTION_CASE),
            methods=training_methods,
            compare=with_ratios,
        ),
    )
}
_SUMMARIES = {
    "combined": "both constraints on one ensemble of operators, beside each alone: porous medium and Stefan",
    "operator_uncertainty": "ensembles, diverse heads and dropout of operators under the law, in range and shifted",
    "end_to_end": "operators trained through the update, against the update after training",
}
_DURATIONS: dict[str, Durations] = {
    "combined": {"smoke": "20 s", "laptop": "40 min", "paper": "9000 min", "reproduce": "18 s"},
    "operator_uncertainty": {"smoke": "25 s", "laptop": "55 min", "paper": "12000 min", "reproduce": "32 s"},
    "end_to_end": {"smoke": "25 s", "laptop": "25 min", "paper": "14000 min", "reproduce": "11 s"},
}
EXPERIMENTS: dict[str, Experiment] = {
    name: field_experiment(study, _SUMMARIES[name], _DURATIONS[name]) for name, study in STUDIES.items()
}


def study_of(name: str) -> FieldStudy:
    """The study of an experiment.

    Raises:
        UnknownNameError: If there is none.
    """
    if name not in STUDIES:
        raise UnknownNameError(f"There is no such experiment '{name}'. Known: {', '.join(STUDIES)}.")
    return STUDIES[name]
