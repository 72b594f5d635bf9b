"""`ModelSpec`: the shape of a decoder model, by name or from a Hugging Face config.json."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from schedsim.costs.hugging_face import read_config
from schedsim.costs.packaged import read_packaged
from schedsim.errors import ConfigError
from schedsim.specs import unknown_name


class ModelSpec(BaseModel):
    """What of a dense decoder model decides its memory and its arithmetic.

    `gated_mlp` has three matrices (SwiGLU), else two. `qk_norm` is an RMS norm over each head's
    query and key. `norm_bias` says that the norms are layer norms with a bias, not RMS norms.
    `position_embeddings` counts rows of a learned position table, 0 for rotary positions.
    `max_model_len` is the number of positions that the model was trained for. Keys and values are
    kept in the type of the weights.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    name: str
    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    intermediate: int = Field(ge=1)
    vocab: int = Field(ge=1)
    max_model_len: int = Field(ge=2)
    tied_embeddings: bool = False
    gated_mlp: bool = True
    qkv_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False
    norm_bias: bool = False
    position_embeddings: int = Field(default=0, ge=0)
    bytes_per_value: int = Field(default=2, ge=1)

    @property
    def layer_parameters(self) -> int:
        """Parameters of one decoder layer: attention, MLP and two norms."""
        query, key_value = self.heads * self.head_dim, 2 * self.kv_heads * self.head_dim
        up_matrices = 2 if self.gated_mlp else 1
        count = self.hidden * (query + key_value) + query * self.hidden
        count += (up_matrices + 1) * self.hidden * self.intermediate
        if self.qkv_bias:
            count += query + key_value
        if self.output_bias:
            count += self.hidden
        if self.mlp_bias:
            count += up_matrices * self.intermediate + self.hidden
        if self.qk_norm:
            count += 2 * self.head_dim
        return count + 2 * self._norm_parameters

    @property
    def head_parameters(self) -> int:
        """Parameters of the output projection (shared with the embedding if tied)."""
        return self.vocab * self.hidden

    @property
    def num_parameters(self) -> int:
        """All parameters."""
        tables = (1 if self.tied_embeddings else 2) * self.vocab + self.position_embeddings
        return self.layers * self.layer_parameters + tables * self.hidden + self._norm_parameters

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return self.num_parameters * self.bytes_per_value

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token in all layers, each KV head counted once."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.bytes_per_value

    def kv_bytes_per_token_on_gpu(self, tensor_parallel: int) -> int:
        """Bytes of keys and values of one token on one of `tensor_parallel` GPUs.

        With more GPUs than KV heads several of them hold the same head.

        Raises:
            ConfigError: the heads do not split evenly; names the degrees that do.
        """
        degrees = self.tensor_parallel_degrees()
        if tensor_parallel not in degrees:
            raise ConfigError(
                f"--tensor-parallel {tensor_parallel} does not split the {self.heads} query and "
                f"{self.kv_heads} KV heads of {self.name} evenly; these do: "
                f"{', '.join(map(str, degrees))}"
            )
        return self.kv_bytes_per_token // min(tensor_parallel, self.kv_heads)

    def tensor_parallel_degrees(self) -> list[int]:
        """The numbers of GPUs over which query and KV heads split evenly, ascending."""
        return [
            degree
            for degree in range(1, self.heads + 1)
            if self.heads % degree == 0
            and (self.kv_heads % degree == 0 or degree % self.kv_heads == 0)
        ]

    @property
    def _norm_parameters(self) -> int:
        return 2 * self.hidden if self.norm_bias else self.hidden


def load_model(name: str) -> ModelSpec:
    """The model called `name`, or that of a Hugging Face config.json or of the directory with it.

    Raises:
        ConfigError: an unknown name; a file that is not there, not JSON, of an unknown model type
            or without a field; names the file and the field.
    """
    known = read_packaged("models.toml")
    if name in known:
        return ModelSpec(name=name, **known[name])
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if path.suffix == ".json" or path.is_file():
        return ModelSpec(name=name, **read_config(path))
    error = unknown_name("model", name, known)
    raise ConfigError(f"{error} Or give the path of a Hugging Face config.json.")


def list_models() -> list[tuple[str, str]]:
    """The name of every packaged model with a line that describes it."""
    rows = []
    for name, shape in read_packaged("models.toml").items():
        model = ModelSpec(name=name, **shape)
        rows.append(
            (
                name,
                f"{_count(model.num_parameters)} parameters, {model.layers} layers, "
                f"{model.heads} query and {model.kv_heads} KV heads of {model.head_dim}, "
                f"context {model.max_model_len}, {model.kv_bytes_per_token} KV bytes a token",
            )
        )
    return rows


def _count(number: int) -> str:
    return f"{number / 1e9:.2f} G" if number >= 10**8 else f"{number / 1e6:.2f} M"
