"""`tables:DIR`: what an iteration is made of, what stands for what, and folders that are none."""

import json
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from schedsim.config import make_settings
from schedsim.costs import TableOptions, TablesCost, load_model, load_tables, make_step_cost
from schedsim.costs.base import AheadCost
from schedsim.costs.skew import long_share
from schedsim.costs.table_files import IN_EACH_LAYER, ONCE, PER_SEQUENCE
from schedsim.costs.tables import _as_one_chunk, one_chunk, padded_sizes, parse_tables
from schedsim.errors import ConfigError
from schedsim.results import StepLog
from schedsim.scheduler.batch import Batch, BatchShape
from schedsim.traces.sample import sample_trace
from schedsim.traces.transforms import limit
from tests.cli.commands import schedsim
from tests.costs.kernel_tables import MODEL, lines, small_tables, write_tables
from tests.costs.shapes import shape_of
from tests.test_fast_forward import Ran, assert_same

LAYERS = 32


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tables(tmp_path_factory.mktemp("tables"))


@pytest.fixture(scope="module")
def cost(folder: Path) -> TablesCost:
    return small_tables(folder)


@pytest.fixture(scope="module")
def skewed(folder: Path) -> TablesCost:
    return small_tables(folder, skew=True)


def fixed_us(tokens: int, sequences: int) -> float:
    """All but attention, from the formulas that the tables were written with; linear, so exact."""
    kernels = {**IN_EACH_LAYER, **ONCE}
    times = {name: 10 * k + 0.3 * k * tokens for k, name in enumerate(kernels, start=1)}
    layer = sum(often * times[name] for name, often in IN_EACH_LAYER.items())
    heads = sum(100 * k + 1.7 * sequences for k in range(1, len(PER_SEQUENCE) + 1))
    return LAYERS * layer + sum(times[name] for name in ONCE) + heads


def test_a_decode_iteration_is_its_kernels(cost: TablesCost) -> None:
    attention = 3 + 0.02 * 4 * 200
    expected = fixed_us(4, 4) + LAYERS * attention
    assert cost.seconds(shape_of([], [100, 300, 150, 250])) == pytest.approx(expected * 1e-6)


def test_a_prefill_iteration_is_its_kernels(cost: TablesCost) -> None:
    attention = 5 + 0.1 * 60 + 0.001 * 60 * 100
    expected = fixed_us(60, 1) + LAYERS * attention
    assert cost.seconds(shape_of([(60, 100)])) == pytest.approx(expected * 1e-6)


def test_a_mixed_iteration_is_its_kernels(cost: TablesCost) -> None:
    attention = 7 + 0.1 * 60 + 0.001 * 60 * 100 + 0.03 * 3 * 90
    expected = fixed_us(63, 4) + LAYERS * attention
    shape = shape_of([(60, 100)], [80, 100], [90])  # one of the three only pads a static batch
    assert cost.seconds(shape) == pytest.approx(expected * 1e-6)


def test_an_iteration_that_only_copies_takes_no_time(cost: TablesCost) -> None:
    assert cost.seconds(BatchShape(swapped_blocks=3)) == 0.0


def test_beyond_the_last_point_time_grows_in_proportion(cost: TablesCost) -> None:
    layer, heads = fixed_us(128, 0) - fixed_us(0, 0), fixed_us(0, 16)
    assert layer > 0 < heads
    there = cost.seconds(shape_of([(128, 256)]))
    beyond = cost.seconds(shape_of([(256, 512)]))
    heads_us = sum(100 * k + 1.7 for k in (1, 2))
    assert beyond - heads_us * 1e-6 > 2 * (there - heads_us * 1e-6)
    sizes = [(1, 1024), (16, 1024), (32, 2048)]
    one, most, double = (cost.tables.decode.at(*size) for size in sizes)
    assert one < most
    assert double == 4 * most


@given(
    chunks=st.lists(st.tuples(st.integers(1, 4096), st.integers(0, 50_000)), min_size=1, max_size=6)
)
def test_one_chunk_has_the_work_of_all(chunks: list[tuple[int, int]]) -> None:
    shape = shape_of(chunks)
    chunk, context = one_chunk(shape)
    if len(chunks) == 1:
        assert (chunk, context) == chunks[0]
    assert chunk * (context + chunk / 2) == pytest.approx(shape.prefill_attention)
    assert 0 < chunk <= shape.prefill_tokens
    assert 0 <= context <= max(c for _, c in chunks) + shape.prefill_tokens


