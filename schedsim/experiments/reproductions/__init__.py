"""Published experiments, set up as their authors have them: `schedsim reproduce NAME`."""

from schedsim.experiments.reproductions.anyscale import Anyscale2023
from schedsim.experiments.reproductions.base import Reproduction
from schedsim.experiments.reproductions.mcsf import MCSF2025
from schedsim.experiments.reproductions.sarathi import SarathiOsdi24
from schedsim.experiments.reproductions.vllm import VLLMSosp23
from schedsim.experiments.reproductions.vtc import VTCOsdi24
from schedsim.specs import unknown_name

REPRODUCTIONS: dict[str, Reproduction] = {
    reproduction.name: reproduction
    for reproduction in (Anyscale2023(), VLLMSosp23(), SarathiOsdi24(), VTCOsdi24(), MCSF2025())
}


def find_reproduction(name: str) -> Reproduction:
    """The reproduction of that name.

    Raises:
        ConfigError: there is none; names those that there are.
    """
    if name not in REPRODUCTIONS:
        raise unknown_name("reproduction", name, REPRODUCTIONS)
    return REPRODUCTIONS[name]
