"""HDF5 files that hold what Keras never writes, and words of the error."""

from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

Attack = Callable[[h5py.File, Path], None]
"""Adds something to an open file; may make files in a directory for it to lead to."""


def soft_link(file: h5py.File, directory: Path) -> None:
    file["layers/link"] = h5py.SoftLink("/layers")


def dangling_soft_link(file: h5py.File, directory: Path) -> None:
    file["layers/link"] = h5py.SoftLink("/nowhere")


def external_link(file: h5py.File, directory: Path) -> None:
    with h5py.File(directory / "other.h5", "w") as other:
        other["secret"] = np.ones(3)
    file["layers/link"] = h5py.ExternalLink(str(directory / "other.h5"), "/secret")


def hard_link(file: h5py.File, directory: Path) -> None:
    file["layers/one"] = np.ones(3, "<f4")
    file["layers/again"] = file["layers/one"]


def cycle(file: h5py.File, directory: Path) -> None:
    file["layers/inner"] = file.require_group("layers")


def external_storage(file: h5py.File, directory: Path) -> None:
    (directory / "secret.bin").write_bytes(bytes(64))
    file.create_dataset(
        "layers/stolen", (16,), "<f4", external=[(str(directory / "secret.bin"), 0, 64)]
    )


def virtual_dataset(file: h5py.File, directory: Path) -> None:
    with h5py.File(directory / "other.h5", "w") as other:
        other["secret"] = np.ones(3)
    layout = h5py.VirtualLayout((3,), "<f4")
    layout[:] = h5py.VirtualSource(directory / "other.h5", "secret", shape=(3,))
    file.create_virtual_dataset("layers/stolen", layout)


def chunks_without_data(file: h5py.File, directory: Path) -> None:
    file.create_dataset("layers/bomb", (2**40, 2**20), "<f4", chunks=(1024, 1024))


def compressed(file: h5py.File, directory: Path) -> None:
    file.create_dataset("layers/bomb", data=np.zeros(2**20, "<f4"), compression="gzip")


def shape_without_data(file: h5py.File, directory: Path) -> None:
    file.create_dataset("layers/bomb", (2**31, 2**10), "<f4")


def too_many_axes(file: h5py.File, directory: Path) -> None:
    file.create_dataset("layers/deep", data=np.zeros((1,) * 9, "<f4"))


def no_shape(file: h5py.File, directory: Path) -> None:
    file["layers/empty"] = h5py.Empty("<f4")


def too_deep(file: h5py.File, directory: Path) -> None:
    file.create_group("/".join("x" * 40))


def named_type(file: h5py.File, directory: Path) -> None:
    file["layers/type"] = np.dtype("<f4")


ATTACKS: dict[Attack, str] = {
    soft_link: "'layers/link' is a link to somewhere else",
    dangling_soft_link: "'layers/link' is a link to somewhere else",
    external_link: "'layers/link' is a link to somewhere else",
    hard_link: "second name of one object",
    cycle: "second name of one object",
    external_storage: "'layers/stolen' is not stored in one piece in this file",
    virtual_dataset: "'layers/stolen' is not stored in one piece in this file",
    chunks_without_data: "'layers/bomb' is not stored in one piece",
    compressed: "'layers/bomb' is not stored in one piece",
    shape_without_data: r"'layers/bomb' has the shape \(2147483648, 1024\), more than is",
    too_many_axes: "at most 8 axes",
    no_shape: "'layers/empty' (has no shape|is not stored)",
    too_deep: "in 32 levels",
    named_type: "neither group nor dataset",
}