def test_padding_is_to_the_sizes_that_vllm_captures() -> None:
    padded = padded_sizes(512)
    assert padded[:10] == [0, 1, 2, 4, 4, 8, 8, 8, 8, 16]
    assert (padded[37], padded[250], padded[257], padded[500], padded[512]) == (
        40,
        256,
        272,
        512,
        512,
    )
    assert len(padded) == 513
    assert padded_sizes(0) == [0]
    assert padded_sizes(3) == [0, 1, 2]  # nothing is captured that holds three tokens


@given(tokens=st.integers(1, 512), largest=st.integers(1, 512))
def test_padding_is_the_least_that_holds_a_batch(tokens: int, largest: int) -> None:
    padded = padded_sizes(largest)
    captured = {*padded[1:]}
    assert captured == {size for size in {*padded_sizes(512)[1:]} if size <= largest}
    if tokens < len(padded):
        assert padded[tokens] == min(size for size in captured if size >= tokens)
    else:
        assert all(size < tokens for size in captured)


def test_graphs_pad_the_products_and_not_the_attention(folder: Path, cost: TablesCost) -> None:
    graphs = small_tables(folder, graphs=64)
    for decodes in (1, 3, 5, 13, 16):
        shape = shape_of([], [100] * decodes)
        added = fixed_us(padded_sizes(64)[decodes], decodes) - fixed_us(decodes, decodes)
        assert graphs.seconds(shape) - cost.seconds(shape) == pytest.approx(added * 1e-6, abs=1e-12)
    large = shape_of([(65, 0)], [100])
    assert graphs.seconds(large) == cost.seconds(large)


# ---- uneven contexts


def decode_shape(contexts: list[int], chunks: list[tuple[int, int]] | None = None) -> BatchShape:
    shape = shape_of(chunks or [], contexts)
    shape.longest_context = max(contexts)
    return shape


def attention_us(cost: TablesCost, shape: BatchShape) -> float:
    """A layer's attention, what is left of an iteration without the rest."""
    sequences = shape.prefill_requests + shape.decode_requests
    tokens = shape.prefill_tokens + shape.decode_requests
    return (cost.seconds(shape) * 1e6 - fixed_us(tokens, sequences)) / LAYERS


def test_uneven_decodes_lie_between_the_mean_and_the_longest(skewed: TablesCost) -> None:
    # Four decodes, one four times as long: the share of long ones is 1/4, alpha is cut to 1.
    mean, longest = 3 + 0.02 * 8 * 175, 3 + 0.02 * 8 * 400
    assert long_share(175, 400) == 0.25
    assert attention_us(skewed, decode_shape([400, 400] + 6 * [100])) == pytest.approx(longest)
    # With the longest above 1k alpha is 0.75.
    mean, longest = 3 + 0.02 * 8 * 437.5, 3 + 0.02 * 8 * 1000
    shape = decode_shape([1000, 1000] + 6 * [250])
    assert attention_us(skewed, shape) == pytest.approx(longest)
    longer = decode_shape([1028, 1028] + 6 * [257])
    mean, longest = 3 + 0.02 * 8 * 449.75, skewed.tables.decode.at(8, 1028)
    assert attention_us(skewed, longer) == pytest.approx(mean + 0.75 * (longest - mean))


def test_a_bin_below_zero_or_not_measured_corrects_nothing(
    skewed: TablesCost, cost: TablesCost
) -> None:
    below = decode_shape([100, 400])
    assert skewed.seconds(below) == cost.seconds(below)
    beside = decode_shape(8 * [100] + [400], [(8, 200)])  # kp<=64 is the last bin there is
    mean = (8 * 100 + 400) / 9
    grid = cost.tables.mixed
    low, high = grid.at(8, 200, 9, mean), grid.at(8, 200, 9, 400)
    assert attention_us(skewed, beside) == pytest.approx(low + 0.5 * (high - low))


