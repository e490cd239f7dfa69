"""Models as repositories of the Hugging Face hub: each is one file in this library's format, beside a card."""

from abc import abstractmethod
from pathlib import Path
from typing import Any, Self

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download  # pyright: ignore[reportMissingImports] - optional
from torch import nn

_FILE, _KIND = "model.safetensors", "model_class"


class OnHub(nn.Module, PyTorchModelHubMixin, library_name="probconserv-boon"):  # pyright: ignore
    """A model with ``save_pretrained``, ``from_pretrained`` and ``push_to_hub``; it is called as the model is.

    Args:
        model: The model; ``from_pretrained(...).model`` gives it back, in its stored precision, for evaluation.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._hub_mixin_config = {_KIND: type(model).__name__}

    def forward(self, *arguments: Any, **named: Any) -> Any:
        """The model's output."""
        return self.model(*arguments, **named)

    @staticmethod
    @abstractmethod
    def write(model: nn.Module, path: Path) -> None:
        """Writes the model to a file."""

    @staticmethod
    @abstractmethod
    def read(path: Path, kind: str, **parts: Any) -> nn.Module:
        """Reads a model of a class, with the parts that the file cannot describe."""

    def _save_pretrained(self, save_directory: Path) -> None:
        self.write(self.model, save_directory / _FILE)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, config: dict[str, Any] | None = None, **options: Any) -> Self:
        where = {name: options.pop(name, None) for name in ("revision", "cache_dir", "token")}
        where |= {name: bool(options.pop(name, False)) for name in ("force_download", "local_files_only")}
        folder = Path(model_id)
        path = folder / _FILE if folder.is_dir() else Path(hf_hub_download(model_id, _FILE, **where))
        return cls(cls.read(path, (config or {}).get(_KIND, ""), **options)).eval()
