"""Reads the safetensors of a Hugging Face checkpoint from a local directory."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from schedsim.errors import ConfigError
from schedsim.executor.config import ModelConfig
from schedsim.executor.weights import DecoderWeights, assemble

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"


def check_weights_directory(directory: str | Path) -> None:
    """Refuse what is no directory with a config.json, before that is read.

    Raises:
        ConfigError: it is none; names it.
    """
    if not Path(directory).is_dir():
        raise ConfigError(f"--weights {directory}: no such directory; check the path")
    if not (Path(directory) / "config.json").is_file():
        raise ConfigError(
            f"--weights {directory}: holds no config.json; give a directory in Hugging Face's "
            "layout"
        )


def load_weights(
    directory: str | Path,
    config: ModelConfig,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> DecoderWeights:
    """The parameters in `directory`, cast to `dtype`: one file, or several named by an index.

    Raises:
        ConfigError: a file is missing or damaged; a parameter is missing, of another shape than
            `config` says, not of floating point, or not one that `config` has; names the file,
            the tensor and the shapes.
    """
    checkpoint = _Checkpoint(Path(directory))

    def read(name: str, size: tuple[int, ...]) -> Tensor:
        return checkpoint.take(name, size).to(device=device, dtype=dtype)

    weights = assemble(config, read)
    checkpoint.check_all_taken(config)
    return weights


class _Checkpoint:
    """Tensors by name, each read from its file when it is asked for."""

    def __init__(self, directory: Path) -> None:
        self._files = _files_by_tensor(directory)
        self._where = directory
        self._open: dict[Path, Any] = {}
        self._taken: set[str] = set()

    def take(self, name: str, size: tuple[int, ...]) -> Tensor:
        path = self._files.get(name)
        if path is None:
            raise ConfigError(
                f"{self._where}: tensor {name!r} of shape {list(size)} is missing; is config.json "
                "that of these weights?"
            )
        if path not in self._open:
            self._open[path] = _open_file(path)
        try:
            tensor: Tensor = self._open[path].get_tensor(name)
        except SafetensorError as error:
            raise ConfigError(f"{path}: cannot read tensor {name!r}: {error}") from None
        if tuple(tensor.shape) != size:
            raise ConfigError(
                f"{path}: tensor {name!r} has shape {list(tensor.shape)}, config.json says "
                f"{list(size)}"
            )
        if not tensor.is_floating_point():
            raise ConfigError(
                f"{path}: tensor {name!r} is {tensor.dtype}; quantised weights are not supported"
            )
        self._taken.add(name)
        return tensor

    def check_all_taken(self, config: ModelConfig) -> None:
        """Whether the files hold a parameter that the model of config.json does not have."""
        for name, path in sorted(self._files.items()):
            is_tied_head = name == "lm_head.weight" and config.shape.tied_embeddings
            is_derived = name.endswith("rotary_emb.inv_freq")  # old files store the frequencies
            if name not in self._taken and not is_tied_head and not is_derived:
                raise ConfigError(
                    f"{path}: the model of config.json has no tensor {name!r}; is it that of these "
                    "weights?"
                )


def _files_by_tensor(directory: Path) -> dict[str, Path]:
    index = directory / INDEX_FILE
    if index.is_file():
        return _read_index(index)
    single = directory / SINGLE_FILE
    if not single.is_file():
        raise ConfigError(
            f"--weights {directory}: neither {SINGLE_FILE} nor {INDEX_FILE} is there; give a "
            "directory in Hugging Face's layout"
        )
    return dict.fromkeys(_open_file(single).keys(), single)


def _read_index(index: Path) -> dict[str, Path]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        files = {name: index.parent / file for name, file in names.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{index}: not an index with a 'weight_map': {error!r}") from None
    for path in sorted(set(files.values())):
        if not path.is_file():
            raise ConfigError(f"{index}: names {path.name}, which is not there")
    return files


def _open_file(path: Path) -> Any:
    try:
        return safe_open(path, framework="pt", device="cpu")
    except (OSError, SafetensorError) as error:
        raise ConfigError(f"{path}: not a readable safetensors file: {error}") from None
