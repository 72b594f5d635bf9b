"""The waiting line against a plain list, as a Hypothesis state machine."""

from unittest.mock import patch

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from schedsim.request import Request
from schedsim.scheduler import waiting
from schedsim.scheduler.waiting import WaitingQueue


class LineMachine(RuleBasedStateMachine):
    """Keys are in `keys`, groups in `groups`, their ranks in `ranks`; all of them may change."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: dict[int, int] = {}
        self.groups: dict[int, int] = {}
        self.ranks = [0, 0, 0]
        self.line: dict[int, Request] = {}
        self.aside: list[int] = []
        self.queue = WaitingQueue(
            lambda request: self.keys[request.id],
            lambda request: self.groups[request.id],
            lambda group: self.ranks[group],
        )

    def rank(self, number: int) -> tuple[int, int, int]:
        return (self.ranks[self.groups[number]], self.keys[number], number)

    @rule(key=st.integers(0, 3), group=st.integers(0, 2))
    def add(self, key: int, group: int) -> None:
        request = Request(len(self.keys), 0.0, 1, 1)
        self.keys[request.id], self.groups[request.id] = key, group
        self.line[request.id] = request
        self.queue.add(request)

    @precondition(lambda self: self.line)
    @rule(data=st.data(), back=st.booleans(), rebuild=st.booleans())
    def remove(self, data: st.DataObject, back: bool, rebuild: bool) -> None:
        request = self.line.pop(data.draw(st.sampled_from(sorted(self.line))))
        with patch.object(waiting, "MAX_STALE", -1000 if rebuild else waiting.MAX_STALE):
            self.queue.remove(request)
        if request.id in self.aside:
            self.aside.remove(request.id)
        assert request not in self.queue
        if back:
            self.line[request.id] = request
            self.queue.add(request)

    @precondition(lambda self: self.line)
    @rule(data=st.data(), key=st.integers(0, 3), group=st.integers(0, 2))
    def rekey(self, data: st.DataObject, key: int, group: int) -> None:
        number = data.draw(st.sampled_from(sorted(self.line)))
        self.keys[number], self.groups[number] = key, group
        self.queue.rekey(self.line[number])

    @rule(group=st.integers(0, 2), rank=st.integers(0, 3))
    def rank_group(self, group: int, rank: int) -> None:
        self.ranks[group] = rank

    @rule()
    def pass_over_the_head(self) -> None:
        head = self.queue.first()
        if head is not None:
            self.aside.append(head.id)
            self.queue.set_aside(head)

    @rule()
    def restore(self) -> None:
        self.queue.restore()
        self.aside.clear()

    @invariant()
    def line_and_model_agree(self) -> None:
        assert len(self.queue) == len(self.line)
        assert all(request in self.queue for request in self.line.values())
        ranked = sorted(self.line, key=self.rank)
        assert [request.id for request in self.queue.ordered()] == ranked
        head = self.queue.first()
        seen = [number for number in ranked if number not in self.aside]
        assert (None if head is None else head.id) == (seen[0] if seen else None)

    @invariant()
    def stale_entries_are_counted_and_few(self) -> None:
        entries = sum(len(heap) for heap in self.queue._heaps.values())
        live = len(self.line) - len(self.aside)
        assert self.queue._num_stale == entries - live
        assert entries - live <= len(self.line) + waiting.MAX_STALE


TestLine = LineMachine.TestCase


def test_rekeying_again_and_again_keeps_the_heaps_small() -> None:
    """Aging by `rekey` in every iteration must not fill the memory."""
    now = 0
    queue = WaitingQueue(lambda request: now + request.id)
    requests = [Request(number, 0.0, 1, 1) for number in range(50)]
    for request in requests:
        queue.add(request)
    for now in range(200):  # noqa: B007 - the key reads it
        for request in requests:
            queue.rekey(request)
    assert sum(len(heap) for heap in queue._heaps.values()) <= 2 * 50 + waiting.MAX_STALE
    assert queue.first() is requests[0]
