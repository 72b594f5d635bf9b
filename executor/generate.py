"""Greedy text from real weights: all prompts as one batch, until each ends or is long enough."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from schedsim.errors import ConfigError
from schedsim.executor.checkpoint import check_weights_directory, load_weights
from schedsim.executor.config import load_config
from schedsim.executor.forward_batch import Segment, build_batch
from schedsim.executor.model import Decoder


def generate(
    prompts: Sequence[str],
    directory: str | Path,
    *,
    max_new_tokens: int = 64,
    chat: bool = False,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> list[str]:
    """Continue each prompt with the checkpoint in `directory`; needs transformers' tokenizer.

    `chat` puts each prompt into the model's chat template as what the user said.

    Raises:
        ConfigError: the directory is not there or holds no config.json or tokenizer, or one of the
            errors of `load_config`, `load_weights` and `generate_tokens`.
    """
    check_weights_directory(directory)
    config = load_config(directory)
    tokenizer = _load_tokenizer(directory)
    decoder = Decoder(config, load_weights(directory, config, dtype=dtype, device=device))
    ids = [_encode(tokenizer, prompt, chat) for prompt in prompts]
    outputs = generate_tokens(
        decoder, ids, max_new_tokens=max_new_tokens, stop_ids=stop_token_ids(directory)
    )
    return [str(tokenizer.decode(output, skip_special_tokens=True)) for output in outputs]


def generate_tokens(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    stop_ids: Sequence[int] = (),
    block_size: int = 16,
) -> list[list[int]]:
    """The greedy continuation of each prompt, up to and without a token of `stop_ids`.

    Raises:
        ConfigError: a prompt is empty, holds an id outside the vocabulary, or leaves no room for
            `max_new_tokens` in the model's context; or there is no memory for the KV cache.
    """
    if not prompts or max_new_tokens < 1:
        return [[] for _ in prompts]
    lengths = [_checked_length(decoder, prompt, max_new_tokens) for prompt in prompts]
    tables: list[list[int]] = []
    num_blocks = 0
    for length in lengths:
        count = -(-length // block_size)
        tables.append(list(range(num_blocks + 1, num_blocks + count + 1)))
        num_blocks += count
    store = decoder.new_store(num_blocks, block_size)
    outputs: list[list[int]] = [[] for _ in prompts]
    segments = {i: Segment(prompt, 0, tables[i]) for i, prompt in enumerate(prompts)}
    while segments:
        batch = build_batch(list(segments.values()), block_size, device=decoder.device)
        tokens = decoder.forward(batch, store).argmax(dim=-1).tolist()
        following = {}
        for (i, segment), token in zip(segments.items(), tokens, strict=True):
            if token in stop_ids:
                continue
            outputs[i].append(token)
            if len(outputs[i]) < max_new_tokens:
                context = segment.context + len(segment.token_ids)
                following[i] = Segment([token], context, tables[i])
        segments = following
    return outputs


def stop_token_ids(directory: str | Path) -> list[int]:
    """The ids that end a text: `eos_token_id` of generation_config.json, else of config.json.

    Raises:
        ConfigError: one of the files is not JSON, or its eos_token_id no id and no list of ids.
    """
    for name in ("generation_config.json", "config.json"):
        path = Path(directory) / name
        if not path.is_file():
            continue
        try:
            ids = json.loads(path.read_text(encoding="utf-8")).get("eos_token_id")
        except (OSError, ValueError, AttributeError) as error:
            raise ConfigError(f"{path}: not a JSON object: {error}") from None
        if ids is None:
            continue
        ids = ids if isinstance(ids, list) else [ids]
        if not all(isinstance(token, int) for token in ids):
            raise ConfigError(f"{path}: eos_token_id = {ids!r} is no list of token ids")
        return ids
    return []


def _checked_length(decoder: Decoder, prompt: Sequence[int], max_new_tokens: int) -> int:
    """Tokens of a prompt with its longest output."""
    shape = decoder.config.shape
    if not prompt:
        raise ConfigError("a prompt is empty; greedy decoding starts from at least one token")
    outside = [token for token in prompt if not 0 <= token < shape.vocab]
    if outside:
        raise ConfigError(f"token id {outside[0]} is not in the vocabulary of {shape.vocab}")
    length = len(prompt) + max_new_tokens
    if length > shape.max_model_len:
        raise ConfigError(
            f"a prompt of {len(prompt)} tokens and {max_new_tokens} new ones exceed the context of "
            f"{shape.max_model_len} tokens of {shape.name}"
        )
    return length


def _load_tokenizer(directory: str | Path) -> Any:
    from transformers import AutoTokenizer  # seconds to import, and needed for text only

    try:
        return AutoTokenizer.from_pretrained(str(directory), local_files_only=True)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{directory}: no tokenizer can be loaded: {error}") from None


def _encode(tokenizer: Any, prompt: str, chat: bool) -> list[int]:
    if not chat:
        return list(tokenizer(prompt)["input_ids"])
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
    )
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])
