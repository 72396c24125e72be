"""Trained emulators that come with the package, each a checkpoint ``<name>.pt`` beside its model card ``<name>.md``."""

from importlib.resources import files
from pathlib import Path


def names() -> list[str]:
    """Names that `spf.load` knows."""
    return sorted(Path(item.name).stem for item in files(__name__).iterdir() if item.name.endswith(".pt"))


def find(path: str | Path) -> Path:
    """A checkpoint: the file itself, or the one shipped under that name.

    Raises:
        FileNotFoundError: If there is neither.
    """
    file = Path(path)
    if file.is_file():
        return file
    name = str(path).lower()
    if name in names():
        return Path(str(files(__name__).joinpath(f"{name}.pt")))
    known = ", ".join(names()) or "none in this installation"
    raise FileNotFoundError(
        f"{path}: no such checkpoint, nor an emulator that is shipped ({known}); train one with `spf run` or `spf train`"
    )
