"""Operators and surrogates as repositories of the Hugging Face hub, on a local folder."""

import json
import shutil

import pytest
import torch
from torch import nn

from boon import BOON, FNO, FNOConfig, Normalised, Prescription
from probconserv import ANP, Context, FlowMatching, GPSurrogate, Query
from probconserv.errors import DataFileError, InvalidArgumentError
from probconserv.surrogates.anp import ANPConfig
from probconserv.surrogates.flow.latent import KarhunenLoeve
from probconserv.surrogates.flow.network import ResidualVelocity
from probconserv.surrogates.gp import GPConfig
from solvers import Dirichlet, Neumann

hub = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub: pip install 'probconserv-boon[tools]'")
OperatorOnHub = pytest.importorskip("boon.hub").OperatorOnHub
SurrogateOnHub = pytest.importorskip("probconserv.tools").SurrogateOnHub

CONFIG = FNOConfig(width=4, modes=(3,), depth=1)
FIELDS = torch.rand(2, 1, 17)
X = torch.rand(8, 1, dtype=torch.float64)
CONTEXT, QUERY = Context(X, X[:, 0].sin()), Query(torch.rand(5, 1, dtype=torch.float64))
OPERATORS = {
    "FNO": FNO(CONFIG),
    "Normalised": Normalised.fit(FNO(CONFIG), FIELDS, FIELDS),
    "BOON": BOON(FNO(CONFIG), [(Dirichlet(0.0), Neumann(1.0))]),
}


@pytest.mark.parametrize("kind", OPERATORS)
def test_operators_come_back(kind, tmp_path):
    operator = OperatorOnHub(OPERATORS[kind])
    operator.save_pretrained(tmp_path)
    again = OperatorOnHub.from_pretrained(tmp_path)
    assert type(again.model).__name__ == kind
    assert not again.training
    assert torch.equal(again(FIELDS), operator.model(FIELDS))
    assert json.loads((tmp_path / "config.json").read_text()) == {"model_class": kind}
    assert "library_name: probconserv-boon" in (tmp_path / "README.md").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "config.json", "model.safetensors"]


def test_an_operator_around_a_foreign_module_takes_one_built_alike(tmp_path):
    conditions = [(Dirichlet(0.0), None)]
    operator = BOON(nn.Conv1d(1, 1, 3, padding=1), conditions, correction=Prescription())
    OperatorOnHub(operator).save_pretrained(tmp_path)
    again = OperatorOnHub.from_pretrained(tmp_path, module=nn.Conv1d(1, 1, 3, padding=1))
    assert torch.equal(again(FIELDS), operator(FIELDS))


def test_surrogates_come_back(tmp_path):
    torch.manual_seed(0)
    anp = ANP(ANPConfig(low=(0.0, 0.0), high=(1.0, 1.0), width=8, heads=2, latent_width=4)).double().eval()
    flow = FlowMatching(KarhunenLoeve.of(torch.rand(20, 9, dtype=torch.float64), 3), ResidualVelocity(3, width=4))
    process = GPSurrogate(GPConfig(steps=5)).fit(CONTEXT)
    for model in (anp, flow, process):
        folder = tmp_path / type(model).__name__
        SurrogateOnHub(model).save_pretrained(folder)
        again = SurrogateOnHub.from_pretrained(folder).model
        assert type(again) is type(model)
        for name, tensor in model.state_dict().items():
            assert torch.equal(again.state_dict()[name], tensor)
    again = SurrogateOnHub.from_pretrained(tmp_path / "GPSurrogate").model
    assert torch.equal(again.predict(CONTEXT, QUERY).mean, process.predict(CONTEXT, QUERY).mean)


def test_a_push_sends_the_folder_and_the_hub_gives_it_back(tmp_path, monkeypatch):
    """Without a network: what would be uploaded and downloaded is a folder here."""
    sent = tmp_path / "sent"

    class Api:
        def __init__(self, **_):
            pass

        def create_repo(self, repo_id, **_):
            return type("Url", (), {"repo_id": repo_id})

        def upload_folder(self, folder_path, **_):
            shutil.copytree(folder_path, sent)

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)

    def download(repo_id, filename, **_):
        assert repo_id == "someone/heat"
        return str(sent / filename)

    for module in ("huggingface_hub.hub_mixin", "solvers.hub"):
        monkeypatch.setattr(f"{module}.hf_hub_download", download)
    operator = OperatorOnHub(OPERATORS["BOON"])
    operator.push_to_hub("someone/heat")
    again = OperatorOnHub.from_pretrained("someone/heat", revision="main")
    assert torch.equal(again(FIELDS), operator(FIELDS))


def stored(folder, **files):
    """A stored operator, with files replaced by text, or gone if None."""
    OperatorOnHub(OPERATORS["FNO"]).save_pretrained(folder)
    for name, text in files.items():
        path = next(folder.glob(f"{name}.*"))
        path.unlink() if text is None else path.write_text(text)
    return folder


WRONG = {
    "a surrogate as an operator": (lambda path: OperatorOnHub(GPSurrogate()).save_pretrained(path), "got GPSurrogate"),
    "an operator as a surrogate": (lambda path: SurrogateOnHub(FNO(CONFIG)).save_pretrained(path), "there is boon.hub"),
    "a process that is not fitted": (lambda path: SurrogateOnHub(GPSurrogate()).save_pretrained(path), "not fitted"),
    "no weights": (
        lambda path: OperatorOnHub.from_pretrained(stored(path, model=None)),
        "There is no file of an operator",
    ),
    "damaged weights": (lambda path: OperatorOnHub.from_pretrained(stored(path, model="{}")), "cannot be read"),
    "an operator read as a surrogate": (lambda path: SurrogateOnHub.from_pretrained(stored(path)), "got 'FNO'"),
    "another class in the config": (
        lambda path: SurrogateOnHub.from_pretrained(stored(path, config='{"model_class": "ANP"}')),
        "not written by a model of this package",
    ),
    "no config": (lambda path: SurrogateOnHub.from_pretrained(stored(path, config="{}")), "no config.json that names"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_refused(case, tmp_path):
    act, message = WRONG[case]
    with pytest.raises((DataFileError, InvalidArgumentError), match=message):
        act(tmp_path)
