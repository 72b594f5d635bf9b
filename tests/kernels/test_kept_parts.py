"""Runs on one loaded model share what the device holds, and come out as on a model of their own."""

import weakref
from collections import defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from schedsim.config import make_settings
from schedsim.executor import iterations, kept_parts
from schedsim.executor.iterations import Iterations
from schedsim.executor.kept_parts import KeptParts
from schedsim.executor.kernel_decoder import KernelDecoder
from schedsim.executor.kernel_runner import KernelRunner, LaunchedBatch
from schedsim.executor.parts import DeviceParts, PartSizes
from schedsim.executor.timer import DeviceTime
from schedsim.executor.weights import random_weights
from schedsim.experiments.execution import DeviceModel, execute_policy, with_kernels
from schedsim.experiments.runs import Outcome, RunOptions
from tests.core.harness import Jobs
from tests.executor.test_replayed_policies import records
from tests.kernels.kernel_engines import CONFIG

PAGED = {"blocks": 4}
CONTIGUOUS = {"blocks": 8, "memory": "contiguous"}
SWAP = {"blocks": 4, "policy": "vllm-v0,preemption=swap", "memory": "paged,host_blocks=9"}
FEWER_SEATS = {"blocks": 4, "max_seqs": 2}


class Ran(NamedTuple):
    """What a run did: its decisions, and the tokens that were sampled, batch by batch."""

    decisions: list[dict[str, Any]]
    tokens: list[list[int]]


class Made(NamedTuple):
    """How many seats the parts had that were made, and that were warmed up, in order."""

    seats: list[int]
    warm: list[int]


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Made:
    """Counts what is made anew; a short warm-up."""
    monkeypatch.setattr(iterations, "WARM_UP_TOKENS", (1,))
    monkeypatch.setattr(iterations, "WARM_UP_ROWS", (1,))
    found = Made([], [])
    create, warm_up = DeviceParts.__init__, Iterations.warm_up

    def creating(self: DeviceParts, decoder: KernelDecoder, sizes: PartSizes) -> None:
        found.seats.append(sizes.max_seqs)
        create(self, decoder, sizes)

    def warming(self: Iterations) -> None:
        found.warm.append(self.padding.decodes[-1])
        warm_up(self)

    monkeypatch.setattr(DeviceParts, "__init__", creating)
    monkeypatch.setattr(Iterations, "warm_up", warming)
    return found


