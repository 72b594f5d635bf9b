"""Random cases for `schedsim conform`, and vLLM's own scheduler run on them.

To be run where vLLM 0.33.0 is installed (`../shared/policies.md`, section 5.5, says how; no GPU),
with the path of the recorder and a directory for the recordings:

    V/bin/python tests/oracle/make_cases.py ../shared/oracles/vllm_scheduler/vllm_oracle.py OUT \\
        --sync 2200 --async 600 --extended 300
    schedsim conform OUT

A case is a function of its kind and number alone, so that a recording can be made again. The kinds:
`s` synchronous, `a` asynchronous, `e` synchronous with the adaptive threshold and the prefill
interval, which the recorder does not know: they are given to a copy of it. Run by an older vLLM, a
case is without what that does not have. Imports no schedsim.
"""

import argparse
import gzip
import importlib.util
import inspect
import json
import random
import sys
from pathlib import Path
from typing import Any

BEFORE = {"watermark": 0.0, "scheduler_reserve_full_isl": False}
"""Settings that older versions lack, and what they do without."""

KINDS = {"s": "sync", "a": "async", "e": "extended"}

Case = dict[str, Any]


def make_case(kind: str, number: int) -> Case:
    """The case of a kind and a number; no request is longer than the context or the pool."""
    rng = random.Random(f"{kind}{number}")
    is_async = kind == "a"
    block_size = rng.choice([1, 2, 3, 4, 4, 8, 16])
    longest = rng.choice([40, 60, 100, 160])
    case: Case = {
        "name": f"{kind}{number:05d}",
        "block_size": block_size,
        "max_num_seqs": rng.choice([1, 3, 5, 8, 8, 16]),
        "max_model_len": longest,
        "enable_prefix_caching": rng.random() < 0.5,
        "policy": rng.choice(["fcfs", "priority"]),
        "scheduler_reserve_full_isl": rng.random() < 0.6,
        "watermark": rng.choice([0.0, 0.0, 0.02, 0.1, 0.25]),
        "long_prefill_token_threshold": rng.choice([0, 0, rng.randrange(1, longest // 2)]),
    }
    case["max_num_batched_tokens"] = case["max_num_seqs"] + rng.choice([0, 4, 16, 48, 128])
    if rng.random() < 0.1:
        case["enable_chunked_prefill"] = False
        case["max_num_batched_tokens"] = max(longest, case["max_num_batched_tokens"])
    # From a pool that one request can fill to one in which nothing is ever short.
    largest = -(-(longest + 1) // block_size)
    case["num_blocks"] = int(largest * rng.choice([1.0, 1.2, 1.5, 2.0, 3.0, 8.0])) + 1
    if is_async:
        case["async_scheduling"] = True
    if kind == "e":
        case["long_prefill_token_threshold"] = rng.choice([0, rng.randrange(1, longest // 2)])
        case["long_prefill_token_threshold_adaptive"] = rng.random() < 0.6
        case["prefill_schedule_interval"] = rng.choice([1, 2, 3, 5, 9])
    case["requests"] = _requests(rng, longest, is_async)
    return case


def _requests(rng: random.Random, longest: int, is_async: bool) -> list[Case]:
    span = rng.choice([1, 10, 40, 120])
    bursts = [rng.randrange(span) for _ in range(3)] if rng.random() < 0.4 else []
    groups = rng.choice([0, 0, 1, 2, 4])
    heads = [rng.randrange(1, longest // 2) for _ in range(groups)]
    replays = rng.choice([0.0, 0.0, 0.2, 0.5])
    stops = rng.choice([0.0, 0.5, 1.0]) if is_async else rng.choice([0.0, 0.0, 0.3])
    prompt_share = rng.choice([0.2, 0.5, 0.8])
    requests: list[Case] = []
    for index in range(rng.randrange(4, 26)):
        request: Case = {
            "id": f"q{index}",
            "arrival_step": rng.choice(bursts) if bursts else rng.randrange(span),
            "priority": rng.randrange(3),
        }
        source = rng.choice(requests) if requests and rng.random() < replays else None
        if source is not None and _length(source) < longest - 2:
            prompt = rng.randrange(_length(source), longest - 1)
            request["replay_of"] = source["id"]
            request["arrival_step"] = source["arrival_step"] + rng.randrange(60)
        else:
            prompt = rng.randrange(1, max(2, int(longest * prompt_share)))
            if groups and rng.random() < 0.8:
                group = rng.randrange(groups)
                prompt = max(prompt, heads[group])
                request.update(prefix_group=f"g{group}", prefix_len=heads[group])
        request["prompt_len"] = prompt
        request["output_len"] = rng.randrange(1, longest - prompt + 1)
        if rng.random() < stops:
            request["max_tokens"] = request["output_len"] + rng.randrange(1, 20)
        requests.append(request)
    return requests


def _length(request: Case) -> int:
    length: int = request["prompt_len"] + request["output_len"]
    return length


def without_later_settings(case: Case) -> Case:
    """The case as the vLLM that is installed can run it; the recorder would drop what it lacks."""
    from vllm.config import SchedulerConfig

    known = inspect.signature(SchedulerConfig).parameters
    lacking = {name: value for name, value in BEFORE.items() if name not in known}
    return {**case, **lacking}


def load_recorder(path: Path, *, extended: bool) -> Any:
    """The recorder as a module of its own, if asked with what `e` cases need."""
    spec = importlib.util.spec_from_file_location(f"recorder_{extended}", path)
    assert spec is not None
    assert spec.loader is not None
    recorder = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(recorder)
    if extended:
        _extend(recorder)
    return recorder


def _extend(recorder: Any) -> None:
    """Let the recorder pass two more settings on to vLLM, and write them to `meta`."""
    from vllm.config import SchedulerConfig

    names = {"long_prefill_token_threshold_adaptive": False, "prefill_schedule_interval": 1}
    recorder.DEFAULTS.update(names)
    build, known = recorder.build_scheduler, recorder._kw
    current: Case = {}

    def build_scheduler(case: Case) -> Any:
        current.clear()
        current.update({name: case[name] for name in names})
        scheduler = build(case)
        assert scheduler.local_prefill_interval == case["prefill_schedule_interval"]
        return scheduler

    def known_arguments(function: Any, **arguments: Any) -> dict[str, Any]:
        more = current if function is SchedulerConfig else {}
        return dict(known(function, **arguments, **more))

    recorder.build_scheduler, recorder._kw = build_scheduler, known_arguments


def main() -> None:
    """Make the cases that are not there yet."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recorder", type=Path, help="vllm_oracle.py")
    parser.add_argument("out", type=Path, help="directory for the recordings")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    for name in KINDS.values():
        parser.add_argument(f"--{name}", type=int, default=0, help="number of such cases")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for kind, name in KINDS.items():
        count = getattr(options, name)
        recorder = load_recorder(options.recorder, extended=kind == "e") if count else None
        for number in range(options.first, options.first + count):
            case = without_later_settings(make_case(kind, number))
            path = options.out / f"{case['name']}.jsonl.gz"
            if path.exists():
                continue
            rows = recorder.run_case(case)
            text = "".join(json.dumps(row, separators=(",", ":")) + "\n" for row in rows)
            path.write_bytes(gzip.compress(text.encode(), 5, mtime=0))
            if number % 100 == 99:
                print(case["name"], file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
