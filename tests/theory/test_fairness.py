"""VTC's bound on the difference of service between two tenants that always wait, and DLPM's."""

import numpy as np
import pytest

from schedsim.policies import DLPM, VLLM, VTC, Policy
from tests.theory.engine import Service, affine_step, make_trace, run_engine

POOL = 7200
U = max(1 * 256, 2 * POOL)
"""The paper's bound on the spread of counters: max(w_p · longest prompt, w_q · pool)."""

SPANS = (50.0, 100.0, 200.0)


def serve_two(policy: Policy, share: float = 0.5, seconds: float = 60.0) -> Service:
    """Tenants of 256/64 and 64/256 tokens, which both have requests in line for `seconds`.

    `share` of the requests are of the first.
    """
    count = 4600
    tenants = (np.arange(count) * share % 1.0 >= share).astype(np.int64)
    prompts = np.where(tenants == 0, 256, 64)
    outputs = np.where(tenants == 0, 64, 256)
    service = Service()
    run_engine(
        policy,
        make_trace(np.zeros(count), prompts, outputs, tenants),
        affine_step(0.015, 5e-5),
        blocks=POOL // 16,
        observer=service,
        until=lambda: bool(service.times) and service.times[-1] > seconds,
    )
    assert service.is_backlogged, "a tenant has nothing in line any more"
    assert service.times[-1] > seconds
    return service


def test_vtc_keeps_the_gap_below_its_bound_and_flat_where_fcfs_lets_it_grow() -> None:
    vtc = serve_two(VTC(reserve="output"), seconds=SPANS[-1])
    gaps = [vtc.gap(span) for span in SPANS]
    assert gaps[-1] <= 2 * U
    assert gaps[-1] <= 1.2 * gaps[0], "it does not grow with time"
    fcfs = serve_two(VLLM(), seconds=SPANS[-1])
    grown = [fcfs.gap(span) for span in SPANS]
    assert grown[-1] > 2 * U
    assert grown[1] / grown[0] == pytest.approx(2.0, rel=0.1)
    assert grown[2] / grown[1] == pytest.approx(2.0, rel=0.1)


def test_a_tenant_that_sends_more_gets_no_more_from_vtc() -> None:
    vtc = serve_two(VTC(reserve="output"), share=0.8)
    assert vtc.gap(60.0) <= 2 * U
    assert serve_two(VLLM(), share=0.8).gap(60.0) > 2 * U


def test_weights_share_in_their_proportion() -> None:
    served = serve_two(VTC(weights="0:3/1:2", reserve="output")).served
    assert abs(served[0] / 3 - served[1] / 2) <= 2 * U


@pytest.mark.parametrize("quantum", [1000, 20_000])
def test_dlpm_keeps_the_gap_below_its_bound(quantum: int) -> None:
    service = serve_two(DLPM(quantum=quantum))
    assert service.gap(60.0) <= 2 * (U + quantum)
