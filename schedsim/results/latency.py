"""Latencies of requests and tokens, and what of them keeps the service-level objectives."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from schedsim.results.columns import Mask, RequestColumns
from schedsim.results.quantiles import Floats, Ints, describe
from schedsim.results.token_times import TokenTimes


@dataclass(frozen=True, slots=True)
class Latencies:
    """Seconds by request, NaN where the figure does not exist; defined in docs/metrics.md."""

    queue: Floats
    ttft: Floats
    tpot: Floats
    max_itl: Floats
    e2e: Floats
    normalized: Floats

    @classmethod
    def of(cls, requests: RequestColumns, tokens: TokenTimes) -> "Latencies":
        """Compute all of them."""
        later_tokens = np.where(requests.output_tokens > 1, requests.output_tokens - 1, np.nan)
        e2e = requests.finished - requests.arrival
        return cls(
            queue=requests.admitted - requests.arrival,
            ttft=requests.first_token - requests.arrival,
            tpot=(requests.finished - requests.first_token) / later_tokens,
            max_itl=tokens.longest_gap(len(requests)),
            e2e=e2e,
            normalized=e2e / requests.output_tokens,
        )

    def describe(self, arrived: Mask, itl: tuple[Floats, Ints]) -> dict[str, Any]:
        """Statistics over the requests in `arrived` and over the token gaps `itl`."""
        return {
            "ttft_s": describe(self.ttft[arrived]),
            "tpot_s": describe(self.tpot[arrived]),
            "itl_s": describe(*itl),
            "e2e_s": describe(self.e2e[arrived]),
            "queue_s": describe(self.queue[arrived]),
        }


@dataclass(frozen=True, slots=True)
class Goodput:
    """Which requests kept their objectives, and how many of their tokens came in time.

    Only requests with a target and an outcome are judged: a rejected one misses, one that an
    interrupted run left behind does not count.
    """

    requests: RequestColumns
    judged: Mask
    met: Mask
    tokens_on_time: Ints

    @classmethod
    def of(
        cls, requests: RequestColumns, latencies: Latencies, tokens: TokenTimes
    ) -> "Goodput | None":
        """None where no request has a target."""
        has_target = ~np.isnan(requests.ttft_slo) | ~np.isnan(requests.tpot_slo)
        if not has_target.any():
            return None
        ttft_slo = np.where(np.isnan(requests.ttft_slo), np.inf, requests.ttft_slo)
        tpot_slo = np.where(np.isnan(requests.tpot_slo), np.inf, requests.tpot_slo)
        keeps_pace = np.isnan(latencies.tpot) | (latencies.tpot <= tpot_slo)
        return cls(
            requests=requests,
            judged=has_target & requests.has_outcome,
            met=requests.is_finished & (latencies.ttft <= ttft_slo) & keeps_pace,
            tokens_on_time=tokens.tokens_on_time(
                requests.first_token, requests.arrival + ttft_slo, tpot_slo
            ),
        )

    def describe(self, arrived: Mask, seconds: float | None) -> dict[str, Any]:
        """Shares and rate of the requests in `arrived`, which came and were served in `seconds`."""
        judged = self.judged & arrived
        count, due = int(judged.sum()), int(self.requests.output_tokens[judged].sum())
        met = int((judged & self.met).sum())
        on_time = int(self.tokens_on_time[judged].sum())
        return {
            "share": met / count if count else None,
            "requests_per_s": met / seconds if seconds else None,
            "token_deadline_attainment": on_time / due if due else None,
        }
