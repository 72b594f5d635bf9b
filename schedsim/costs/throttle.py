"""`Throttle`: products take longer on a device that has run many tokens lately.

A GPU at its power limit lowers its clock within tens of milliseconds. Arithmetic takes longer then,
reading memory hardly: a prompt is computed faster by an engine that mostly decodes than by one that
has computed prompts all the time. Reading keys and values takes power, too: prompts beside many
long decodes are computed slower than alone.
"""

import math

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from schedsim.costs.base import Seconds
from schedsim.costs.features import tokens_of
from schedsim.scheduler.batch import BatchShape


class Throttle(BaseModel):
    """How much longer the part of a batch that is arithmetic takes, by the tokens/s of late.

    `slowdown` is in seconds a token: after R tokens/s it takes 1 + `slowdown` · R times as long.
    A token in the context of a decode, which is read, counts as `context` tokens. `window_s` is how
    far back "late" reaches: a rate R that ends has fallen to R / (1 + t / `window_s`) after t
    seconds.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    window_s: float = Field(gt=0)
    slowdown: float = Field(gt=0)
    context: float = Field(0.0, ge=0)

    def tokens_of(self, shape: BatchShape) -> float:
        """The tokens that a batch counts as."""
        return tokens_of(shape) + self.context * (shape.decode_context + shape.padding_context)

    def factor(self, rate: Seconds) -> Seconds:
        """How many times as long arithmetic takes at each of some rates (tokens/s)."""
        return 1.0 + self.slowdown * rate

    def seconds(self, alone: float, heated: float, tokens: float, rate: float) -> float:
        """Seconds of a batch of so many tokens that begins at `rate` tokens/s.

        `alone` are its seconds without throttling, `heated` those of them that are arithmetic. The
        rate that counts is the one at its end, so d = alone + heated · slowdown · (rate + tokens /
        window) / (1 + d / window), which is solved for d.
        """
        wide = 1.0 + alone / self.window_s
        more = heated * self.slowdown * (rate + tokens / self.window_s)
        root = math.sqrt(wide * wide + 4.0 * more / self.window_s)
        return alone + 2.0 * more / (wide + root)

    def sustained(self, alone: float, heated: float, tokens: float) -> float:
        """Seconds of a batch that follows only its like: d = alone + heated · slowdown · tokens /
        d. Never falls when an argument rises."""
        root = math.sqrt(alone * alone + 4.0 * (heated * self.slowdown * tokens))
        return max(alone, 0.5 * (alone + root))

    def sustained_each(
        self, alone: Seconds | float, heated: float, tokens: Seconds | float
    ) -> Seconds:
        """The same bits for each of many batches."""
        each = np.asarray(alone)
        root = np.sqrt(each * each + 4.0 * (heated * self.slowdown * tokens))
        told: Seconds = np.maximum(each, 0.5 * (each + root))
        return told


class TokenRate:
    """The tokens/s that a device has run of late, as a `Throttle` means it; time never goes back.

    What ran at once counts in the mean from its end on.
    """

    __slots__ = ("_rate", "_until", "_window")

    def __init__(self, window_s: float) -> None:
        self._window = window_s
        self._rate = 0.0
        self._until = 0.0

    def at(self, now: float) -> float:
        """The rate at `now` (s), if nothing ran since the end of the last batch."""
        idle = now - self._until
        return self._rate / (1.0 + idle / self._window) if idle > 0.0 else self._rate

    def ran(self, tokens: float, begin: float, seconds: float) -> float:
        """A batch of so many tokens ran from `begin` on; the rate at its end."""
        before = self.at(begin)
        self._rate = (before + tokens / self._window) / (1.0 + seconds / self._window)
        self._until = begin + seconds
        return self._rate
