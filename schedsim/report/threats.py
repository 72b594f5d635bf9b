"""Threats to validity: what a reader of a report has to know before believing it."""

from collections.abc import Mapping, Sequence
from typing import Any

from schedsim.specs import parse_spec

NOT_COMPARED = ("policy", "seed", "resolved", "memory", "decision_lag", "token_budget")
"""Settings that runs may differ in and still be a comparison of policies."""


def threats_of_runs(
    manifests: Mapping[str, dict[str, Any]], summaries: Mapping[str, dict[str, Any]]
) -> list[str]:
    """Everything that is known against runs, from their manifests and summaries; by run name."""
    return [
        *_on_time(manifests),
        *_on_what_is_compared(manifests),
        *_on_prediction(manifests),
        *_on_load(manifests),
        *_on_outcome(summaries),
        *_noted(manifests),
    ]


def threats_of_sweep(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Everything that is known against the runs of a sweep."""
    found = []
    sources = {row["step_time"] for row in rows}
    if "roofline" in sources:
        found.append(_ROOFLINE)
    if any(map(_knows_lengths, rows)):
        found.append(_ORACLE)
    if len({row["seed"] for row in rows}) == 1:
        found.append(
            "One seed: the curves have no intervals. Give several in the grid, with a workload "
            "that draws from them."
        )
    unstable = [row for row in rows if row.get("stable") is False]
    if unstable:
        found.append(
            f"{len(unstable)} of {len(rows)} runs are unstable: their latencies grow with the "
            "length of the trace and say nothing about a longer one."
        )
    failed = [row for row in rows if row.get("error")]
    if failed:
        found.append(
            f"{len(failed)} of {len(rows)} runs failed and are not in the curves; the first: "
            f"{failed[0]['error']}"
        )
    rejected = [row for row in rows if row.get("requests.rejected")]
    if rejected:
        found.append(
            f"In {len(rejected)} of {len(rows)} runs requests were rejected; their latencies are "
            "those of the others."
        )
    return found


_ROOFLINE = (
    "The time of an iteration is a roofline's, from the data sheet of the GPU; it was not "
    "measured. schedsim calibrate fits one to a measured run, schedsim validate says how far it "
    "is off."
)
_ORACLE = (
    "The predictor is an oracle: policies or the memory know the length of each output, which no "
    "real engine does."
)


def _on_time(manifests: Mapping[str, dict[str, Any]]) -> list[str]:
    found = []
    simulated = {name: m for name, m in manifests.items() if "execution" not in m}
    sources = {str(m["config"].get("step_time")) for m in simulated.values()}
    if "roofline" in sources:
        found.append(_ROOFLINE)
    found += [
        f"The time of an iteration is that of {source}; it holds for the model, the device and the "
        "batches that it was made from."
        for source in sorted(sources - {"roofline"})
    ]
    devices = {str(m["device"]) for name, m in manifests.items() if name not in simulated}
    if devices:
        found.append(
            f"Measured on {', '.join(sorted(devices))}: two runs of one command differ; what else "
            "ran on the machine is not known."
        )
    return found


def _on_what_is_compared(manifests: Mapping[str, dict[str, Any]]) -> list[str]:
    if len(manifests) < 2:
        return []
    found = []
    traces = {(m["trace"]["name"], m["trace"]["sha256"]) for m in manifests.values()}
    if len(traces) > 1:
        names = ", ".join(sorted({str(name) for name, _ in traces}))
        found.append(f"The runs served different traces ({names}).")
    configs = [m["config"] for m in manifests.values()]
    differ = [
        f"{name} ({', '.join(dict.fromkeys(str(config.get(name)) for config in configs))})"
        for name in configs[0]
        if name not in NOT_COMPARED and len({str(config.get(name)) for config in configs}) > 1
    ]
    if differ:
        found.append(f"Beside the policy the runs differ in {', '.join(differ)}.")
    lags = {str(m["decision_lag"]) for m in manifests.values()}
    if len(lags) > 1:
        found.append(f"The decision lag differs: {', '.join(sorted(lags))}.")
    return found


def _on_prediction(manifests: Mapping[str, dict[str, Any]]) -> list[str]:
    knows = any(_knows_lengths(manifest["config"]) for manifest in manifests.values())
    return [_ORACLE] if knows else []


def _knows_lengths(settings: Mapping[str, Any]) -> bool:
    """Whether an oracle tells policies or memory the lengths; older runs have one predictor."""
    specs = (settings["predictor"], settings.get("memory_predictor") or "none")
    return any(parse_spec(spec).name == "oracle" for spec in specs)


def _on_load(manifests: Mapping[str, dict[str, Any]]) -> list[str]:
    found = []
    config = next(iter(manifests.values()))["config"]
    changed = [
        f"{words} {config[name]:g}"
        for name, words in (("rate_scale", "its rate by"), ("token_scale", "its lengths by"))
        if config[name] != 1
    ]
    if changed:
        found.append(f"The trace was scaled, {' and '.join(changed)}: it is not what was recorded.")
    if config["arrivals"] is not None:
        found.append(f"Arrivals are drawn ({config['arrivals']}), not recorded.")
    if config["limit"] is not None:
        found.append(f"Only the first {config['limit']:,} requests of the trace were served.")
    seeds = {m["seed"] for m in manifests.values()}
    if len(seeds) == 1:
        found.append("One run of each: intervals are from batches of its requests, not from seeds.")
    return found


def _on_outcome(summaries: Mapping[str, dict[str, Any]]) -> list[str]:
    found = []
    for name, summary in summaries.items():
        counts = summary["requests"]
        if summary["stable"] is False:
            found.append(
                f"{name} is unstable: its latencies grow with the length of the trace and say "
                "nothing about a longer one."
            )
        found += [
            f"{name}: {counts[status]:,} of {counts['kept']:,} requests {status}; latencies are "
            "those of the others."
            for status in ("rejected", "failed", "unfinished")
            if counts[status]
        ]
        if counts["finished"] < 1000:
            found.append(
                f"{name}: {counts['finished']:,} requests finished, so that 1 % of them are "
                f"{counts['finished'] / 100:.0f}: a p99 is hardly known."
            )
    return found


def _noted(manifests: Mapping[str, dict[str, Any]]) -> list[str]:
    """What the runs noted themselves; once where several did."""
    whose: dict[str, list[str]] = {}
    for name, manifest in manifests.items():
        for text in (*manifest["trace"].get("notes", ()), *manifest.get("notes", ())):
            whose.setdefault(str(text), []).append(name)
    return [
        text if len(names) == len(manifests) else f"{', '.join(names)}: {text}"
        for text, names in whose.items()
    ]
