"""`sarathi` with the chunk that falls as a prompt goes on."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.policies import Sarathi
from tests.core.harness import Jobs, simulate
from tests.policies.workloads import Workload, run_to_the_end, workloads


def test_the_chunk_falls_in_equal_steps_to_multiples_of_32() -> None:
    falling = Sarathi(chunk_size=512, low_chunk_size=128, falling_tokens=4000, stages=4)
    # 512, 384, 256 and 128, each for a thousand tokens.
    run = simulate(falling, Jobs([5000], [2]), blocks=2000, max_model_len=9000)
    chunks = [i.tokens[0] for i in run.iterations[:-1]]
    assert chunks[:2] == [512, 512]
    assert chunks[2:5] == [384, 384, 384]
    assert chunks[5:9] == [256] * 4
    assert set(chunks[9:-1]) == {128}
    odd = Sarathi(chunk_size=512, low_chunk_size=64, stages=4)
    assert odd._sizes == [512, 352, 224, 64], "362 and 213 are no multiples"
    assert Sarathi(chunk_size=40, low_chunk_size=10, stages=3)._sizes == [40, 20, 10]


def test_a_prompt_gets_what_those_before_it_left_of_its_own_chunk() -> None:
    policy = Sarathi(chunk_size=64, low_chunk_size=32, falling_tokens=128, stages=2)
    jobs = Jobs([4, 200, 50], [9, 2, 2], arrivals=[0, 1, 2])
    run = simulate(policy, jobs, blocks=200)
    assert [i.tokens for i in run.iterations[:4]] == [
        {0: 4},
        {0: 1, 1: 63},
        # 63 tokens are in: the next chunk is still a large one, and leaves nothing.
        {0: 1, 1: 63},
        # 126 are in: a small one, of which one token is a decode's; the new prompt's is large.
        {0: 1, 1: 31, 2: 32},
    ]


def test_a_chunk_that_never_falls_is_the_fixed_one() -> None:
    jobs = Jobs([40, 100, 7], [9, 9, 9], arrivals=[0, 1, 3])
    fixed = simulate(Sarathi(chunk_size=32), jobs)
    falling = simulate(Sarathi(chunk_size=32, low_chunk_size=32), jobs)
    assert fixed.iterations == falling.iterations


@pytest.mark.parametrize(
    "make",
    [
        lambda: Sarathi(low_chunk_size=0),
        lambda: Sarathi(chunk_size=64, low_chunk_size=65),
        lambda: Sarathi(stages=0),
        lambda: Sarathi(falling_tokens=0),
    ],
)
def test_parameters_out_of_range_are_refused(make: type[Sarathi]) -> None:
    with pytest.raises(ConfigError, match=r"policy 'sarathi': \w+="):
        make()


@settings(max_examples=40)
@given(workloads(), st.integers(1, 40), st.integers(1, 5))
def test_everyone_finishes(workload: Workload, low: int, stages: int) -> None:
    run_to_the_end(Sarathi(40, 0.0, low, 20, stages), workload)
