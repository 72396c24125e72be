"""Where a store lies: a local folder or any fsspec URL, and a zarr store whose metadata is held apart from its data."""

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import fsspec
from fsspec.implementations.local import LocalFileSystem
from zarr.abc.store import ByteRequest, Store
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import FsspecStore, LocalStore, WrapperStore

_FLUSHES = 16
NODE = "zarr.json"
BUILDING = ".building/"
"""Where a build keeps its journal; whatever lies there is no part of the store."""


@dataclass(frozen=True)
class Place:
    """Named objects under one path or URL; names are relative, with slashes.

    Attributes:
        url: Local path, or a URL that fsspec knows (``s3://``, ``gs://``, ``memory://``).
    """

    url: str

    @cached_property
    def _where(self) -> tuple[Any, str]:
        fs, root = fsspec.core.url_to_fs(self.url)
        return fs, root.rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether it is a folder of this machine."""
        return isinstance(self._where[0], LocalFileSystem)

    @property
    def is_in_memory(self) -> bool:
        """Whether other processes cannot see it."""
        return "memory" in _protocols(self._where[0])

    @property
    def path(self) -> Path:
        """The folder of a local place."""
        return Path(self._where[1])

    def exists(self, name: str = "") -> bool:
        """Whether the object, or anything at all, is there."""
        fs, root = self._where
        fs.invalidate_cache()
        return bool(fs.exists(f"{root}/{name}" if name else root))

    @property
    def is_unfinished(self) -> bool:
        """Whether a build has left its journal in it."""
        if self.is_local:
            return (self.path / BUILDING).is_dir()
        return any(name.startswith(BUILDING) for name in self.sizes())

    def read(self, name: str) -> bytes:
        """An object's content.

        Raises:
            FileNotFoundError: If it is not there.
        """
        fs, root = self._where
        try:
            return bytes(fs.cat_file(f"{root}/{name}"))
        except (NotADirectoryError, IsADirectoryError) as error:
            raise FileNotFoundError(str(error)) from error

    def write(self, name: str, content: bytes) -> list[Any]:
        """Write an object, which appears whole or not at all, and on a local disk to stay; its size and digest."""
        fs, root = self._where
        if self.is_local:
            path = self.path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f"{path.name}.{uuid4().hex[:8]}.partial")
            try:
                part.write_bytes(content)
                flush_entry(part)
                part.replace(path)
            finally:
                part.unlink(missing_ok=True)
            flush_entry(path.parent)
        else:
            fs.pipe_file(f"{root}/{name}", content)
        return [len(content), sha256(content)]

    def sizes(self) -> dict[str, int]:
        """Size of every object, by name."""
        fs, root = self._where
        if self.is_local:
            files = (Path(folder, name) for folder, _, names in os.walk(root) for name in names)
            return {p.relative_to(root).as_posix(): p.stat().st_size for p in sorted(files)}
        fs.invalidate_cache()
        found = fs.find(root, detail=True)
        return {str(p)[len(root) + 1 :]: int(about["size"]) for p, about in sorted(found.items())}

    def digest(self, name: str) -> str:
        """sha256 of an object."""
        fs, root = self._where
        with fs.open(f"{root}/{name}", "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def remove(self, names: Iterable[str]) -> None:
        """Remove objects, and local folders that become empty."""
        fs, root = self._where
        for name in names:
            fs.rm_file(f"{root}/{name}")
            for folder in list(Path(name).parents)[:-1] if self.is_local else ():
                try:
                    (self.path / folder).rmdir()
                except OSError:  # others are in it
                    break

    def flush(self, names: Iterable[str] | None = None) -> None:
        """Local objects and their folders on disk; together, for a disk takes many requests in little more time than one."""
        if not self.is_local:
            return
        if names is None:
            paths = {self.path, *self.path.rglob("*")}
        else:
            files = [self.path / n for n in names]
            paths = {*files, *(p for f in files for p in f.parents if p.is_relative_to(self.path))}
        with ThreadPoolExecutor(_FLUSHES) as pool:
            for _ in pool.map(flush_entry, paths):
                pass

    def store(self, read_only: bool = True) -> Store:
        """The zarr store of everything in it."""
        if self.is_local:
            return LocalStore(self.path, read_only=read_only)
        return FsspecStore.from_url(self.url, read_only=read_only)


def flush_entry(path: Path) -> None:
    """One file or folder on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(content: Any) -> str:
    """Digest of bytes, or of an array's."""
    return hashlib.sha256(content).hexdigest()


def _protocols(fs: Any) -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


class Overlay(WrapperStore[Store]):
    """A zarr store whose metadata is a dict in memory, while data lies in the store beneath.

    A reader sees one state of all nodes, whatever a writer does meanwhile; a writer's arrays are invisible until their metadata
    is put into the root. What is written is hashed on its way.

    Args:
        store: Holds the data.
        nodes: Metadata by path, "" the root.
    """

    def __init__(self, store: Store, nodes: dict[str, Any]) -> None:
        super().__init__(store)
        self.nodes, self.written = nodes, dict[str, list[Any]]()

    def _with_store(self, store: Store) -> "Overlay":
        return type(self)(store, self.nodes)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Overlay) and self._store == other._store and self.nodes == other.nodes

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        if not _is_node(key):
            return await self._store.get(key, prototype, byte_range)
        node = self.nodes.get(_path(key))
        return None if node is None else prototype.buffer.from_bytes(json.dumps(node).encode())

    async def exists(self, key: str) -> bool:
        return _path(key) in self.nodes if _is_node(key) else await self._store.exists(key)

    async def set(self, key: str, value: Buffer) -> None:
        if _is_node(key):
            self.nodes[_path(key)] = json.loads(value.to_bytes())
            return
        _, found = await asyncio.gather(self._store.set(key, value), asyncio.to_thread(sha256, value.as_numpy_array()))
        self.written[key] = [len(value), found]

    async def set_if_not_exists(self, key: str, value: Buffer) -> None:
        if not await self.exists(key):
            await self.set(key, value)

    async def delete(self, key: str) -> None:
        if _is_node(key):
            self.nodes.pop(_path(key), None)
        else:
            await self._store.delete(key)

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:
        inside = f"{prefix.rstrip('/')}/" if prefix.strip("/") else ""
        names = {p.removeprefix(inside).split("/")[0] for p in self.nodes if p and p.startswith(inside)}
        for name in sorted({NODE, *names}):
            yield name


def _is_node(key: str) -> bool:
    return key == NODE or key.endswith(f"/{NODE}")


def _path(key: str) -> str:
    return key.removesuffix(NODE).rstrip("/")
