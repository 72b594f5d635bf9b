"""`Rests`: the kept sum is the sum over all, at every look, also where rests are clipped."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from schedsim.policies import SGLang
from schedsim.policies.rests import Rests
from schedsim.request import Request
from schedsim.scheduler.step import Step
from tests.policies.workloads import Workload, run_to_the_end, workloads


@dataclass(slots=True)
class Counted(SGLang):
    """Sums over everybody, too."""

    def _rest_of_decodes(self, prefilling: list[Request], step: Step) -> int:
        kept = SGLang._rest_of_decodes(self, prefilling, step)
        if not step.decision_lag:
            decoding = [request for request in step.running if request not in prefilling]
            assert kept == sum(map(self._rests.of, decoding))
        return kept


@given(workload=workloads(("radix", "paged")), clip=st.integers(1, 9), bold=st.booleans())
def test_the_kept_sum_is_the_sum_over_all(workload: Workload, clip: int, bold: bool) -> None:
    policy = Counted(chunk_size=24, conservativeness=0.0 if bold else 1.0)
    policy._rests = Rests(clip)
    run_to_the_end(policy, workload)
