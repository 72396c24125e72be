"""The folder of one experiment: what lies where, and that it holds one experiment only."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import xarray as xr
import yaml

from climatesuite.conventions import ENSEMBLE_FILES
from climatesuite.errors import DataContractError
from climatesuite.store.open import open_run
from spf.config import RunConfig, expand
from spf.plain import from_dict, to_dict


@dataclass(frozen=True)
class Workspace:
    """The folder of one experiment and the files in it.

    Attributes:
        config: The experiment.
        folder: Where everything is written.
        progress: Whether bars are shown on stderr.
    """

    config: RunConfig
    folder: Path
    progress: bool = True

    @property
    def store(self) -> Path:
        """The Zarr store."""
        return self.folder / "store.zarr"

    def store_of(self, source_id: str) -> Path:
        """The Zarr store of an Earth system model; those beside ``data.source_id`` have their own scenarios and members."""
        main = source_id == self.config.data.source_id
        return self.store if main else self.folder / f"store-{source_id}.zarr"

    @property
    def checkpoint(self) -> Path:
        """The trained emulator."""
        return self.folder / "emulator.pt"

    def ensemble(self, timescale: str) -> Path:
        """The ensemble file of a timescale."""
        return self.folder / ENSEMBLE_FILES[timescale]

    def archive(self) -> Path:
        """Folder of the CMIP files."""
        synthetic = self.config.data.archive == "synthetic"
        return self.folder / "archive" / "CMIP6" if synthetic else expand(self.config.data.archive)

    def forcing_files(self) -> Path:
        """Folder of the forcing files."""
        synthetic = self.config.data.archive == "synthetic"
        return self.folder / "archive" / "forcings" if synthetic else expand(self.config.data.forcing_files)

    def scenario(self, experiment_id: str, members: tuple[str, ...], source_id: str = "") -> xr.Dataset:
        """Monthly run of a scenario from the store, with some of its members and all forcings; of ``data.source_id`` by default."""
        source = source_id or self.config.data.source_id
        return open_run(self.store_of(source), source, experiment_id, "month").sel(member=list(members))

    def test_scenario(self) -> str:
        """experiment_id that is sampled and scored."""
        return next(iter(self.config.data.test))


def open_workspace(config: RunConfig, folder: Path, progress: bool = True) -> Workspace:
    """Make or reopen an experiment's folder.

    Sampling may change from one run to the next: what was trained stays, ensembles are drawn again.

    Raises:
        DataContractError: If it holds another experiment.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "experiment.yaml"
    now = to_dict(config)
    if settings.exists():
        before = _with_defaults(yaml.safe_load(settings.read_text()))
        changed = sorted(k for k in {*now, *before} if now.get(k) != before.get(k))
        if set(changed) - {"sampling", "gate"}:
            raise DataContractError(
                str(folder), f"holds a run with other settings ({', '.join(changed)})", "the same experiment",
                "choose another folder with --out, or delete this one",
            )  # fmt: skip
        if not changed:
            return Workspace(config, folder, progress)
        if "sampling" in changed:
            for drawn in (folder / "sampling.json", folder / "scores.json"):
                drawn.unlink(missing_ok=True)
    part = settings.with_suffix(".part")
    part.write_text(yaml.safe_dump(now, sort_keys=False))
    part.replace(settings)
    return Workspace(config, folder, progress)


def _with_defaults(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with what was not yet a setting when they were written; those that are none any more stay and are told apart."""
    try:
        return to_dict(from_dict(RunConfig, settings))
    except (ValueError, TypeError):
        return settings
