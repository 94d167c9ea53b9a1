"""The command line: `python -m benchmarks`."""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import platformdirs
import typer
from rich.console import Console
from rich.progress import Progress

from benchmarks import machine, report
from benchmarks.models import MODELS, ModelFiles
from benchmarks.protocol import Task

CONTENDERS = {
    "nextword": ("nextword", ("float32", "bfloat16", "int8", "q8_0", "q4_1", "q4_0")),
    "llama_cpp": ("xllamacpp", ("float32", "bfloat16", "q8_0", "q4_1", "q4_0")),
    "openvino": ("openvino-genai", ("q8_0", "q4_1", "q4_0")),
    "onnxruntime": ("onnxruntime-genai", ("q4_1", "q4_0")),
    "keras_hub": ("keras-hub", ("float32", "bfloat16", "int8")),
    "transformers": ("transformers", ("float32", "bfloat16")),
    "transformers_compiled": ("transformers", ("float32", "bfloat16")),
}
"""Each contender's distribution, and the precisions that it has."""

OUR_MODULES = ("nextword", "nextword.models")
PROMPT_TOKENS = 512
RESULTS = Path(__file__).parent / "results"
FILES = platformdirs.user_cache_path("nextword") / "benchmarks"

app = typer.Typer(add_completion=False)
console = Console()


@app.command()
def benchmark(
    models: Annotated[str, typer.Option(help="Models, separated by commas.")] = ",".join(MODELS),
    contenders: Annotated[
        str, typer.Option(help="Contenders; those that are not installed are left out.")
    ] = ",".join(CONTENDERS),
    precisions: Annotated[
        str, typer.Option(help="Precisions, separated by commas; all of a model's by default.")
    ] = "",
    rows: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,8",
    rounds: Annotated[
        int, typer.Option(min=2, help="How often each contender runs; the median counts.")
    ] = 3,
    name: Annotated[str, typer.Option(help="Name of the result files.")] = "cpu",
    files: Annotated[
        Path, typer.Option(help="Where the models' files are kept from run to run.")
    ] = FILES,
) -> None:
    """Measure speed, memory and quality of nextword and its peers in one run.

    Every contender runs in a process of its own, in turns (A B A B), on two threads. The first
    round begins without compiled programs, the later ones with those that the first has left. The
    results are a table, JSON and a picture in benchmarks/results. What loading takes is measured
    by itself: python -m benchmarks.loading --help
    """
    chosen = [name for name in contenders.split(",") if _is_installed(CONTENDERS[name][0])]
    measurements: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as compiled, Progress(console=console) as progress:
        for model_name in models.split(","):
            model = MODELS[model_name]
            model_files = ModelFiles(model, files / model_name)
            wanted = precisions.split(",") if precisions else model.precisions
            for precision in [p for p in model.precisions if p in wanted]:
                rivals = [
                    name
                    for name in chosen
                    if precision in CONTENDERS[name][1] and name not in model.unknown_to
                ]
                for batch in map(int, rows.split(",")):
                    title = f"{model.title}, {precision}, {batch} rows"
                    step = progress.add_task(title, total=rounds * len(rivals))
                    figures: dict[str, list[dict[str, Any]]] = {name: [] for name in rivals}
                    bandwidths = [machine.read_bandwidth()]
                    for turn in range(rounds):
                        for rival in rivals:
                            task = _task(model, model_files, rival, precision, batch, turn)
                            figures[rival].append(_measure(rival, task, Path(compiled)))
                            progress.advance(step)
                        bandwidths.append(machine.read_bandwidth())
                    measurements.append(
                        {
                            "model": model.title,
                            "precision": precision,
                            "rows": batch,
                            "bytes_per_token": model_files.bytes_per_token(precision),
                            "bandwidth": statistics.median(bandwidths),
                            "contenders": {
                                name: report.summary(runs) for name, runs in figures.items()
                            },
                        }
                    )
    imports = {name: machine.import_seconds(name) for name in ("keras", *OUR_MODULES)}
    versions = {name: version(CONTENDERS[name][0]) for name in chosen}
    results = {
        "machine": machine.describe(),
        "date": time.strftime("%Y-%m-%d"),
        "versions": versions,
        "import_seconds": imports,
        "prompt_tokens": PROMPT_TOKENS,
        "rounds": rounds,
        "measurements": measurements,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    (RESULTS / f"{name}.md").write_text(report.markdown(results))
    if _is_installed("matplotlib") and any(each["rows"] == 1 for each in measurements):
        from benchmarks.picture import draw

        draw(results, RESULTS / f"{name}.svg")
    console.print(f"Written: {RESULTS / name}.*")


def _task(
    model: Any, model_files: ModelFiles, rival: str, precision: str, rows: int, turn: int
) -> Task:
    if rival == "onnxruntime":
        file_format = "onnx"
    elif rival in ("llama_cpp", "openvino") or precision.startswith("q"):
        file_format = "gguf"
    else:
        file_format = "keras" if rival == "keras_hub" else "transformers"
    return Task(
        path=str(model_files.path(file_format, precision)),
        precision=precision,
        rows=rows,
        prompt_tokens=PROMPT_TOKENS,
        new_tokens=model.new_tokens,
        repeats=3,
        vocabulary_size=model_files.vocabulary_size(),
        text=model_files.text() if turn == 0 and rows == 1 else [],
        started=time.time(),
    )


def _measure(contender: str, task: Task, compiled: Path) -> dict[str, Any]:
    environment = os.environ | {
        "KERAS_BACKEND": "jax",
        "JAX_COMPILATION_CACHE_DIR": str(compiled / contender),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.02",
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": str(machine.THREADS),
        "TORCHINDUCTOR_CACHE_DIR": str(compiled / "torch"),
    }
    command = [sys.executable, "-m", f"benchmarks.contenders.{contender}", task.serialized()]
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    if result.returncode:
        console.print(result.stderr[-2000:], markup=False)
        raise typer.Exit(1)
    figures: dict[str, Any] = json.loads(result.stdout.splitlines()[-1])
    return figures


def _is_installed(distribution: str) -> bool:
    try:
        return bool(version(distribution))
    except PackageNotFoundError:
        return False


if __name__ == "__main__":
    app()
