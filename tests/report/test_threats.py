"""What is known against runs is said, and what is not is not."""

from typing import Any

from schedsim.config import make_settings
from schedsim.report.threats import threats_of_runs, threats_of_sweep


def manifest(**settings: Any) -> dict[str, Any]:
    return {
        "config": make_settings(**{"step_time": "roofline", **settings}).model_dump(),
        "trace": {"name": "trace.csv", "sha256": "1", "notes": []},
        "seed": settings.get("seed", 0),
        "decision_lag": 0,
        "device": "cpu simulator",
        "notes": [],
    }


def summary(stable: bool = True, **counts: int) -> dict[str, Any]:
    none = dict.fromkeys(("rejected", "failed", "unfinished"), 0)
    return {"stable": stable, "requests": {"kept": 5000, "finished": 5000, **none, **counts}}


def told(*manifests: dict[str, Any], summaries: tuple[dict[str, Any], ...] = ()) -> str:
    names = [f"run{i}" for i in range(len(manifests))]
    summaries = summaries or (summary(),) * len(manifests)
    by_name = dict(zip(names, manifests, strict=True))
    return "\n".join(threats_of_runs(by_name, dict(zip(names, summaries, strict=True))))


def test_a_run_that_was_measured_is_not_called_a_roofline() -> None:
    measured = manifest() | {"execution": {}, "device": "NVIDIA H200"}
    assert "roofline" in told(manifest())
    assert "roofline" not in told(measured)
    assert "Measured on NVIDIA H200" in told(measured)
    assert "that of fitted:h200.json" in told(manifest(step_time="fitted:h200.json"))


def test_what_differs_beside_the_policy_is_told() -> None:
    assert "differ in" not in told(manifest(policy="vllm"), manifest(policy="sarathi"))
    assert "the runs differ in blocks (None, 9), max_seqs (256, 8)" in told(
        manifest(), manifest(blocks=9, max_seqs=8)
    )
    other = manifest() | {"trace": {"name": "other.csv", "sha256": "2"}, "decision_lag": 1}
    assert "different traces (other.csv, trace.csv)" in told(manifest(), other)
    assert "decision lag differs: 0, 1" in told(manifest(), other)


def test_oracles_and_changed_loads_are_told() -> None:
    text = told(
        manifest(
            predictor="oracle",
            rate_scale=2.0,
            token_scale=0.5,
            arrivals="poisson:rate=5",
            limit=1000,
        )
    )
    assert "oracle" in text
    assert "scaled, its rate by 2 and its lengths by 0.5" in text
    assert "Arrivals are drawn (poisson:rate=5)" in text
    assert "first 1,000 requests" in text
    assert "oracle" not in told(manifest(predictor="lognormal,sigma=0.5"))
    assert "One run of each" not in told(manifest(seed=0), manifest(seed=1))


def test_bad_outcomes_are_told() -> None:
    bad = summary(stable=False, finished=200, rejected=4800)
    text = told(manifest(), manifest(), summaries=(summary(), bad))
    assert "run1 is unstable" in text
    assert "run1: 4,800 of 5,000 requests rejected" in text
    assert "run1: 200 requests finished, so that 1 % of them are 2" in text
    assert "run0 " not in text
    assert "run0:" not in text


def test_notes_of_the_runs_are_repeated_once() -> None:
    noted = manifest() | {"notes": ["context cut"]}
    assert told(noted, noted).splitlines().count("context cut") == 1
    assert "run0: context cut" in told(noted, manifest())


def test_threats_to_a_sweep() -> None:
    row = {**make_settings().model_dump(), "stable": True, "error": None, "requests.rejected": 0}
    text = "\n".join(threats_of_sweep([row, row | {"stable": False}]))
    assert "One seed" in text
    assert "1 of 2 runs are unstable" in text
    assert "failed" not in text
    assert "rejected" not in text
    text = "\n".join(
        threats_of_sweep([row | {"seed": 1, "requests.rejected": 3}, row | {"error": "no room"}])
    )
    assert "One seed" not in text
    assert "1 of 2 runs failed and are not in the curves; the first: no room" in text
    assert "In 1 of 2 runs requests were rejected" in text
