"""`StepView`: what a policy can read of the engine while an iteration is planned."""

import operator
from typing import TYPE_CHECKING, Any

from schedsim.errors import PolicyError
from schedsim.request import Request
from schedsim.scheduler.batch import BatchShape, Chunk, Transfer

if TYPE_CHECKING:
    from schedsim.scheduler.scheduler import Scheduler


class StepView:
    """The state that a real scheduler knows at `now`; nothing in here changes the books.

    `iteration` is the number of the one being planned, `token_budget` the configured budget of an
    iteration and `tokens_left` what this one has left; `preempted` are the requests preempted in it
    so far. True output lengths are not among its reads.
    """

    __slots__ = (
        "_admitted",
        "_chunks",
        "_scheduler",
        "_transfers",
        "iteration",
        "now",
        "preempted",
        "token_budget",
        "tokens_left",
    )

    def __init__(self, scheduler: "Scheduler") -> None:
        self._scheduler = scheduler
        self.token_budget = scheduler.token_budget
        self.iteration = 0
        self._reset(0.0)

    def _reset(self, now: float) -> None:
        self.now = now
        self.tokens_left = self.token_budget
        self.preempted: list[Request] = []
        self._admitted: list[Request] = []
        self._chunks: dict[int, Chunk] = {}
        self._transfers: list[Transfer] = []

    @property
    def running(self) -> list[Request]:
        """Requests that run, in running order; O(n).

        While a batch is in flight, those among them whose last token is in it cannot be run.
        """
        return self._scheduler.running

    @property
    def waiting(self) -> list[Request]:
        """Requests that wait, in queue order; O(n log n)."""
        return self._scheduler.waiting

    @property
    def num_running(self) -> int:
        """Seats taken, including finished members of a static batch."""
        return self._scheduler.num_running

    @property
    def has_prefix_cache(self) -> bool:
        """Whether the memory keeps what was computed for others that begin alike."""
        return self._scheduler.has_prefix_cache

    @property
    def num_prefilling(self) -> int:
        """Running requests whose known tokens are not all computed."""
        return len(self._scheduler.prefilling)

    @property
    def num_waiting(self) -> int:
        """Requests in the waiting line."""
        return len(self._scheduler.queue)

    @property
    def num_swapped(self) -> int:
        """Requests that wait with their tokens in the host tier."""
        return self._scheduler.kv_cache.num_swapped

    @property
    def admitted(self) -> list[Request]:
        """Requests admitted in this iteration."""
        return self._admitted

    @property
    def first_waiting(self) -> Request | None:
        """The head of the waiting line."""
        return self._scheduler.queue.first()

    @property
    def seats(self) -> int:
        """Requests that may still join the running list."""
        scheduler = self._scheduler
        return scheduler.max_seqs - scheduler.num_running

    @property
    def free_blocks(self) -> int:
        """KV blocks that nobody holds, those of a prefix cache that can be found again included."""
        return self._scheduler.kv_cache.free_blocks

    @property
    def total_blocks(self) -> int:
        """KV blocks in all."""
        return self._scheduler.kv_cache.total_blocks

    @property
    def block_size(self) -> int:
        """Token slots in a KV block."""
        return self._scheduler.kv_cache.block_size

    @property
    def max_model_len(self) -> int:
        """The longest prompt and output together."""
        return self._scheduler.max_model_len

    @property
    def decision_lag(self) -> int:
        """Batches that are in flight when one is decided, once the engine is busy."""
        return self._scheduler.decision_lag

    @property
    def chunks(self) -> list[Chunk]:
        """The prefill chunks planned so far."""
        return list(self._chunks.values())

    def blocks_for(self, tokens: int) -> int:
        """KV blocks that hold `tokens` tokens of one request."""
        return self._scheduler.kv_cache.blocks_for(tokens)

    def cached_tokens(self, request: Request) -> int:
        """Tokens that waiting `request` would begin with if it were admitted now, in the cache."""
        return self._scheduler.find_prefix(request)

    def blocks_to_admit(self, request: Request, tokens: int) -> int:
        """Free blocks that giving waiting `request` room for its first `tokens` tokens takes.

        `blocks_for(tokens)` less the cached blocks that it begins with and that others hold; those
        which nobody holds are among the free ones.
        """
        return self._scheduler.kv_cache.blocks_to_admit(request, tokens)

    def last_running(self) -> Request | None:
        """The last of the running list, None if nothing runs; O(1)."""
        scheduler = self._scheduler
        last: Request | None = None
        for group in (
            scheduler.decode_set.members,
            scheduler.prefilling,
            scheduler.held,
            scheduler.ending,
        ):
            if group and (last is None or group[-1].order > last.order):
                last = group[-1]
        return last

    def blocks_held(self, request: Request) -> int:
        """KV blocks of a request that runs, those included that it shares with others; O(1)."""
        return len(self._scheduler.kv_cache.block_table(request))

    def estimate(self, shape: BatchShape) -> float:
        """Seconds that a batch of this shape takes, by the estimator configured for policies.

        Raises:
            PolicyError: the run has no estimator.
        """
        if self._scheduler.estimator is None:
            raise self.error(None, "asks for an estimate, but the run has no estimator")
        return self._scheduler.estimator(shape)

    def content_key(self, request: Request, block: int) -> int | None:
        """A number that says what the first `block + 1` blocks of `request` hold.

        Two requests with equal keys share these blocks in a prefix cache. None without one, or if
        the known tokens do not fill the blocks.
        """
        return self._scheduler.kv_cache.content_key(request, block)

    @property
    def prefilling(self) -> list[Request]:
        """Running requests whose known tokens are not all computed, in running order."""
        return list(self._scheduler.prefilling)

    @property
    def decode_shape(self) -> BatchShape:
        """The shape of an iteration that runs the decode set and nothing else; O(1)."""
        decode_set = self._scheduler.decode_set
        number = len(decode_set.members)
        return BatchShape(
            decode_requests=number,
            decode_context=decode_set.context,
            longest_context=decode_set.longest_context,
            sampled=number,
        )

    def error(self, request: Request | None, problem: str) -> PolicyError:
        """The error for an impossible action: names policy, iteration and request."""
        who = "" if request is None else f"request {request.id} "
        return PolicyError(
            f"policy {self._scheduler.policy.name!r}, iteration {self.iteration}: {who}{problem}"
        )

    def whole(self, value: Any, request: Request | None, source: str) -> int:
        """`value`, which a policy gave in `source`, as an int; an error where it is none."""
        try:
            return operator.index(value)
        except TypeError:
            raise self.error(
                request, f"gets {value!r} from {source}, must be a whole number"
            ) from None
