"""What the kit raises: an assertion error whose message is the whole counterexample."""

from pathlib import Path


class Enough(BaseException):
    """Ends a search for smaller counterexamples; no `Exception`, so Hypothesis lets it pass."""


class AllocatorViolation(AssertionError):
    """A memory manager broke its contract; the message lists the calls that led there."""


class PolicyViolation(AssertionError):
    """A policy broke a rule or a claim of its own.

    `rule` names it, `problem` says what happened where. What `check_policy` raises also has the
    smallest trace that it found, as the file `trace_path`, the `timeline` of the run, and the
    `command` that repeats it; its message holds all of them.
    """

    def __init__(
        self,
        rule: str,
        problem: str,
        *,
        trace_path: Path | None = None,
        timeline: str = "",
        command: str = "",
    ) -> None:
        self.rule = rule
        self.problem = problem
        self.trace_path = trace_path
        self.timeline = timeline
        self.command = command
        parts = [f"{rule}: {problem}"]
        if trace_path is not None:
            parts += [f"trace: {trace_path}", timeline, f"repeat it with\n  {command}"]
        super().__init__("\n".join(parts))
