"""Two presets that are as they should be, one of each format, to be spoiled."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from transformers import LlamaConfig, LlamaForCausalLM

import nextword
from attacks.faces import FACES, TEXTS
from trained_tokenizers import CHAT_ML, byte_level_library, save


@pytest.fixture(scope="package", autouse=True)
def no_compilation_cache() -> Iterator[None]:
    """Keep JAX from writing programs that took it long to compile, which the guard would see."""
    before = jax.config.jax_enable_compilation_cache
    jax.config.update("jax_enable_compilation_cache", False)
    compilation_cache.reset_cache()  # JAX looks at the setting once
    yield
    jax.config.update("jax_enable_compilation_cache", before)
    compilation_cache.reset_cache()


@pytest.fixture(scope="session")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A "transformers" checkpoint and the "keras" preset that is made of it."""
    root = tmp_path_factory.mktemp("sound")
    checkpoint, preset = root / "transformers", root / "keras"
    library = byte_level_library("gpt-2", TEXTS, size=290)
    save(library, checkpoint, eos_token="<|im_end|>", chat_template=CHAT_ML)
    LlamaForCausalLM(
        LlamaConfig(
            vocab_size=library.get_vocab_size(),
            hidden_size=8,
            intermediate_size=12,
            num_hidden_layers=1,
            num_attention_heads=2,
            num_key_value_heads=1,
            max_position_embeddings=64,
            bos_token_id=None,
            eos_token_id=2,
        )
    ).save_pretrained(checkpoint)
    lm = nextword.models.CausalLM.from_preset(checkpoint)
    lm.save_to_preset(preset)
    # Whatever is imported when it is first needed is imported from here on.
    for face in FACES.values():
        face.from_preset(preset)
        face.from_preset(checkpoint)
    return {"transformers": checkpoint, "keras": preset}


@pytest.fixture
def checkpoint(sound: dict[str, Path], tmp_path: Path) -> Path:
    """A checkpoint of transformers, to be changed at will."""
    return shutil.copytree(sound["transformers"], tmp_path / "checkpoint")


@pytest.fixture
def preset(sound: dict[str, Path], tmp_path: Path) -> Path:
    """A preset of KerasHub's kind, to be changed at will."""
    return shutil.copytree(sound["keras"], tmp_path / "preset")


@pytest.fixture
def bait(tmp_path: Path) -> Path:
    """A directory beside the preset, with files that a hostile preset would like to be read."""
    directory = tmp_path / "bait"
    directory.mkdir()
    (directory / "secret.json").write_text('{"a": 0}')
    np.zeros(64, "f4").tofile(directory / "secret.bin")
    (directory / "evil.py").write_text("raise SystemExit('imported')")
    return directory
