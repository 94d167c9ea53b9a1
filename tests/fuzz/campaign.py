"""Spoils valid files one after the other, and notes every time a reader does not keep its word."""

import contextlib
import json
import random
import shutil
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import nextword
from attacks.guard import watched
from fuzz.coverage import Coverage
from fuzz.mutations import Mutation, mutated
from fuzz.readers import Reader
from nextword.presets import PresetError

_SOURCE = str(Path(nextword.__file__).parent)
_KEPT_OF_EACH = 4


@dataclass(frozen=True)
class Seed:
    """A file to spoil: at its place in a preset, with this content."""

    preset: Path
    file: Path
    content: bytes
    mutations: tuple[Mutation, ...]


@dataclass
class Tally:
    """What has happened.

    Attributes:
        inputs: number of files that were tried.
        accepted: number of those that could be used.
        refused: message of an error, shortened -> how often it came.
        findings: what went wrong -> how often.
        lines: number of lines of nextword that were reached.
    """

    inputs: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    findings: Counter[str] = field(default_factory=Counter)
    lines: int = 0

    def summary(self) -> dict[str, object]:
        """Return it for a file in JSON."""
        return {
            "inputs": self.inputs,
            "accepted": self.accepted,
            "kinds of refusal": len(self.refused),
            "lines reached": self.lines,
            "findings": dict(self.findings),
        }


class Campaign:
    """Fuzzes one reader.

    A file that makes the reader reach new lines of nextword becomes a file to spoil itself.

    Args:
        reader: what to fuzz.
        directory: an empty directory for the presets; what leads to a finding is kept below it.
        seed: of the random numbers: with the same one, the same files are tried.
    """

    def __init__(self, reader: Reader, directory: Path, seed: int = 0) -> None:
        self._reader = reader
        self._chance = random.Random(seed)
        self.tally = Tally()
        self.findings = directory / "findings"
        root = directory / "presets"
        root.mkdir(parents=True)
        self._seeds = [seed for preset in reader.write(root) for seed in self._files(preset)]
        self._bait = directory / "bait"
        self._bait.mkdir()
        self._valid = tuple(self._seeds)
        # A valid one must work. And what is imported late is imported before anything is watched.
        for preset in dict.fromkeys(seed.preset for seed in self._seeds):
            reader.use(preset)
        for seed in self._seeds:
            with self._spoiled(seed, b""), contextlib.suppress(PresetError):
                reader.use(seed.preset)
        self._coverage = Coverage()

    def _files(self, preset: Path) -> list[Seed]:
        """Return what can be spoiled in a preset."""
        files = [preset] if preset.is_file() else sorted(p for p in preset.rglob("*.*"))
        found = []
        for path in files:
            ends = [end for end in self._reader.mutations if path.name.endswith(end)]
            if ends:
                kinds = self._reader.mutations[max(ends, key=len)]
                found.append(Seed(preset, path, path.read_bytes(), kinds))
        return found

    def run(self, *, inputs: int | None = None, seconds: float | None = None) -> Tally:
        """Try so many files, or for so long; return what has happened so far."""
        end = None if seconds is None else time.monotonic() + seconds
        count = 0
        while (inputs is None or count < inputs) and (end is None or time.monotonic() < end):
            self.step()
            count += 1
        return self.tally

    def close(self) -> None:
        """Let go of the interpreter, which counts lines."""
        self._coverage.close()

    def step(self, current: Path | None = None) -> None:
        """Try one file.

        Args:
            current: a file that names the preset that is tried, should this process not survive it.
        """
        seed = self._chance.choice(self._seeds if self._chance.random() < 0.5 else self._valid)
        content = mutated(seed.content, seed.mutations, self._chance)
        if current is not None:
            current.write_text(str(seed.preset))
        before = len(self._coverage)
        with self._spoiled(seed, content):
            self._try(seed)
        if len(self._coverage) > before:
            self._seeds.append(Seed(seed.preset, seed.file, content, seed.mutations))
            self.tally.lines = len(self._coverage)

    @contextmanager
    def _spoiled(self, seed: Seed, content: bytes) -> Iterator[None]:
        """Put other content into a file of a preset, for a while."""
        original = seed.file.read_bytes()
        seed.file.write_bytes(content)
        try:
            yield
        finally:
            seed.file.write_bytes(original)

    def _try(self, seed: Seed) -> None:
        self.tally.inputs += 1
        try:
            # Templates are compiled to code, whose every name is looked up in their sandbox.
            with watched(seed.preset, bait=self._bait, compiles=True), self._coverage.recording():
                self._reader.use(seed.preset)
            self.tally.accepted += 1
        except PresetError as error:
            self.tally.refused["".join(c for c in str(error)[-60:] if not c.isdigit())] += 1
        except Exception as error:
            self._note(error, seed)

    def _note(self, error: BaseException, seed: Seed) -> None:
        frames = traceback.extract_tb(error.__traceback__)
        ours = [frame for frame in frames if frame.filename.startswith(_SOURCE)] or frames
        place = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}"
        what = f"{type(error).__name__} at {place}"
        if isinstance(error, AssertionError):
            what = f"{str(error)[:60] or 'assertion'} at {place}"
        self.tally.findings[what] += 1
        if self.tally.findings[what] <= _KEPT_OF_EACH:
            text = "".join(traceback.format_exception(error))
            keep(seed.preset, self.findings, text)


def keep(preset: Path, findings: Path, text: str) -> Path:
    """Copy a preset, and what went wrong with it, to a new directory among the findings."""
    findings.mkdir(exist_ok=True, parents=True)
    target = findings / f"{sum(1 for _ in findings.iterdir()):04d}"
    target.mkdir()
    (shutil.copy if preset.is_file() else shutil.copytree)(preset, target / preset.name)
    (target / "what.txt").write_text(text, encoding="utf-8", errors="replace")
    return target


def save_tally(tally: Tally, path: Path) -> None:
    """Write what has happened so far, whole or not at all."""
    draft = path.with_suffix(".new")
    draft.write_text(json.dumps(tally.summary(), indent=1))
    draft.replace(path)
