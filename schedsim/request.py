"""`Request`: what a policy may know about one request, and the books kept on it."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from schedsim.scheduler.decode_set import DecodeSet


class Status(StrEnum):
    """Where a request stands. `UNFINISHED` appears in results only: the run ended before it did."""

    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"
    FINISHED = "finished"
    REJECTED = "rejected"
    FAILED = "failed"
    UNFINISHED = "unfinished"


@dataclass(slots=True, eq=False)
class Request:
    """One request as a real scheduler sees it; its true output length is not here.

    Policies read, the scheduler writes. Times are in seconds. `order` is the place in the running
    list: smaller runs first; it is set at each admission. While the request is in a decode set its
    progress is lazy: `_computed` is an offset to the set's counter, `_generated` what was emitted
    outside the set; both are made real when it leaves. `foreseen_output` is what memory is reserved
    by where that is not `predicted_output`.
    """

    id: int
    arrival: float
    prompt_tokens: int
    output_limit: int
    tenant: int = -1
    session: int = -1
    priority: int = 0
    ttft_slo: float | None = None
    tpot_slo: float | None = None
    predicted_output: float | None = None
    foreseen_output: float | None = None

    status: Status = Status.WAITING
    reason: str = ""
    released: float | None = None
    admitted: float | None = None
    first_token: float | None = None
    finished: float | None = None
    requeue_s: float = 0.0
    preemptions: int = 0
    cached_tokens: int = 0
    recomputed_tokens: int = 0
    is_swapped: bool = False
    order: int = -1

    _computed: int = 0
    _reached: int = 0
    _generated: int = 0
    _decode_set: "DecodeSet | None" = None
    _last_token: float | None = None
    _span_start: int = -1
    _waiting_since: float = 0.0

    @property
    def num_computed_tokens(self) -> int:
        """Tokens whose keys and values are in the cache once all that is planned has run."""
        if self._decode_set is None:
            return self._computed
        return self._decode_set.counter + self._computed

    @property
    def num_generated_tokens(self) -> int:
        """Output tokens emitted so far; one that is in flight is not among them."""
        decode_set = self._decode_set
        if decode_set is None or decode_set.num_ended < self._span_start:
            return self._generated
        return self._generated + decode_set.num_ended - self._span_start + 1

    @property
    def num_known_tokens(self) -> int:
        """Prompt and generated tokens; the newest generated one is not in the cache yet."""
        return self.prompt_tokens + self.num_generated_tokens

    @property
    def num_tokens_left(self) -> int:
        """Tokens to compute until the next output token: of a decode one, in flight or known."""
        if self._decode_set is not None:
            return 1
        return self.prompt_tokens + self._generated - self._computed

    @property
    def last_token(self) -> float | None:
        """When the newest token came, None before the first."""
        decode_set = self._decode_set
        if decode_set is None or decode_set.num_ended < self._span_start:
            return self._last_token
        return decode_set.ends[decode_set.num_ended]