def test_even_decodes_and_unknown_lengths_are_not_corrected(
    skewed: TablesCost, cost: TablesCost
) -> None:
    for shape in (decode_shape([70, 70, 70]), shape_of([], [10, 500]), shape_of([(5, 5)])):
        assert skewed.seconds(shape) == cost.seconds(shape)


@pytest.mark.parametrize("skew", [False, True])
@given(
    contexts=st.lists(st.integers(1, 1500), min_size=1, max_size=20),
    padding=st.lists(st.integers(1, 1500), max_size=3),
    iterations=st.integers(1, 60),
)
def test_iterations_ahead_are_those_one_by_one_to_the_bit(
    cost: TablesCost,
    skewed: TablesCost,
    skew: bool,
    contexts: list[int],
    padding: list[int],
    iterations: int,
) -> None:
    model = skewed if skew else cost
    assert isinstance(model, AheadCost)
    together = model.parts_ahead(batch_of(contexts, padding), iterations)
    later = [[n + i for n in contexts] for i in range(iterations)]
    assert np.asarray(together.device).tolist() == [
        model.seconds(batch_of(grown, padding)) for grown in later
    ]


def batch_of(contexts: list[int], padding: list[int]) -> BatchShape:
    shape = shape_of([], contexts, padding)
    shape.longest_context = max(contexts)
    return shape


@pytest.mark.parametrize("parameters", ["", ",graphs=64,skew=true"])
def test_a_run_ahead_is_the_run_without(folder: Path, parameters: str) -> None:
    trace = limit(sample_trace(), 40)
    settings = make_settings(
        model=MODEL, blocks=400, max_seqs=8, step_time=f"tables:{folder}{parameters}"
    )
    fast, plain = Ran(trace, settings, True), Ran(trace, settings, False)
    assert_same(fast, plain)
    assert fast.skipped > len(plain.held) // 4


# ---- the recorded tables


@pytest.fixture(scope="module")
def recorded(shared_oracles: Path) -> Path:
    return shared_oracles / "vllm_runs" / "RTX4090_Llama-3.1-8B" / "profile_bundle" / "tp1"


def test_the_recorded_tables_are_read_whole(recorded: Path) -> None:
    """Every row is found at its own size; between them a mixed batch is scipy's."""
    cost = make_step_cost(f"tables:{recorded}", load_model(MODEL))
    assert isinstance(cost, TablesCost)
    assert cost.tables.about == {
        "model": "meta-llama/Llama-3.1-8B",
        "hardware": "RTX4090",
        "vllm_version": "0.19.0",
    }
    rows = pd.read_csv(recorded / "attention.csv")
    for chunk, context, decodes, length, time in rows.sample(500, random_state=1).to_numpy():
        if not chunk:
            assert cost.tables.decode.at(decodes, length) == time
        elif not decodes:
            assert cost.tables.prefill.at(chunk, context) == time
        else:
            assert cost.tables.mixed.at(chunk, context, decodes, length) == time
    mixed = rows[(rows.prefill_chunk > 0) & (rows.n_decode > 0)]
    axes = [np.unique(mixed[name]) for name in mixed.columns[:4]]
    values = mixed.sort_values(list(mixed.columns[:4])).time_us.to_numpy()
    theirs = RegularGridInterpolator(axes, values.reshape([len(axis) for axis in axes]))
    points = np.random.default_rng(2).uniform([16, 0, 1, 16], [2048, 16384, 128, 16384], (200, 4))
    assert [cost.tables.mixed.at(*point) for point in points] == pytest.approx(theirs(points))


def test_the_recorded_dense_rows_add_up(recorded: Path) -> None:
    cost = make_step_cost(f"tables:{recorded}", load_model(MODEL))
    dense = pd.read_csv(recorded / "dense.csv").pivot(index="tokens", columns="layer")["time_us"]
    heads = pd.read_csv(recorded / "per_sequence.csv").groupby("sequences")["time_us"].sum()
    for tokens in (16, 256, 2048):
        row = dense.loc[tokens]
        layer = sum(often * row[name] for name, often in IN_EACH_LAYER.items())
        once = row["embedding"] + row["final_layernorm"]
        assert isinstance(cost, TablesCost)
        attention = cost.tables.prefill.at(tokens, 512)
        expected = LAYERS * (layer + attention) + once + heads[1]
        assert cost.seconds(shape_of([(tokens, 512)])) == pytest.approx(expected * 1e-6)


