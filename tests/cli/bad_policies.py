"""Policies as they go wrong in a user's hands; loaded from this file by the command line."""

import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schedsim import Policy


class RaisesInTheMiddle(Policy):
    def schedule(self, step):
        if step.iteration == 300:
            raise ValueError("no such queue")
        super().schedule(step)


class RaisesAtArrival(Policy):
    def accept(self, request, step):
        if request.id == 30:
            raise KeyError("tenant")
        return True


class RaisesWhenOneFinishes(Policy):
    def on_finish(self, request, step):
        if request.id == 3:
            raise ZeroDivisionError("division by zero")


class ExitsWhenOneFinishes(Policy):
    def on_finish(self, request, step):
        if request.id == 3:
            sys.exit(3)


class ExitsInTheMiddle(Policy):
    def schedule(self, step):
        if step.iteration == 300:
            sys.exit()
        super().schedule(step)


class RaisesTwoLines(Policy):
    def schedule(self, step):
        raise ValueError("\nno such queue\nsee the manual")


class RaisesAtToken(Policy):
    def on_tokens(self, request, tokens, step):
        if request.id == 3:
            raise RuntimeError


class RunsTwice(Policy):
    def schedule(self, step):
        super().schedule(step)
        for request in step.running[:1]:
            step.run(request)


class AdmitsBeyondTheSeats(Policy):
    def schedule(self, step):
        super().schedule(step)
        while step.first_waiting is not None:
            step.admit(step.first_waiting, 1)


class AdmitsTooManyTokens(Policy):
    def schedule(self, step):
        step.admit(step.first_waiting, 10**7)


class RunsHalfATokenMore(Policy):
    def schedule(self, step):
        for request in step.running:
            step.run(request, 1.5)
        step.admit_waiting()


class PreemptsWhoWaits(Policy):
    def schedule(self, step):
        step.preempt(step.first_waiting)


class NamesNoRequestAsVictim(Policy):
    def victim(self, needy, step):
        return True


class AnswersTheGateWithTrue(Policy):
    def gate(self, request, tokens, step):
        return True


class CutsHalfTokens(Policy):
    def chunk(self, request, tokens, step):
        return min(tokens, 10.5)


class HasNoBudget(Policy):
    def budget(self, step):
        pass


class HasNoDefaultBudget(Policy):
    def default_token_budget(self, max_model_len):
        return "many"


class ReservesHalfTokens(Policy):
    def reservation(self, request, tokens):
        return tokens * 1.5


class ReleasesNobodyKnowsWhen(Policy):
    def release(self, request):
        pass


class ComparesTheUncomparable(Policy):
    def key(self, request):
        return None if request.id % 2 else 1.0


class RunsNothing(Policy):
    def schedule(self, step):
        pass


class WakesNow(RunsNothing):
    def wake_at(self, step):
        return step.now


class WakesAtNoTime(RunsNothing):
    def wake_at(self, step):
        return float("nan")


class WakesNever(RunsNothing):
    def wake_at(self, step):
        return float("inf")


class WakesLater(RunsNothing):
    def wake_at(self, step):
        return "later"


class WakesAllTheTime(RunsNothing):
    def wake_at(self, step):
        return step.now + 1e-9


class StartsOverAndOver(Policy):
    def schedule(self, step):
        for request in step.running:
            step.preempt(request)
        step.admit_waiting()

    def chunk(self, request, tokens, step):
        return min(1, tokens)


class TakesBackWhatItGave(Policy):
    def schedule(self, step):
        if step.first_waiting is not None and step.admit(step.first_waiting, 1):
            step.preempt(step.admitted[0])


class Declines(Policy):
    def accept(self, request, step):
        return False


class WorksWithNumpy(Policy):
    def chunk(self, request, tokens, step):
        return np.int64(min(tokens, step.tokens_left))

    def budget(self, step):
        return np.int32(1000)


class RaisesWhenMade(Policy):
    def __init__(self):
        raise RuntimeError("no weights")


class ExitsWhenMade(Policy):
    def __init__(self):
        raise SystemExit("bye")


@dataclass
class ThinksForEver(Policy):
    """Says in the file `mark` that it has begun to think."""

    mark: str

    def schedule(self, step):
        while step.iteration == 300:
            Path(self.mark).touch()
        super().schedule(step)


@dataclass
class WithParameters(Policy):
    alpha: float
    rounds: int = 3


class NoPolicy:
    pass
