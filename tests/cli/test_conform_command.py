"""`schedsim conform`: exit codes, what is printed, what is refused."""

import gzip
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import refused, schedsim

RECORDINGS = Path(__file__).parents[1] / "oracle" / "recordings"
RECORDED = RECORDINGS / "v033_adaptive_threshold.jsonl.gz"

USERS_POLICY = """
from dataclasses import dataclass
from schedsim.policies import VLLM

@dataclass
class Mine(VLLM):
    greedy: bool = False

    def gate(self, request, tokens, step):
        from schedsim.policies import Gate
        return Gate.ADMIT if self.greedy else VLLM.gate(self, request, tokens, step)
"""


def lines() -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(RECORDED.read_bytes()).splitlines()]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def with_meta(tmp_path: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    rows = lines()
    change(rows[0]["meta"])
    return write(tmp_path / "changed.jsonl", rows)


def test_recordings_and_folders_end_with_0_and_counts(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    shutil.copy(RECORDED, tmp_path / "below" / "zipped.jsonl.gz")
    write(tmp_path / "plain.jsonl", lines())
    write(tmp_path / "no_recording.json", [])
    ended = schedsim("conform", tmp_path, RECORDED, "--check")
    assert ended.exit_code == 0
    assert ended.stdout.startswith("3 recordings, 171 iterations, the same: ")
    assert ended.stdout.endswith(" 9 preemptions\n")
    assert ended.stderr == ""


def test_the_first_difference_ends_with_1_side_by_side(tmp_path: Path) -> None:
    rows = lines()
    name = next(iter(rows[12]["blocks"]))
    rows[12]["blocks"][name][0] += 1
    path = write(tmp_path / "recorded.jsonl", rows)
    ended = schedsim("conform", RECORDED, path)
    assert ended.exit_code == 1
    assert "the first difference is in iteration 11" in ended.stdout
    for text in (str(path), "vLLM 0.33.0", "vllm,policy=priority,", f"blocks {name}"):
        assert text in ended.stdout
    assert ended.stderr == ""


@pytest.mark.parametrize(("keep", "shown"), [(20, "the record has ended"), (None, "step 99")])
def test_a_record_more_or_less_is_a_difference(
    keep: int | None, shown: str, tmp_path: Path
) -> None:
    rows = lines()[:keep]
    if keep is None:
        rows.append({**rows[-1], "step": 99})
    ended = schedsim("conform", write(tmp_path / "recorded.jsonl", rows))
    assert ended.exit_code == 1
    assert shown in ended.stdout


def test_parameters_come_from_the_recording_unless_given() -> None:
    ended = schedsim("conform", RECORDED, "--policy", "vllm,prefill_interval=1")
    assert ended.exit_code == 1
    assert "vllm,prefill_interval=1,policy=priority," in ended.stdout
    assert "prefill_interval=1" in ended.stdout
    assert schedsim("conform", RECORDED, "--policy", "vllm,fcfs").exit_code == 1
    assert schedsim("conform", RECORDED, "--policy", "vllm,policy=priority").exit_code == 0


def test_a_policy_of_the_users_is_held_to_the_same(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(USERS_POLICY)
    spec = f"{tmp_path / 'mine.py'}:Mine"
    ended = schedsim("conform", RECORDED, "--policy", spec)
    assert ended.exit_code == 0
    assert ended.stdout.startswith("1 recording, 57 iterations, the same: ")
    assert schedsim("conform", RECORDED, "--policy", f"{spec},greedy=true").exit_code == 1


def test_what_is_no_recording_is_refused(tmp_path: Path) -> None:
    assert "no such file or folder" in refused("conform", tmp_path / "none.jsonl")
    assert "holds no .jsonl or .jsonl.gz file" in refused("conform", tmp_path)
    case = tmp_path / "case.json"
    case.write_text('{"requests": []}')
    assert f"{case}, line 1: no 'meta'" in refused("conform", case)
    run = write(tmp_path / "run.jsonl", [{"meta": {"policy": "VLLM()"}}])
    assert "line 1: meta has no 'requests'" in refused("conform", run)
    assert "schedsim diff" in refused("conform", run)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda m: m.pop("num_blocks"), "meta.num_blocks: Field required"),
        (lambda m: m.update(num_blocks="12"), "meta.num_blocks: Input should be a valid integer"),
        (lambda m: m.update(policy="lifo"), "meta.policy: Input should be 'fcfs' or 'priority'"),
        (lambda m: m.update(speculative=3), "meta.speculative: is a setting that no replay knows"),
        (lambda m: m["requests"][2].update(prompt_len=0), "meta.requests.2.prompt_len: Input"),
        (lambda m: m["requests"][1].update(id="q0"), "request 'q0': its id stands twice"),
        (lambda m: m["requests"][1].update(replay_of="q99"), "'q99' is no earlier request"),
        (lambda m: m["requests"][3].update(output_len=10**6), "can never run here: "),
        (lambda m: m["requests"][3].update(prefix_group="g", prefix_len=999), "prefix_len 999"),
    ],
)
def test_a_wrong_field_of_meta_is_named(
    change: Callable[[dict[str, Any]], Any], told: str, tmp_path: Path
) -> None:
    path = with_meta(tmp_path, change)
    message = refused("conform", path)
    assert f"{path}, line 1: meta" in message
    assert told in message


def test_a_replay_needs_the_room_of_what_it_replays(tmp_path: Path) -> None:
    def change(meta: dict[str, Any]) -> None:
        first, last = meta["requests"][0], meta["requests"][-1]
        first["arrival_step"] = 0
        last.update(replay_of=first["id"], prompt_len=1, arrival_step=50)

    assert "prompt_len 1 is below the" in refused("conform", with_meta(tmp_path, change))


def test_damage_after_the_first_line_names_the_line(tmp_path: Path) -> None:
    rows = lines()
    del rows[5]["preempted"]
    assert "line 6: 'preempted'" in refused("conform", write(tmp_path / "a.jsonl", rows))
    cut = tmp_path / "cut.jsonl.gz"
    cut.write_bytes(RECORDED.read_bytes()[:-200])
    damaged = refused("conform", cut)
    assert "the gzip stream is damaged" in damaged
    assert "--decisions" not in damaged  # a recording is not made like that


def test_a_policy_that_cannot_be_made_is_refused() -> None:
    assert "no parameter 'watermrk'" in refused("conform", RECORDED, "--policy", "vllm,watermrk=1")
    assert "unknown policy 'vlm'" in refused("conform", RECORDED, "--policy", "vlm")


def test_a_policy_on_another_memory_is_refused() -> None:
    told = refused("conform", RECORDED, "--policy", "sglang")
    assert "policy 'sglang' lives on memory manager 'radix'" in told