def test_the_skew_correction_explains_the_measured_uneven_batches(recorded: Path) -> None:
    """skew.csv holds times of three measurements together; what counts is how they compare."""
    cost = make_step_cost(f"tables:{recorded},skew=true", load_model(MODEL))
    assert isinstance(cost, TablesCost)
    assert cost.tables.skew is not None
    rows = pd.read_csv(recorded / "skew.csv")
    rows = rows[(rows["skew"] == 4.0) & (rows["n"] <= 128)].sample(1500, random_state=3)
    uneven, even = [], []
    for row in rows.itertuples():
        shape = BatchShape(
            prefill_requests=int(row.pc > 0),
            prefill_tokens=int(row.pc),
            prefill_context=int(row.kp),
            decode_requests=int(row.n),
            decode_context=int(row.nb * row.kv_big + (row.n - row.nb) * row.kvs),
            longest_context=int(row.kv_big),
        )
        attention = cost._mixed_attention if row.pc else cost._decode_attention
        uneven.append(3 * attention(shape, int(row.n)) / row.t_skew_us - 1)
        shape.longest_context = 0
        even.append(3 * attention(shape, int(row.n)) / row.t_skew_us - 1)
    assert np.median(np.abs(uneven)) < 0.75 * np.median(np.abs(even))
    assert abs(np.mean(uneven)) < 0.25 * abs(np.mean(even))


# ---- folders that are none


def drop(name: str, keep: Callable[[str], bool]) -> dict[str, list[str]]:
    header, *rows = lines()[name]
    return {name: [header, *filter(keep, rows)]}


def add(name: str, line: str) -> dict[str, list[str]]:
    return {name: [*lines()[name], line]}


