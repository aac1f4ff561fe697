"""Where the curves of a training run can be watched while it goes on: TensorBoard or Trackio, if one is installed."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adapters.errors import DatasetError
from desk.settings import AdapterSettings

PROJECT = "switchboard"
"""What Trackio calls all runs together; they lie where it always keeps them (TRACKIO_DIR)."""

Package = Literal["tensorboard", "trackio"]


@dataclass(frozen=True, slots=True)
class Tracker:
    """`run` names one training; TensorBoard's events of it are written below `folder`."""

    package: Package
    folder: Path
    run: str

    @property
    def command(self) -> str:
        """What shows the curves."""
        if self.package == "tensorboard":
            return f"tensorboard --logdir {self.folder}"
        return f"trackio show --project {PROJECT}"

    def callback(self) -> Any:
        """What transformers' trainer tells its figures to."""
        if self.package == "tensorboard":
            from torch.utils.tensorboard import SummaryWriter
            from transformers.integrations import TensorBoardCallback

            return TensorBoardCallback(SummaryWriter(str(self.folder / self.run)))
        from transformers.integrations import TrackioCallback

        return TrackioCallback()


def tracker_of(settings: AdapterSettings, package: Package | None, name: str, version: int) -> Tracker | None:
    """That of a version's run; None where nobody asked for one."""
    if package is None:
        return None
    return Tracker(package, settings.trained.with_name("tensorboard"), f"{name}-{version}")


def check_installed(package: Package | None) -> None:
    """Raises DatasetError where the tracker's package is missing."""
    if package is not None and importlib.util.find_spec(package) is None:
        raise DatasetError(
            f"The tracker {package} is not installed: `python -m pip install {package}`, or leave --tracker out "
            "(curves.png is drawn without one)."
        )
