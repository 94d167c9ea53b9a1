"""The results of a run, as a table in Markdown."""

import statistics
from collections.abc import Iterator, Sequence
from typing import Any

PEER = "llama_cpp"
_NOTES = {
    "llama_cpp": "llama.cpp tells no perplexity; where it reads GGUF blocks, it reads the same "
    "file as nextword. ",
    "openvino": "OpenVINO tells none either, and reads that file, too; its defaults round "
    "activations, keys and values to 8 bits. ",
    "onnxruntime": "ONNX Runtime tells none and has 4 bits of its own, in groups of 32, too. ",
}
_COLUMNS = (
    "model",
    "weights",
    "rows",
    "contender",
    "load, s",
    "first token, s: cold / warm",
    "prefill, tokens/s",
    "decode, tokens/s",
    "of llama.cpp",
    "of bandwidth",
    "peak, MB",
    "perplexity",
)


def summary(runs: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the medians of a contender's runs.

    Args:
        runs: what `benchmarks.protocol.measure` returned in each of them. The first began without
            compiled programs, the others with those of the first.
    """
    warm = [run["first_token_seconds"] for run in runs[1:]]
    figures = {
        name: statistics.median(run[name] for run in runs)
        for name in (
            "load_seconds",
            "load_peak_bytes",
            "prefill_tokens_per_second",
            "decode_tokens_per_second",
            "peak_bytes",
        )
    }
    return figures | {
        "first_token_seconds_cold": runs[0]["first_token_seconds"],
        "first_token_seconds_warm": statistics.median(warm),
        "perplexity": runs[0].get("perplexity"),
    }


def markdown(results: dict[str, Any]) -> str:
    """Return the results as a page.

    Args:
        results: what a run writes as JSON.
    """
    machine, versions = results["machine"], results["versions"]
    bandwidths = [m["bandwidth"] / 1e9 for m in results["measurements"]]
    notes = "".join(note for name, note in _NOTES.items() if name in versions)
    imports = [f"{name} {seconds:.2f}" for name, seconds in results["import_seconds"].items()]
    lines = [
        f"# Results of {results['date']}",
        "",
        f"{machine['processor']}, {machine['cores']} cores, two threads, Python "
        f"{machine['python']}; "
        f"{', '.join(f'{name} {number}' for name, number in versions.items())}. Memory is read "
        f"at {min(bandwidths):.1f} to {max(bandwidths):.1f} GB/s (median of each row's probes). "
        f"Prompts have {results['prompt_tokens']} tokens for prefill and 16 for decoding; each "
        f"contender ran {results['rounds']} times in turns, in fresh processes, and medians are "
        "shown. Loading counts from the call to the model, the first token from the start of the "
        "process. The share of the bandwidth is that of the weights read for each step. "
        f"{notes}Seconds of a process that imports only: {', '.join(imports)}.",
        "",
        f"| {' | '.join(_COLUMNS)} |",
        f"|{' --- |' * len(_COLUMNS)}",
    ]
    for measurement in results["measurements"]:
        lines += [f"| {' | '.join(cells)} |" for cells in _rows(measurement)]
    return "\n".join([*lines, ""])


def share_of_bandwidth(measurement: dict[str, Any], contender: str) -> float:
    """Return which part of the memory's bandwidth a contender's weight reads take in decoding."""
    figures = measurement["contenders"][contender]
    steps = figures["decode_tokens_per_second"] / measurement["rows"]
    return float(steps * measurement["bytes_per_token"] / measurement["bandwidth"])


def _rows(measurement: dict[str, Any]) -> Iterator[list[str]]:
    peer = measurement["contenders"].get(PEER)
    for name, figures in measurement["contenders"].items():
        decode = figures["decode_tokens_per_second"]
        ratio = f"{decode / peer['decode_tokens_per_second']:.2f}x" if peer else ""
        perplexity = figures["perplexity"]
        yield [
            measurement["model"],
            measurement["precision"],
            str(measurement["rows"]),
            name.replace("_", " "),
            f"{figures['load_seconds']:.1f}",
            f"{figures['first_token_seconds_cold']:.1f} / "
            f"{figures['first_token_seconds_warm']:.1f}",
            f"{figures['prefill_tokens_per_second']:.0f}",
            f"{decode:.1f}",
            ratio,
            f"{share_of_bandwidth(measurement, name):.0%}",
            f"{figures['peak_bytes'] / 1e6:.0f}",
            "" if perplexity is None else f"{perplexity:.3f}",
        ]