BAD: dict[str, tuple[dict[str, list[str]], str]] = {
    "no file": ({"dense.csv": []}, "dense.csv: cannot read the kernel table"),
    "no column": ({"dense.csv": ["layer,time_us", "a,1"]}, "dense.csv: no column tokens; needed"),
    "no rows": (drop("per_sequence.csv", lambda _: False), "per_sequence.csv: no rows"),
    "no number": (add("dense.csv", "qkv_proj,4,fast"), "line 47: time_us='fast' is not a number"),
    "a short line": (
        add("dense.csv", "qkv_proj,4"),
        "line 47: too few values for the columns layer,tokens,time_us",
    ),
    "a short line, labels last": (
        {"dense.csv": ["tokens,time_us,layer", "1,2.5,qkv_proj", "2,2.5"]},
        "line 3: too few values for the columns tokens,time_us,layer",
    ),
    "a comma in a number": (
        add("dense.csv", "qkv_proj,4,1,234"),
        "line 47: too many values for the columns layer,tokens,time_us",
    ),
    "after an empty line": (
        {"dense.csv": [lines()["dense.csv"][0], "", *lines()["dense.csv"][1:], "qkv_proj,4,fast"]},
        "line 48: time_us='fast' is not a number",
    ),
    "negative": (add("dense.csv", "qkv_proj,4,-1"), "line 47: time_us='-1' is not a number from 0"),
    "endless": (add("attention.csv", "0,0,1,9,inf"), "time_us='inf' is not a number from 0"),
    "half a token": (add("dense.csv", "qkv_proj,4.5,1"), "tokens='4.5' is not a whole number"),
    "too many tokens": (add("dense.csv", "qkv_proj,99999999,1"), "is not a whole number from 0 to"),
    "a context of nothing": (
        add("attention.csv", "0,16,1,16,1"),
        "prefill_chunk=0, kv_prefill=16, n_decode=1, kv_decode=16 is no batch",
    ),
    "nothing": (add("attention.csv", "0,0,0,0,1"), "or nothing at all"),
    "no context": (
        drop("attention.csv", lambda row: row.split(",")[0] == "0" or row.split(",")[1] == "0"),
        "kv_prefill is 0 for all batches that prefill",
    ),
    "twice": (add("dense.csv", "o_proj,8,1"), "line 47: the sizes o_proj, 8 stand twice"),
    "at nothing": (add("dense.csv", "o_proj,0,1"), "dense.csv: o_proj is measured at 0"),
    "a kernel too few": (
        drop("dense.csv", lambda row: not row.startswith("o_proj")),
        "dense.csv: lacks kernels o_proj; a layer of this model is made of layernorm",
    ),
    "a kernel too many": (add("dense.csv", "moe,8,1"), "dense.csv: has unknown kernels moe"),
    "no decodes": (
        drop("attention.csv", lambda row: not row.startswith("0,")),
        "attention.csv: no rows of batches that decode",
    ),
    "no mixed batches": (
        drop("attention.csv", lambda row: row.startswith("0,") or row.split(",")[2] == "0"),
        "attention.csv: no rows of batches that prefill and decode",
    ),
    "a gap": (
        drop("attention.csv", lambda row: not row.startswith("32,64,4,")),
        "3 combinations of sizes are missing, the first is prefill_chunk=32, kv_prefill=64, "
        "n_decode=4, kv_decode=16",
    ),
    "no bin": (add("skew_fit.csv", "8,few,sr>15%,kvB>1k,kp=0,1,1"), "'few' is no label of a bin"),
    "no prefill bins": (
        drop("skew_fit.csv", lambda row: row.startswith("0,")),
        "skew_fit.csv: pc is 0 in all rows",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_folder_is_told_in_one_message(name: str, tmp_path: Path) -> None:
    changed, said = BAD[name]
    options = TableOptions(str(write_tables(tmp_path, changed)), skew=True)
    with pytest.raises(ConfigError) as caught:
        load_tables(options, load_model(MODEL), 1)
    message = str(caught.value)
    assert said in message
    assert str(tmp_path) in message
    assert "\n" not in message


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    (write_tables(tmp_path) / "attention.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"attention.csv: cannot read the kernel table"):
        load_tables(TableOptions(str(tmp_path)), load_model(MODEL), 1)


def test_skew_is_read_only_if_asked(tmp_path: Path) -> None:
    folder = write_tables(tmp_path, {"skew_fit.csv": []})
    assert load_tables(TableOptions(str(folder)), load_model(MODEL), 1).tables.skew is None
    with pytest.raises(ConfigError, match=r"skew_fit.csv: cannot read"):
        load_tables(TableOptions(str(folder), skew=True), load_model(MODEL), 1)


def test_a_model_of_other_kernels_is_refused(tmp_path: Path) -> None:
    options = TableOptions(str(write_tables(tmp_path)))
    with pytest.raises(ConfigError, match=r"lacks kernels qk_norm"):
        load_tables(options, load_model("qwen3-8b"), 1)
    with pytest.raises(ConfigError, match="its MLP has two matrices"):
        load_tables(options, load_model("opt-13b"), 1)
    with pytest.raises(ConfigError, match="no communication between GPUs"):
        load_tables(options, load_model(MODEL), 2)
    with_norm = add("dense.csv", "qk_norm,8,2")
    qwen = load_model("qwen3-8b")
    loaded = load_tables(TableOptions(str(write_tables(tmp_path, with_norm))), qwen, 1)
    assert loaded.layers == qwen.layers


# ---- specs, notes and the command


def test_parameters_stand_behind_the_folder() -> None:
    assert parse_tables("tables:a/b") == TableOptions("a/b")
    assert parse_tables("tables:a/b,graphs=512,skew=true") == TableOptions("a/b", 512, True)
    assert parse_tables("tables:a,b=c/d,skew=no") == TableOptions("a,b=c/d")
    assert parse_tables("tables:Bundle,graphs=8") == TableOptions("Bundle", 8)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("tables", "write tables:DIR"),
        ("tables:", "write tables:DIR"),
        ("tables:a,graph=3", "Did you mean 'graphs'"),
        ("tables:a,graphs=few", "graphs='few': must be a whole number"),
        ("tables:a,graphs=-1", "graphs=-1 is not from 0"),
        ("tables:a,skew=very", "must be true or false"),
        ("tables:a,skew=true,skew=true", "'skew' stands twice"),
    ],
)
def test_a_wrong_spec_is_told(text: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make_step_cost(text, load_model(MODEL))
    assert said in str(caught.value)
    with pytest.raises(ConfigError, match="needs --model"):
        make_step_cost(text)


def test_what_was_read_stands_in_the_manifest(tmp_path: Path) -> None:
    cost = small_tables(tmp_path, graphs=64)
    told = cost.describe()
    assert json.loads(json.dumps(told)) == told
    assert {"dense.csv", "per_sequence.csv", "attention.csv"} == set(told["sha256"])
    assert (told["graphs"], told["layers"]) == (64, LAYERS)


def run_on(folder: Path, *arguments: str) -> str:
    """What a run says beside its results."""
    done = schedsim(
        "run", "--limit", "60", "--model", MODEL, "--step-time", f"tables:{folder}", *arguments
    )
    assert done.exit_code == 0, done.output
    return " ".join(done.stderr.split())


def test_a_run_says_of_what_its_tables_are_and_what_they_lack(tmp_path: Path) -> None:
    folder = write_tables(tmp_path / "tp1")
    meta = tmp_path / "meta.yaml"
    meta.write_text("model: maker/Other-8B\nhardware: 'card'\nnested:\n  model: x\n")
    said = run_on(folder, "--blocks", "3000")
    assert f"kernels of maker/Other-8B on card, 32 layers of them, not those of {MODEL}" in said
    assert "step times go beyond the kernel tables: tokens up to" in said
    assert "mean context of decodes without a prefill up to" in said
    assert "in no time" not in said
    meta.write_text("model: maker/Llama-3.1-8B\n")
    swaps = ("--memory", "paged,host_blocks=5000", "--policy", "vllm-v0,preemption=swap")
    said = run_on(folder, "--blocks", "300", *swaps)
    assert "not those of" not in said
    assert "blocks were swapped or moved in no time: the kernel tables hold no copies" in said


def steps_of(*batches: BatchShape) -> StepLog:
    """The step log of these batches."""
    log = StepLog()
    for shape in batches:
        values = {field.name: getattr(shape, field.name) for field in fields(BatchShape)}
        log.append(Batch(**values), 0.0, 1.0, 0, 1, 0, 100, 0)
    return log


def test_each_size_is_held_against_the_table_it_is_looked_up_in(tmp_path: Path) -> None:
    """Attention beside decodes was measured for shorter chunks and contexts than alone."""

    def was_measured(row: str) -> bool:
        chunk, context, decodes, length, _ = map(float, row.split(","))
        return not (chunk and decodes) or (max(chunk, context) <= 64 and length <= 128)

    folder = write_tables(tmp_path, drop("attention.csv", was_measured))
    cost = load_tables(TableOptions(str(folder)), load_model(MODEL), 1)
    inside = [
        shape_of([(100, 200)]),
        shape_of([(60, 0), (60, 0)]),
        decode_shape([1000, 900]),
        decode_shape([128], [(20, 64)]),
        decode_shape([128], [(20, 0), (20, 0)]),
    ]
    assert cost.beyond(steps_of(*inside)) == []
    for shape, said in (
        (
            decode_shape([128], [(33, 0)]),
            "prefill tokens beside decodes up to 33 (measured up to 32",
        ),
        (decode_shape([16], [(8, 65)]), "context of prefills beside decodes up to 65 "),
        (decode_shape([129], [(8, 0)]), "mean context of decodes beside a prefill up to 129 "),
    ):
        (note,) = cost.beyond(steps_of(*inside, shape))
        assert said in note
        assert note.count("measured up to") == 1


@given(
    chunks=st.lists(st.tuples(st.integers(1, 4096), st.integers(0, 9000)), min_size=1, max_size=4)
)
def test_the_chunk_of_a_step_is_that_of_its_batch(chunks: list[tuple[int, int]]) -> None:
    shape = shape_of(chunks)
    chunk, context = _as_one_chunk(steps_of(shape).column)
    assert (chunk[0], context[0]) == one_chunk(shape)


def test_a_wrong_folder_is_a_mistake_of_the_user(tmp_path: Path) -> None:
    done = schedsim("run", "--limit", "3", "--step-time", f"tables:{tmp_path}/none")
    assert done.exit_code == 2
    assert "dense.csv: cannot read the kernel table" in " ".join(done.stderr.split())
