"""Fairness among tenants against a plain search over pairs of tenants and of instants."""

from itertools import combinations, pairwise

import pytest
from hypothesis import given

from schedsim.results import build_result
from schedsim.results.fairness import MAX_INSTANTS
from tests.results.runs import VLLM, Run, make_trace, runs, serve


class Plain:
    """Service and backlog of tenants, from token lists and requests."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.requests = [
            request
            for request in run.record.released_requests()
            if request.status != "rejected" and request.tenant >= 0
        ]

    def service(self, tenant: int, instant: float) -> int:
        total = 0
        for request in self.requests:
            if request.tenant == tenant:
                times = self.run.token_times.get(request.id, [])
                total += sum(time <= instant for time in times)
                total += request.prompt_tokens * (bool(times) and times[0] <= instant)
        return total

    def waits(self, tenant: int, begin: float, end: float) -> bool:
        """Whether the tenant waits all the time from `begin` to `end`."""
        periods = sorted(
            (
                request.arrival,
                self.run.record.end_time if request.admitted is None else request.admitted,
            )
            for request in self.requests
            if request.tenant == tenant
        )
        reach = None
        for start, stop in periods:
            if start <= begin and stop >= begin:
                reach = stop if reach is None else max(reach, stop)
            elif reach is not None and start <= reach:
                reach = max(reach, stop)
        return reach is not None and reach >= end


@given(runs(with_tenants=True))
def test_fairness_is_that_of_a_plain_search(run: Run) -> None:
    found = build_result(run.record).summary["fairness"]
    trace_tenants = sorted({int(tenant) for tenant in run.record.trace.tenant if tenant >= 0})
    if not trace_tenants:
        assert found is None
        return
    plain = Plain(run)
    instants = sorted(set(run.record.steps.end))
    assert len(instants) <= MAX_INSTANTS
    largest = None
    for one, other in combinations(trace_tenants, 2):
        for index, begin in enumerate(instants):
            for end in instants[index + 1 :]:
                if not (plain.waits(one, begin, end) and plain.waits(other, begin, end)):
                    break
                gained = plain.service(one, end) - plain.service(one, begin)
                other_gained = plain.service(other, end) - plain.service(other, begin)
                largest = max(largest or 0, abs(gained - other_gained))
    assert found["tenants"] == len(trace_tenants)
    assert found["largest_service_difference_tokens"] == largest
    rates = []
    for tenant in trace_tenants:
        served, seconds = 0, 0.0
        for begin, end in pairwise(instants):
            if plain.waits(tenant, begin, end):
                served += plain.service(tenant, end) - plain.service(tenant, begin)
                seconds += end - begin
        if seconds:
            rates.append(served / seconds)
    if len(rates) < 2 or not any(rates):
        assert found["jain_index"] is None
    else:
        jain = sum(rates) ** 2 / (len(rates) * sum(rate * rate for rate in rates))
        assert found["jain_index"] == pytest.approx(jain)


def test_a_run_without_tenants_has_no_fairness() -> None:
    run = serve(make_trace([0.0], [3], [2]), VLLM(), lambda _: 1.0)
    assert build_result(run.record).summary["fairness"] is None