@pytest.fixture
def sampled(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The tokens of every batch, of all runs one after the other."""
    tokens: list[list[int]] = []
    wait = KernelRunner.wait

    def waiting(self: KernelRunner, launched: LaunchedBatch) -> DeviceTime:
        time = wait(self, launched)
        if launched.visible is not None:
            tokens.append(launched.visible.tolist())
        return time

    monkeypatch.setattr(KernelRunner, "wait", waiting)
    return tokens


def device_model(device: str) -> DeviceModel:
    """A tiny decoder that draws its tokens, and nothing kept yet."""
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    weights = random_weights(CONFIG, 7, dtype=dtype, device=device)
    described = {"temperature": 0.8, "kernels": None}
    decoder = KernelDecoder(CONFIG, weights)
    return DeviceModel(decoder, described, device, 2**30, KeptParts(torch.device(device)))


def executed(model: DeviceModel, out: Path | None = None, seed: int = 0, **changes: Any) -> Outcome:
    """One run of requests that are all there at once; another `seed`, other lengths."""
    lengths = [26 - seed, 14, 15, 16 + 2 * seed]
    trace = Jobs(prompts=lengths, outputs=[4, 5, 3, 1]).trace()
    common = {"model": "tiny", "max_seqs": 4, "token_budget": 31, "max_model_len": 64}
    settings = make_settings(**{**common, "block_size": 16, "decision_lag": 1, **changes})
    return execute_policy(trace, settings, RunOptions(out, decisions=True), model=model)


@pytest.fixture
def ran(tmp_path: Path, sampled: list[list[int]]) -> Iterator[Any]:
    """Runs to the end; each into a folder of its own."""
    counts: dict[str, int] = defaultdict(int)

    def run(model: DeviceModel, **changes: Any) -> Ran:
        counts["runs"] += 1
        out = tmp_path / str(counts["runs"])
        sampled.clear()
        assert executed(model, out, **changes).stopped is None
        return Ran(records(out), list(sampled))

    return run


def test_a_run_on_kept_parts_is_the_run_on_parts_of_its_own(
    ran: Any, made: Made, device: str
) -> None:
    model = device_model(device)
    ran(model, **SWAP)
    swap = ran(model, **SWAP, seed=3)
    assert [record for record in swap.decisions if "swapped_in" in record]
    ran(model, **CONTIGUOUS)
    ran(model, **FEWER_SEATS)
    contiguous = ran(model, **CONTIGUOUS, seed=3)
    assert made.seats == made.warm == [4, 4, 2]
    assert min(len(swap.tokens), len(contiguous.tokens)) > 5
    assert swap == ran(device_model(device), **SWAP, seed=3)
    assert contiguous == ran(device_model(device), **CONTIGUOUS, seed=3)


def test_kernels_of_both_kinds_are_kept(ran: Any, made: Made, device: str) -> None:
    model = device_model(device)
    by_table = with_kernels(model, "paged")
    found = [ran(one, **CONTIGUOUS) for one in (model, by_table, model, by_table)]
    assert made.seats == [4, 4]
    assert found[0] == found[2]
    assert found[1] == found[3]
    assert found[0].decisions == found[1].decisions


def test_a_longer_table_of_angles_is_not_read_where_the_shorter_one_was(
    ran: Any, made: Made, device: str
) -> None:
    model = device_model(device)
    longer = CONFIG.shape.max_model_len + 16
    first = ran(model, **PAGED)
    ran(model, **{**PAGED, "max_model_len": longer})
    assert ran(model, **PAGED) == first
    assert made.seats == [4, 4, 4]  # the first parts' captures read what is no longer there


@pytest.mark.parametrize("error", [RuntimeError("it broke"), KeyboardInterrupt()])
def test_nothing_is_kept_of_a_run_that_breaks_off(
    monkeypatch: pytest.MonkeyPatch, ran: Any, made: Made, device: str, error: BaseException
) -> None:
    model = device_model(device)
    first = ran(model, **PAGED)
    with monkeypatch.context() as patch:
        launch, count = Iterations.run, 0

        def failing(self: Iterations, *parts: Any) -> Any:
            nonlocal count
            count += 1
            if count == 3:
                raise error
            return launch(self, *parts)

        patch.setattr(Iterations, "run", failing)
        assert executed(model, **PAGED).stopped is not None
    assert made.seats == [4]
    assert ran(model, **PAGED) == first
    assert made.seats == [4, 4]


def test_parts_begin_as_new_ones(device: str) -> None:
    sizes = PartSizes(3, 16, 0, 2, 16, 0.5, 128, 0, 0)
    decoder = device_model(device).decoder
    assert isinstance(decoder, KernelDecoder)
    parts, new = DeviceParts(decoder, sizes), DeviceParts(decoder, sizes)
    tensors = [name for name, value in vars(new.inputs).items() if isinstance(value, torch.Tensor)]
    assert {"fields", "context_lengths", "seeds", "table", "_message"} < set(tensors)
    for tensor in (*parts.inputs._hosts, *(getattr(parts.inputs, name) for name in tensors)):
        if tensor is not parts.inputs.temperatures:
            tensor.fill_(7)
    parts.inputs._turn = 1
    for layer in parts.store.layers:
        layer.fill_(7)
    parts.reset()
    for name in tensors:
        assert torch.equal(getattr(parts.inputs, name), getattr(new.inputs, name)), name
    for host, wanted in zip(parts.inputs._hosts, new.inputs._hosts, strict=True):
        assert torch.equal(host, wanted)
    assert parts.inputs._turn == new.inputs._turn
    assert all((layer[0] == 0).all() and (layer[1:] == 7).all() for layer in parts.store.layers)


class Sized:
    """Parts of some size that are nothing else."""

    def __init__(self, sizes: PartSizes) -> None:
        self.sizes = sizes
        self.beside: list[Any] = []
        self.resets = 0

    def reset(self) -> None:
        self.resets += 1


def sized(blocks: int, *, host: int = 0, cache: int = 100, workspace: int = 0) -> PartSizes:
    return PartSizes(blocks, 16, host, 4, 16, 0.0, 128, cache, workspace)


class Keeper:
    """Kept parts on a device that has as much memory free as the test says."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.free = 1000
        monkeypatch.setattr(kept_parts, "free_bytes", lambda device: self.free)
        monkeypatch.setattr(
            kept_parts, "room_for_cache", lambda device, free, workspace: (free - workspace, "")
        )
        self.kept = KeptParts(torch.device("cpu"))

    def take(self, sizes: PartSizes) -> Any:
        return self.kept.take(sizes, partial(Sized, sizes))  # type: ignore[arg-type]

    def run(self, sizes: PartSizes) -> Any:
        """A run that comes to its end; its parts."""
        parts = self.take(sizes)
        self.kept.keep(parts)
        return parts


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Keeper:
    return Keeper(monkeypatch)


def test_two_sets_are_kept_and_the_longest_unused_goes(keeper: Keeper) -> None:
    one, two = keeper.run(sized(1)), keeper.run(sized(2))
    assert keeper.run(sized(1)) is one
    assert (one.resets, two.resets) == (1, 0)
    three = keeper.run(sized(3))
    assert keeper.run(sized(1)) is one
    assert keeper.run(sized(3)) is three
    assert keeper.run(sized(2)) is not two


@pytest.mark.parametrize(
    ("first", "second", "free"),
    [
        (sized(1), sized(2), 99),
        (sized(1), sized(2, workspace=50), 149),
        (sized(1, workspace=50), sized(2), 149),
        (sized(1, host=1), sized(2), 10**9),
        (sized(1), sized(2, host=1), 10**9),
    ],
)
def test_new_parts_find_no_less_room_than_without_kept_ones(
    keeper: Keeper, first: PartSizes, second: PartSizes, free: int
) -> None:
    keeper.run(first)
    keeper.free = free
    assert keeper.take(second).beside == []


def test_a_set_that_is_dropped_is_gone_before_another_is_made(keeper: Keeper) -> None:
    seen = weakref.ref(keeper.run(sized(1)))
    keeper.free = 0

    def make() -> Any:
        assert seen() is None
        return Sized(sized(2))

    keeper.kept.take(sized(2), make)


def test_who_has_parts_has_those_beside_it_until_they_are_kept(keeper: Keeper) -> None:
    one = keeper.run(sized(1))
    two = keeper.take(sized(2))
    assert two.beside == [one]
    assert keeper.take(sized(1)) is not one  # the run on the second broke off
    keeper.kept.keep(two)
    assert two.beside == []
    assert keeper.run(sized(1)) is one
