"""How much memory and time loading takes: `python -m benchmarks.loading --help`."""

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks import machine
from benchmarks.__main__ import CONTENDERS, FILES, RESULTS, console
from benchmarks.models import MODELS, ModelFiles
from benchmarks.protocol import Task

RIVALS = ("nextword", "transformers")
_COLUMNS = (
    "contender",
    "load, s",
    "peak, MB",
    "of the files",
    "until a token, s",
    "peak, MB",
    "of the files",
)
_ROOT = Path(__file__).parents[1]

app = typer.Typer(add_completion=False)


@app.command()
def loading(
    model: Annotated[str, typer.Option(help="The model, one of the benchmarks'.")] = "llama-1b",
    precision: Annotated[str, typer.Option(help="Of the weights, stored and loaded.")] = "bfloat16",
    rounds: Annotated[
        int, typer.Option(min=1, help="How often each contender loads; the median counts.")
    ] = 5,
    name: Annotated[str, typer.Option(help="Name of the result files.")] = "loading",
    files: Annotated[
        Path, typer.Option(help="Where the models' files are kept from run to run.")
    ] = FILES,
) -> None:
    """Measure how much memory and time loading a checkpoint takes nextword and transformers.

    Each time it is a fresh process, in turns (A B A B), and the files are in the page cache. The
    results are a table and JSON in benchmarks/results.
    """
    title = MODELS[model].title
    path = ModelFiles(MODELS[model], files / model).path("transformers", precision)
    measured = {"model": title, "precision": precision, **measure(path, precision, rounds)}
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(measured, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(markdown(measured))
    console.print(f"Written: {RESULTS / name}.*")


def measure(
    path: Path, precision: str, rounds: int, contenders: Sequence[str] = RIVALS
) -> dict[str, Any]:
    """Return what loading takes each contender.

    Args:
        path: directory of a transformers checkpoint in safetensors files.
        precision: "bfloat16" or "float32", that of the stored weights.
        rounds: how often each contender loads it.
        contenders: names of modules in `benchmarks.contenders`.
    """
    stored = sorted(path.glob("*.safetensors"))
    for file in stored:
        _read(file)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for contender in contenders:
            runs[contender].append(_load(contender, path, precision))
    return {
        "machine": machine.describe(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": {name: version(CONTENDERS[name][0]) for name in contenders},
        "rounds": rounds,
        "bytes": sum(file.stat().st_size for file in stored),
        "contenders": {name: _medians(figures) for name, figures in runs.items()},
    }


def markdown(results: Mapping[str, Any]) -> str:
    """Return the results as a page.

    Args:
        results: what a run writes as JSON.
    """
    described, size = results["machine"], results["bytes"]
    versions = ", ".join(f"{name} {number}" for name, number in results["versions"].items())
    lines = [
        f"# Loading, {results['date']}",
        "",
        f"{results['model']}, {size / 1e6:.0f} MB of {results['precision']} in safetensors files; "
        f"{described['processor']}, {described['cores']} cores, Python {described['python']}; "
        f"{versions}. Each contender loaded {results['rounds']} times in turns, in fresh "
        "processes, from the page cache, and medians are shown. Memory is resident memory beyond "
        "that of the imported libraries: what is allocated, and mapped pages of files while they "
        "are in memory. A library may read mapped weights when they are first used: hence the same "
        "again until a prompt of 16 tokens has been continued by one, compiling included.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{' --- |' * len(_COLUMNS)}",
    ]
    for name, figures in results["contenders"].items():
        cells = [
            name,
            *(cell for step in ("load", "token") for cell in _cells(figures, step, size)),
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, ""])


def _cells(figures: Mapping[str, float], step: str, size: int) -> list[str]:
    peak = figures[f"{step}_peak_bytes"]
    return [f"{figures[f'{step}_seconds']:.1f}", f"{peak / 1e6:.0f}", f"{peak / size:.2f}x"]


def _load(contender: str, path: Path, precision: str) -> dict[str, float]:
    task = Task(
        path=str(path.absolute()),
        precision=precision,
        rows=1,
        prompt_tokens=1,
        new_tokens=1,
        repeats=1,
        vocabulary_size=1,
        text=[],
        started=time.time(),
    )
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(machine.THREADS),
    }
    command = [sys.executable, "-m", "benchmarks.load_process", contender, task.serialized()]
    result = subprocess.run(command, cwd=_ROOT, env=environment, capture_output=True, text=True)
    if result.returncode:
        raise RuntimeError(f"{contender} could not load {path}: {result.stderr[-2000:]}")
    figures: dict[str, float] = json.loads(result.stdout.splitlines()[-1])
    return figures


def _medians(runs: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.median(run[name] for run in runs) for name in runs[0]}


def _read(file: Path) -> None:
    """Read a file, so that it is in the page cache."""
    with file.open("rb") as opened:
        while opened.read(2**24):
            pass


if __name__ == "__main__":
    app()
