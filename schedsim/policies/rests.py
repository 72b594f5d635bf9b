"""`Rests`: how many tokens all who run may emit yet, kept as they go."""

from heapq import heappop, heappush

from schedsim.request import Request


class Rests:
    """The sum of what running requests may emit up to their limits, `clip` of each at most.

    It is told who is admitted, who leaves, and of each iteration that decodes everybody, and looks
    at nobody but those who prefill: O(1) an iteration and O(log n) a request. Right only where a
    decision sees all tokens of those before it.
    """

    def __init__(self, clip: int) -> None:
        self._clip = clip
        self._total = 0
        self._num_falling = 0  # decodes whose rest falls with every token
        self._decodes = 0
        self._prefilling: dict[int, tuple[Request, int]] = {}
        # Of the other decodes: the iteration after which their rest is `clip` and falls.
        self._falls_after: dict[int, int] = {}
        self._due: list[tuple[int, int]] = []

    def of(self, request: Request) -> int:
        """What one request may emit yet, clipped."""
        return min(request.output_limit - request.num_generated_tokens, self._clip)

    def of_decodes(self, prefilling: list[Request]) -> int:
        """The sum over those who run, less those who are prefilling; after `note_first_tokens`."""
        return self._total - sum(map(self.of, prefilling))

    def note_admitted(self, request: Request) -> None:
        """`request` begins to prefill."""
        rest = self.of(request)
        self._total += rest
        self._prefilling[request.id] = request, rest

    def note_first_tokens(self, prefilling: list[Request]) -> None:
        """Those who are not `prefilling` any more decode from now on; first in every iteration."""
        if len(self._prefilling) == len(prefilling):
            return
        left = {request.id for request in prefilling}
        for request_id in self._prefilling.keys() - left:
            request, before = self._prefilling.pop(request_id)
            self._total += self.of(request) - before
            over = request.output_limit - request.num_generated_tokens - self._clip
            if over <= 0:
                self._num_falling += 1
            else:
                self._falls_after[request_id] = turn = self._decodes + over
                heappush(self._due, (turn, request_id))

    def note_decode(self) -> None:
        """An iteration gives everybody who decodes a token."""
        self._total -= self._num_falling
        self._decodes += 1
        while self._due and self._due[0][0] <= self._decodes:
            turn, request_id = heappop(self._due)
            if self._falls_after.get(request_id) == turn:
                del self._falls_after[request_id]
                self._num_falling += 1

    def note_left(self, request: Request) -> None:
        """`request` has finished or is preempted."""
        prefilling = self._prefilling.pop(request.id, None)
        if prefilling is not None:
            self._total -= prefilling[1]
            return
        self._total -= self.of(request)
        if self._falls_after.pop(request.id, None) is None:
            self._num_falling -= 1
