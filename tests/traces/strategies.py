"""Random small traces with any of the optional columns."""

import numpy as np
from hypothesis import strategies as st

from schedsim.traces.readers.hashed import join_chains
from schedsim.traces.trace import PromptBlocks, Trace, TraceSource

BLOCK = 4


@st.composite
def traces(draw: st.DrawFn, closed_loop: bool | None = None, timed: bool = True) -> Trace:
    """A valid trace of up to 12 requests; `start_ns` and each optional column may be there."""
    rows = draw(st.integers(1, 12))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    prompt = rng.integers(1, 30, rows).astype(np.int32)
    columns: dict[str, object] = {}
    if closed_loop or (closed_loop is None and draw(st.booleans())):
        columns.update(_sessions(rng, rows))
    elif draw(st.booleans()):
        columns["session"] = rng.integers(-1, 4, rows)
    if draw(st.booleans()):
        columns["tenant"] = rng.integers(-1, 2, rows)
        columns["tenant_names"] = draw(st.sampled_from([(), ("a", "b"), ("b", "é")]))
    if draw(st.booleans()):
        columns["priority"] = rng.integers(-5, 5, rows)
    if draw(st.booleans()):
        columns["ttft_slo"] = np.where(rng.random(rows) < 0.5, np.nan, rng.random(rows) + 0.1)
    if draw(st.booleans()):
        columns["predicted_output"] = rng.lognormal(3, 2, rows)
    if draw(st.booleans()):
        columns["blocks"] = _blocks(rng, prompt)
    dropped = {"zero output tokens": draw(st.integers(1, 5))} if draw(st.booleans()) else {}
    source = TraceSource(
        name="random",
        format="test",
        rows_read=rows + sum(dropped.values()),
        dropped=dropped,
        notes=draw(st.sampled_from([(), ("a note",)])),
        start_ns=draw(st.sampled_from([None, 1_700_158_623_979_960_000])) if timed else None,
    )
    return Trace(
        arrival=np.sort(rng.choice([0.0, 0.1, 1 / 3, 1.0, 2.5, 7.0], rows) * rng.random()),
        prompt_tokens=prompt,
        output_tokens=rng.integers(1, 30, rows).astype(np.int32),
        has_arrivals=timed,
        source=source,
        **columns,  # type: ignore[arg-type]
    )


def _sessions(rng: np.random.Generator, rows: int) -> dict[str, object]:
    """Each request starts a session or waits for an earlier request of its session."""
    session, parent = np.arange(rows), np.full(rows, -1)
    for row in range(1, rows):
        if rng.random() < 0.6:
            parent[row] = rng.integers(0, row)
            session[row] = session[parent[row]]
    think = np.where(parent >= 0, rng.exponential(2.0, rows), 0.0)
    return {"session": session, "parent": parent, "think_s": think}


def _blocks(rng: np.random.Generator, prompt: np.ndarray) -> PromptBlocks:
    """Chains from three stems, which share prefixes; some leave the partial block out."""
    chains = [
        np.arange(-(-tokens // BLOCK) if rng.random() < 0.7 else tokens // BLOCK)
        + 100 * rng.integers(0, 3)
        for tokens in prompt.tolist()
    ]
    return join_chains(BLOCK, chains)
