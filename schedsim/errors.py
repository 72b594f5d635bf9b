"""The exceptions that a user's mistake can raise; every message says what to do next."""


class SchedsimError(Exception):
    """A mistake in input, configuration or a plug-in, told in one message without a traceback."""


class TraceError(SchedsimError):
    """A trace cannot be read or does not hold what it should."""


class ConfigError(SchedsimError):
    """An option, a name or a parameter is wrong."""


class PolicyError(SchedsimError):
    """A policy raised, asked for something impossible or left work that can never run."""


class ExecutionError(SchedsimError):
    """An engine on a device cannot go on: no memory, or numbers that are none."""


class ReplayError(SchedsimError):
    """A replay of a recorded run decided otherwise than that run, or was stopped where it was."""


class OutputError(SchedsimError):
    """A result directory or file cannot be written."""


class ResultError(SchedsimError):
    """Result files that were to be read are absent, damaged, incomplete or of another kind."""
