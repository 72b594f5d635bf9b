"""The options that `run`, `execute` and `validate` share, declared once."""

from pathlib import Path
from typing import Annotated

import typer

from schedsim.errors import ConfigError
from schedsim.traces.generators.arrivals import PROCESSES

ENGINE, LOAD, DEVICE, OUTPUT = "Engine", "Load", "Device", "Output"

TraceFile = Annotated[
    Path | None, typer.Argument(help="Trace file, any known format; default: the sample.")
]
Policies = Annotated[
    list[str] | None,
    typer.Option(
        help="name,parameter=value,… or file.py:Class; may stand several times; default: vllm. "
        "`schedsim policies` lists them."
    ),
]
DeviceModelName = Annotated[
    str | None,
    typer.Option(
        "--model",
        help="Name, see `schedsim models`, or Hugging Face config.json: random weights; "
        "default: tiny.",
        rich_help_panel=ENGINE,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="Directory with config.json and safetensors, instead of --model.",
        rich_help_panel=ENGINE,
    ),
]
Device = Annotated[
    str | None,
    typer.Option(
        help="cpu, cuda or cuda:N; default: the GPU if there is one.", rich_help_panel=DEVICE
    ),
]
Dtype = Annotated[
    str | None,
    typer.Option(
        help="float32, float64, bfloat16 or float16; default: float32 on a CPU, bfloat16 on a GPU.",
        rich_help_panel=DEVICE,
    ),
]
Attention = Annotated[
    str | None,
    typer.Option(
        help="triton (our kernels) or torch (the reference); default: triton on a GPU, torch on a "
        "CPU.",
        rich_help_panel=DEVICE,
    ),
]
Kernels = Annotated[
    str | None,
    typer.Option(
        help="How attention finds keys and values: paged (by a block table) or contiguous; "
        "default: contiguous where memory keeps a request in one piece.",
        rich_help_panel=DEVICE,
    ),
]
Temperature = Annotated[
    float,
    typer.Option(help="Of the sampling, which goes no further; 0: greedy.", rich_help_panel=DEVICE),
]
Threads = Annotated[
    int | None,
    typer.Option(help="Threads of a CPU; default: torch's choice.", rich_help_panel=DEVICE),
]
AssumedGpu = Annotated[
    str,
    typer.Option(
        "--gpu", help="The GPU that a roofline estimator assumes.", rich_help_panel=ENGINE
    ),
]
Estimator = Annotated[
    str | None,
    typer.Option(
        help="Step times that policies may ask for; default: the run's own, or roofline.",
        rich_help_panel=ENGINE,
    ),
]
Memory = Annotated[
    str | None,
    typer.Option(
        help="Memory manager of the KV cache: name,parameter=value,…; `schedsim memories` lists "
        "them; default: the policy's, mostly paged.",
        rich_help_panel=ENGINE,
    ),
]
Blocks = Annotated[
    int | None,
    typer.Option(
        help="Usable KV blocks; default: what the device has room for.", rich_help_panel=ENGINE
    ),
]
BlockSize = Annotated[int, typer.Option(help="Tokens in a block.", rich_help_panel=ENGINE)]
MaxSeqs = Annotated[
    int, typer.Option(help="Seats: requests that run at once.", rich_help_panel=ENGINE)
]
TokenBudget = Annotated[
    int | None,
    typer.Option(help="Tokens an iteration; default: the policy's.", rich_help_panel=ENGINE),
]
MaxModelLen = Annotated[
    int | None,
    typer.Option(help="Longest prompt plus output; default: the model's.", rich_help_panel=ENGINE),
]
MaxOutput = Annotated[
    str | None,
    typer.Option(
        help="Output limits that policies see: column, context, const:N or factor:K.",
        rich_help_panel=LOAD,
    ),
]
Predictor = Annotated[
    str,
    typer.Option(
        help="none, column, oracle, lognormal,sigma=0.5, rank,tau=0.5, bins,count=10,accuracy=1 or "
        "history,window=100; each with latency=SECONDS.",
        rich_help_panel=LOAD,
    ),
]
MemoryPredictor = Annotated[
    str | None,
    typer.Option(
        help="What memory is reserved by, as --predictor; default: what --predictor says.",
        rich_help_panel=LOAD,
    ),
]
DecisionLag = Annotated[
    int | None,
    typer.Option(
        help="0: decide when the iteration before has ended; 1: when it begins; default: the "
        "policy's.",
        rich_help_panel=ENGINE,
    ),
]
Arrivals = Annotated[
    str | None,
    typer.Option(
        help=f"Arrival process, e.g. poisson:rate=5; one of {', '.join(PROCESSES)}.",
        rich_help_panel=LOAD,
    ),
]
AllAtOnce = Annotated[
    bool,
    typer.Option(
        "--all-at-once",
        help="Every request at time 0, short for --arrivals burst.",
        rich_help_panel=LOAD,
    ),
]
Concurrency = Annotated[
    int | None,
    typer.Option(help="Closed loop with N requests outstanding.", rich_help_panel=LOAD),
]
RateScale = Annotated[float, typer.Option(help="Multiply the request rate.", rich_help_panel=LOAD)]
TokenScale = Annotated[float, typer.Option(help="Multiply all lengths.", rich_help_panel=LOAD)]
Limit = Annotated[int | None, typer.Option(help="Only the first N requests.", rich_help_panel=LOAD)]
SpreadTicks = Annotated[
    bool,
    typer.Option(
        "--spread-ticks", help="Spread arrivals of tick-quantised traces.", rich_help_panel=LOAD
    ),
]
ThinkCap = Annotated[
    float | None,
    typer.Option(help="Cap think times of sessions, in s.", rich_help_panel=LOAD),
]
Seed = Annotated[int, typer.Option(help="Of every random draw.", rich_help_panel=LOAD)]
Slo = Annotated[
    str | None,
    typer.Option(help="Targets in s, e.g. ttft=0.5,tpot=0.05.", rich_help_panel=OUTPUT),
]
Out = Annotated[
    Path | None,
    typer.Option(help="New directory for the result files.", rich_help_panel=OUTPUT),
]
Decisions = Annotated[
    bool, typer.Option("--decisions", help="Write decisions.jsonl.gz.", rich_help_panel=OUTPUT)
]
Timeline = Annotated[
    bool,
    typer.Option("--timeline", help="Write timeline.json.gz for Perfetto.", rich_help_panel=OUTPUT),
]
Check = Annotated[
    int | None,
    typer.Option(
        help="Assert all invariants after every iteration, with =N after every N-th.",
        rich_help_panel=OUTPUT,
        min=1,
    ),
]
NoFastForward = Annotated[
    bool,
    typer.Option(
        "--no-fast-forward",
        help="Decide every iteration by itself, even where the decision is known; slower, with the "
        "same results.",
        rich_help_panel=OUTPUT,
    ),
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print the summaries as JSON.", rich_help_panel=OUTPUT)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No progress, no notes.", rich_help_panel=OUTPUT)
]


def choose_arrivals(arrivals: str | None, all_at_once: bool) -> str | None:
    """The arrival process of the two options that name one.

    Raises:
        ConfigError: both are given.
    """
    if not all_at_once:
        return arrivals
    if arrivals is not None:
        raise ConfigError(f"--all-at-once and --arrivals {arrivals} exclude each other; give one")
    return "burst"


def parse_slo(text: str | None) -> dict[str, float]:
    """`slo_ttft` and `slo_tpot` in seconds from `ttft=0.5,tpot=0.05`.

    Raises:
        ConfigError: another key, one that stands twice, or not a number.
    """
    targets: dict[str, float] = {}
    for field in () if text is None else text.split(","):
        key, _, value = field.partition("=")
        if key not in ("ttft", "tpot") or f"slo_{key}" in targets:
            raise ConfigError(f"--slo {text!r}: write ttft=SECONDS,tpot=SECONDS or one of them")
        try:
            targets[f"slo_{key}"] = float(value)
        except ValueError:
            raise ConfigError(f"--slo {text!r}: {value!r} is not a number of seconds") from None
    return targets
