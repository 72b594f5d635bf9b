"""`adapt`: the step time of one device from that of its kind."""

from collections.abc import Sequence

from schedsim.costs.fitted_file import FittedFile
from schedsim.errors import ConfigError
from schedsim.experiments.calibration import Calibration, by_kind, error_figures
from schedsim.experiments.counted import counted_iterations
from schedsim.experiments.device_speeds import relative_time, scaled
from schedsim.experiments.fitting import fitted_periods, seconds_of
from schedsim.experiments.provenance import check_adaptable, machine_of, provenance_of
from schedsim.results.stored_run import StoredRun


def adapt(file: FittedFile, runs: Sequence[StoredRun]) -> Calibration:
    """The step time of `file` for one device of its kind, which differs in its speed alone.

    The device's part becomes as much longer or shorter as the runs' iterations were in the median.

    Raises:
        ConfigError: as `calibrate`; or runs of several devices, or of what the file is not of, or a
            file that is adapted already.
        ResultError: as `calibrate`.
    """
    fitted_to = {**file.provenance, "padding": file.padding.model_dump()}
    check_adaptable(fitted_to, machine_of(runs[0]), runs[0].path)
    seen = counted_iterations(runs)
    if len(seen.devices) > 1:
        raise ConfigError(
            f"the runs are of {len(seen.devices)} devices, {', '.join(map(str, seen.devices))}: "
            "adapt to each on its own"
        )
    iterations, factor = seen.iterations, None
    if file.throttle is not None:
        factor = file.throttle.factor(seen.rates(file.throttle.window_s, file.throttle.context))
    told = seconds_of(file.parts.device, iterations.terms, factor)
    relative = relative_time(iterations.device, told)
    before = fitted_periods(file.parts, iterations, factor)
    parts = file.parts.model_copy(update={"device": scaled(file.parts.device, relative)})
    fitted = fitted_periods(parts, iterations, factor)
    provenance = provenance_of(runs, seen.counts)
    adapted = file.model_copy(
        update={
            "parts": parts,
            "provenance": {
                **file.provenance,
                "runs": [*file.provenance.get("runs", []), *provenance["runs"]],
                "adapted": {
                    "relative_time": relative,
                    "device_uuid": seen.devices[0],
                    "versions": provenance["versions"],
                },
            },
            "residuals": {
                **file.residuals,
                "adapted": {
                    **error_figures(fitted, iterations.period),
                    "before": error_figures(before, iterations.period),
                    "by_kind": by_kind(fitted, iterations),
                },
            },
        }
    )
    return Calibration(adapted, iterations, fitted)
