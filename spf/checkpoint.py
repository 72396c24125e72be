"""Trained emulators on disk: one plain dict of tensors, numbers, strings, lists and dicts."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from spf import compact, shipped

SCHEMA = 5
KEYS = ("config", "codec", "marginals", "couplings", "weights", "provenance")


def save(path: Path, content: dict[str, Any]) -> Path:
    """Write a checkpoint whole or not at all.

    Args:
        path: Where.
        content: The keys of `KEYS`.

    Raises:
        ValueError: If a key is missing.
    """
    missing = [k for k in KEYS if k not in content]
    if missing:
        raise ValueError(f"checkpoint: {missing} missing; a checkpoint holds {', '.join(KEYS)}")
    part = path.with_name(path.name + ".part")
    torch.save({"schema": SCHEMA, **content}, part)
    torch.load(part, weights_only=True)  # plain data only: better to fail here than at the first reading
    part.replace(path)
    return path


def load(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint without running any code from it; one in half precision comes back in float32.

    Args:
        path: A file, or the name of an emulator that is shipped.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is not a checkpoint of this package or of another schema.
    """
    path = shipped.find(path)
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(
            f"{path}: not readable as a checkpoint ({type(error).__name__}); is the file whole?"
        ) from error
    if not isinstance(content, dict) or "schema" not in content or any(k not in content for k in KEYS):
        raise ValueError(f"{path}: not a checkpoint of this package; expected the keys schema, {', '.join(KEYS)}")
    if content["schema"] > SCHEMA:
        raise ValueError(f"{path}: schema {content['schema']}, this code reads up to {SCHEMA}; update the package")
    if content["schema"] < SCHEMA:
        raise ValueError(
            f"{path}: schema {content['schema']} of an older version, this code reads {SCHEMA}; train again with `spf train`"
        )
    return compact.restored(content) if content.get("storage") == "compact" else content


def save_compact(path: Path, content: dict[str, Any]) -> Path:
    """Write a checkpoint in half precision and less (`spf.compact`); `load` reads it as any other."""
    return save(path, {**compact.compact(content), "storage": "compact"})


def sha256(path: str | Path) -> str:
    """Digest of a checkpoint file, or of the one shipped under a name."""
    digest = hashlib.sha256()
    with open(shipped.find(path), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
