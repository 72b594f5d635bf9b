"""What goes wrong in an execution: what had finished is kept, and the message says what to do."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

torch = pytest.importorskip("torch")

import schedsim
from schedsim.content import Content
from schedsim.executor import backends
from schedsim.executor.model import Decoder
from schedsim.output_limit import Outputs
from schedsim.traces.token_scaling import scale_tokens
from schedsim.traces.transforms import limit
from tests.cli.commands import RESULTS, Ended, manifest, names, only_error, refused, start, summary
from tests.cli.commands import schedsim as command
from tests.cli.test_broken_off import end_of, wait_for
from tests.executor.models import VOCAB, random_model, saved

BAD_POLICIES = Path(__file__).parents[1] / "cli" / "bad_policies.py"
TINY = ("--limit", 12, "--token-scale", 0.02, "--all-at-once", "--device", "cpu", "--threads", 1)
ONE_BY_ONE = ("--policy", "static,batch_size=1")
WARM_UPS = 3
"""Forward passes before the first iteration."""


def broken_off(out: Path, *arguments: object) -> str:
    """The one message of an execution that stops in the middle and keeps what it has in `out`."""
    ended = command("execute", *TINY, *arguments, "--decisions", "--out", out)
    assert ended.exit_code == 2, ended
    assert names(out) == RESULTS | {"decisions.jsonl.gz"}
    written = manifest(out)
    assert written["complete"] is False
    message = only_error(ended)
    assert message == f"error: {written['stopped']}; what had finished is kept in {out}"
    return message


def fails_after(
    monkeypatch: pytest.MonkeyPatch, passes: int, fail: Callable[[torch.Tensor], torch.Tensor]
) -> None:
    """Let `fail` have the logits of every forward pass after the first `passes`."""
    forward, count = Decoder.forward, 0

    def counting(self: Decoder, *parts: Any) -> torch.Tensor:
        nonlocal count
        count += 1
        logits = forward(self, *parts)
        return fail(logits) if count > passes else logits

    monkeypatch.setattr(Decoder, "forward", counting)


def raising(error: Exception) -> Callable[..., torch.Tensor]:
    def fail(*parts: Any, **named: Any) -> torch.Tensor:
        raise error

    return fail


def test_nan_in_a_weights_file_names_iteration_and_request(tmp_path: Path) -> None:
    # The embedding of one token is NaN: a token of request 4 that none before it has.
    trace = scale_tokens(limit(schedsim.sample_trace(), 12), 0.02)
    content = Content.of(trace, Outputs(trace.output_tokens, trace.output_tokens))
    seen: list[set[int]] = [
        set(content.token_ids(i, 0, int(trace.prompt_tokens[i] + trace.output_tokens[i]), VOCAB))
        for i in range(12)
    ]
    victim = next(i for i in range(1, 12) if seen[i] - set().union(*seen[:i]))
    token = min(seen[victim] - set().union(*seen[:victim]))
    model = random_model("llama")
    with torch.no_grad():
        model.model.embed_tokens.weight[token] = torch.nan
    weights = saved(model, tmp_path / "weights")
    out = tmp_path / "out"
    message = broken_off(out, *ONE_BY_ONE, "--weights", weights)
    iteration = manifest(out)["stopped"].split()[1].rstrip(":")
    assert message.startswith(
        f"error: iteration {iteration}: the logits of request {victim} hold NaN or infinity "
        "(float32); check the weights"
    )
    assert summary(out)["requests"]["finished"] == victim


@pytest.mark.parametrize(
    ("dtype", "remedy"),
    [
        ("float16", "run with --dtype bfloat16 or float32: float16 ends at 65504"),
        ("bfloat16", "see whether --dtype float32 runs"),
    ],
)
def test_infinity_in_a_narrow_type_names_a_wider_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: str, remedy: str
) -> None:
    fails_after(monkeypatch, WARM_UPS + 5, lambda logits: logits / 0)
    message = broken_off(tmp_path / "out", *ONE_BY_ONE, "--dtype", dtype)
    assert "iteration 5: the logits of request" in message
    assert remedy in message


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nSee docs"),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] err == 0. DefaultCPUAllocator: can't allocate "
            "memory: you tried to allocate 8589934592 bytes. Error code 12"
        ),
    ],
)
def test_no_memory_names_the_batch_and_what_makes_it_smaller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    fails_after(monkeypatch, WARM_UPS + 30, raising(error))
    out = tmp_path / "out"
    message = broken_off(out, *ONE_BY_ONE)
    assert "out of memory on cpu in iteration 30, which runs " in message
    assert "take fewer --blocks, a smaller --token-budget or fewer --max-seqs" in message
    assert str(error).splitlines()[0] in message
    assert "See docs" not in message
    assert summary(out)["requests"]["finished"] > 0


def test_no_memory_before_the_first_iteration_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails_after(monkeypatch, 0, raising(torch.OutOfMemoryError("no memory")))
    assert "out of memory on cpu before the first iteration" in broken_off(tmp_path / "out")


def test_after_no_memory_the_next_policy_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[bool] = []

    def fail_once(logits: torch.Tensor) -> torch.Tensor:
        if not raised:
            raised.append(True)
            raise torch.OutOfMemoryError("no memory")
        return logits

    fails_after(monkeypatch, WARM_UPS + 3, fail_once)
    out = tmp_path / "out"
    ended = command("execute", *TINY, "--policy", "vllm", "--policy", "static", "--out", out)
    assert ended.exit_code == 2
    assert manifest(out / "vllm")["complete"] is False
    assert manifest(out / "static")["complete"] is True


@pytest.mark.parametrize(
    ("problem", "hint"),
    [
        ("CUDA error: an illegal memory access was encountered\nCompile with …", "CUDA_LAUNCH"),
        ("The size of tensor a (3) must match the size of tensor b (4)", ""),
    ],
)
def test_a_device_that_fails_keeps_what_finished_and_names_iteration_and_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, problem: str, hint: str
) -> None:
    fails_after(monkeypatch, WARM_UPS + 30, raising(RuntimeError(problem)))
    out = tmp_path / "out"
    message = broken_off(out, *ONE_BY_ONE)
    assert "error: cpu failed in iteration 30, which runs " in message
    assert f"RuntimeError: {problem.splitlines()[0]} ({__file__}, line " in message
    assert hint in message
    assert summary(out)["requests"]["finished"] > 0


def test_no_memory_for_token_ids_keeps_what_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token_ids = Content.token_ids

    def short_of_memory(self: Content, request_id: int, *parts: Any) -> Any:
        if request_id == 8:
            raise MemoryError
        return token_ids(self, request_id, *parts)

    monkeypatch.setattr(Content, "token_ids", short_of_memory)
    out = tmp_path / "out"
    message = broken_off(out, *ONE_BY_ONE)
    assert "out of memory on cpu in iteration " in message
    assert "(MemoryError)" in message
    assert summary(out)["requests"]["finished"] == 8


def test_no_memory_for_the_blocks_stops_before_the_run(tmp_path: Path) -> None:
    message = refused("execute", *TINY, "--blocks", 2**24, "--block-size", 2**16)
    assert "take fewer with --blocks" in message


@pytest.mark.parametrize(
    "policy", ["RaisesAtToken", "RaisesWhenOneFinishes", "ExitsWhenOneFinishes"]
)
def test_a_policy_that_raises_keeps_what_finished(tmp_path: Path, policy: str) -> None:
    out = tmp_path / "out"
    message = broken_off(out, "--policy", f"{BAD_POLICIES}:{policy}")
    assert policy in message
    assert "iteration" in message


@pytest.mark.parametrize(
    ("setting", "told"),
    [
        ({"step_time": "roofline"}, "step_time='roofline' is for simulations"),
        ({"tensor_parallel": 2}, "tensor_parallel=2 is for simulations"),
        ({"devise": "cpu"}, "unknown setting 'devise'. Did you mean 'device'? Known: arrivals, "),
    ],
)
def test_a_setting_that_an_execution_has_not_is_told(setting: dict[str, Any], told: str) -> None:
    with pytest.raises(schedsim.ConfigError) as caught:
        schedsim.execute(schedsim.sample_trace(), limit=2, token_scale=0.02, **setting)
    assert str(caught.value).startswith(told)
    assert "step_time" not in str(caught.value).partition("Known:")[2]


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return saved(random_model("llama"), tmp_path / "weights")


def test_a_missing_weight_file_is_named(weights: Path) -> None:
    (weights / "model.safetensors").unlink()
    message = refused("execute", *TINY, "--weights", weights)
    assert f"--weights {weights}: neither model.safetensors nor" in message


def test_a_directory_without_weights_or_config_is_named(tmp_path: Path) -> None:
    nowhere = tmp_path / "nowhere"
    message = refused("execute", *TINY, "--weights", nowhere)
    assert f"--weights {nowhere}: no such directory" in message
    message = refused("execute", *TINY, "--weights", tmp_path)
    assert f"--weights {tmp_path}: holds no config.json" in message
    (tmp_path / "config.json").write_text("{")
    message = refused("execute", *TINY, "--weights", tmp_path)
    assert f"error: {tmp_path / 'config.json'}: not JSON" in message


def test_weights_of_another_shape_are_named(weights: Path) -> None:
    config = json.loads((weights / "config.json").read_text())
    (weights / "config.json").write_text(json.dumps(config | {"intermediate_size": 88}))
    message = refused("execute", *TINY, "--weights", weights)
    assert "'model.layers.0.mlp.gate_proj.weight' has shape [80, 64], config.json says" in message


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--device", "tpu"), "unknown device 'tpu'"),
        (("--device", "gpu"), "unknown device 'gpu'. Did you mean 'cuda'?"),
        (("--device", "gpu:1"), "Did you mean 'cuda:1'?"),
        (("--device", "cuda:99"), "--device cuda:99: torch sees"),
        (("--dtype", "float8"), "unknown dtype 'float8'"),
        (("--attention", "flash"), "unknown attention 'flash'"),
        (("--attention", "triton"), "--attention triton: the kernels run on a GPU, not on cpu"),
        (("--kernels", "contiguous"), "--kernels contiguous read keys and values that lie in one"),
        (("--kernels", "vertical"), "kernels='vertical': Input should be 'contiguous' or 'paged'"),
        (("--temperature", 0.5), "--temperature 0.5: --attention torch takes the likeliest token"),
        (("--temperature", -1), "temperature=-1.0 must be at least 0"),
        (("--threads", 0), "threads=0 must be at least 1"),
        (("--model", "opt-13b"), "--model opt-13b: the executor runs the Llama and Qwen families"),
        (("--model", "tiny", "--weights", "somewhere"), "leave --model out"),
        (("--arrivals", "burst"), "--all-at-once and --arrivals burst exclude each other"),
        (("--concurrency", 2), "leave --arrivals out"),
        (("--estimator", "recorded:x"), "recorded:x: a record is no step-time model"),
        (("--policy", "nobody"), "unknown policy 'nobody'"),
    ],
)
def test_a_wrong_option_is_one_message(
    monkeypatch: pytest.MonkeyPatch, arguments: tuple[object, ...], told: str
) -> None:
    monkeypatch.setattr(backends, "_interprets", lambda: False)
    assert told in refused("execute", *TINY, *arguments)


def interrupted(out: Path, mark: Path, size: int, *arguments: object) -> Ended:
    running = start(
        "execute", "--device", "cpu", "--threads", 1, "--decisions", "--out", out, *arguments
    )
    wait_for(mark, size)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    ended = end_of(running)
    assert ended.exit_code == 130
    last = len(pd.read_parquet(out / "steps.parquet")) - 1
    stopped = f"interrupted by the user after iteration {last}"
    assert only_error(ended) == f"error: {stopped}; what had finished is kept in {out}"
    assert names(out) == RESULTS | {"decisions.jsonl.gz"}
    written = manifest(out)
    assert written["complete"] is False
    assert written["stopped"] == stopped
    return ended


def test_ctrl_c_keeps_what_finished(tmp_path: Path) -> None:
    out = tmp_path / "out"
    mark = out / ".decisions.jsonl.gz.partial"
    interrupted(out, mark, 1000, "--token-scale", 0.02, "--all-at-once", "--max-seqs", 4)
    counts = summary(out)["requests"]
    assert counts["finished"] > 0
    assert counts["unfinished"] > 0


def test_ctrl_c_ends_a_wait_for_the_next_arrival(tmp_path: Path) -> None:
    out = tmp_path / "out"
    mark = out / ".decisions.jsonl.gz.partial"
    arrivals = ("--arrivals", "deterministic:rate=0.0001")
    interrupted(out, mark, 0, "--limit", 2, "--token-scale", 0.02, *arrivals)
    assert summary(out)["requests"]["unfinished"] > 0


def test_weights_that_do_not_fit_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    # 8 billion parameters, which no test may really draw.
    monkeypatch.setattr(torch, "empty", raising(RuntimeError("can't allocate memory")))
    message = refused("execute", *TINY, "--model", "llama-3-8b")
    assert "the 32.1 GB of weights of llama-3-8b do not fit on cpu" in message
    assert "take a smaller model or a narrower --dtype" in message
