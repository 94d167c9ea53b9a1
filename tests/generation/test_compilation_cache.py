"""Compiled programs are kept on disk, where the user says or in nextword's own cache."""

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import nextword
from nextword.generation import Engine, Request
from nextword.ops.native import kernels_used
from nextword.samplers import GreedySampler

backbone = nextword.models.LlamaBackbone(
    vocabulary_size=32, num_layers=4, num_query_heads=2, hidden_dim=16, intermediate_dim=16,
    num_key_value_heads=1,
)
with kernels_used(None):  # whose programs compile in less time than is worth a file
    list(Engine(backbone).generate([Request(token_ids=[1], max_new_tokens=2)], GreedySampler()))
"""


def run(**environment: str) -> None:
    changed = {"KERAS_BACKEND": "jax", **environment}
    subprocess.run([sys.executable, "-c", PROGRAM], check=True, env=os.environ | changed)


def programs(directory: Path) -> set[str]:
    """Return the names of the steps that are kept in a directory."""
    return {name for name in ("_layer", "_decode") if list(directory.glob(f"jit_{name}-*"))}


def test_programs_are_kept_in_the_cache(tmp_path: Path) -> None:
    run(NEXTWORD_CACHE=str(tmp_path))
    assert programs(tmp_path / "compiled") == {"_layer", "_decode"}


def test_the_users_own_directory_is_respected(tmp_path: Path) -> None:
    chosen = tmp_path / "chosen"
    run(NEXTWORD_CACHE=str(tmp_path / "ours"), JAX_COMPILATION_CACHE_DIR=str(chosen))
    assert not (tmp_path / "ours" / "compiled").exists()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    run(NEXTWORD_CACHE=str(file))
    assert file.read_bytes() == b""
