"""A short run of the fuzzer on every reader, always the same; and it sees what it looks for."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fuzz.campaign import Campaign
from fuzz.mutations import change_bytes, change_json
from fuzz.readers import READERS, Reader
from nextword.presets import PresetError

INPUTS = {"keras": 12, "sentencepiece": 40}


@pytest.mark.parametrize("name", READERS)
def test_files_work_or_are_refused(name: str, tmp_path: Path) -> None:
    tally = Campaign(READERS[name], tmp_path / "campaign", seed=1).run(inputs=INPUTS.get(name, 80))
    assert not tally.findings, tally.findings
    assert tally.accepted
    assert len(tally.refused) > 3
    assert tally.accepted + tally.refused.total() == tally.inputs


def small(use: Any) -> Reader:
    """Return a reader of one JSON file."""

    def write(root: Path) -> list[Path]:
        (root / "a.json").write_text('{"size": 3, "items": ["x", "y"]}')
        return [root]

    return Reader("a test", write, {".json": (change_json, change_bytes)}, use)


def parse(path: Path) -> Any:
    try:
        return json.loads((path / "a.json").read_bytes())
    except ValueError:
        raise PresetError("no JSON") from None


def other_exceptions(path: Path) -> None:
    parse(path)["size"].bit_length()


def much_memory(path: Path) -> None:
    if parse(path) != {"size": 3, "items": ["x", "y"]}:
        np.ones(2**29)


def other_files(path: Path) -> None:
    if parse(path) != {"size": 3, "items": ["x", "y"]}:
        (path.parent.parent / "bait" / "written").write_text("")


@pytest.mark.parametrize(
    ("use", "what"),
    [
        (other_exceptions, "Error at"),
        (much_memory, "MemoryError at"),
        (other_files, "forbidden: open"),
    ],
)
def test_what_is_wrong_is_found(use: Any, what: str, tmp_path: Path) -> None:
    campaign = Campaign(small(use), tmp_path / "campaign", seed=0)
    tally = campaign.run(inputs=60)
    assert any(what in finding for finding in tally.findings), tally.findings
    kept = sorted(campaign.findings.iterdir())
    assert kept
    assert all((path / "what.txt").read_text() for path in kept)
    # What was kept shows it again.
    if use is other_exceptions:
        with pytest.raises((AttributeError, KeyError, TypeError)):
            use(next(path for path in kept[0].iterdir() if path.is_dir()))


def test_the_same_seed_tries_the_same_files(tmp_path: Path) -> None:
    seen: list[list[bytes]] = []

    def run(name: str) -> Iterator[bytes]:
        contents: list[bytes] = []

        def use(path: Path) -> None:
            contents.append((path / "a.json").read_bytes())
            parse(path)

        Campaign(small(use), tmp_path / name, seed=5).run(inputs=30)
        return iter(contents)

    for name in ("one", "two"):
        seen.append(list(run(name)))
    assert seen[0] == seen[1]
    assert len(set(seen[0])) > 20
