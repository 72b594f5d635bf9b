"""Outputs that a limit cuts count with what was emitted, not with what the trace declares."""

import numpy as np

import schedsim


def test_times_per_token_count_emitted_tokens() -> None:
    trace = schedsim.generate("azure-conv", requests=60, rate=2.0, seed=3)
    result = schedsim.simulate(trace, "vllm", max_output="const:20", blocks=4000)
    requests = result.requests
    expected = np.minimum(trace.output_tokens, 20)
    assert requests["output_tokens"].tolist() == expected.tolist()
    decoding = requests["finished"] - requests["first_token"]
    np.testing.assert_array_equal(requests["tpot_s"], decoding / (expected - 1))
    np.testing.assert_array_equal(requests["normalized_latency_s"], requests["e2e_s"] / expected)
    assert result.summary["output_tokens"] == expected.sum()
