"""The results of a run, as a picture: decoding speed, one group of bars for each precision."""

from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
from matplotlib.patches import Patch

_COLOURS = {
    "nextword": "#d62728",
    "llama_cpp": "#4c72b0",
    "openvino": "#55a868",
    "onnxruntime": "#8172b3",
    "keras_hub": "#8c8c8c",
    "transformers": "#c9a227",
    "transformers_compiled": "#8f7310",
}


def draw(results: dict[str, Any], path: Path) -> None:
    """Draw the decoding speed of one row, with what the memory's bandwidth allows.

    Args:
        results: what a run writes as JSON, of one row among others.
        path: file to write, an SVG.
    """
    matplotlib.rcParams["svg.hashsalt"] = "nextword"
    single = [m for m in results["measurements"] if m["rows"] == 1]
    titles = list(dict.fromkeys(m["model"] for m in single))
    figure, axes = plt.subplots(
        1, len(titles), figsize=(4.2 * len(titles), 3.4), squeeze=False, layout="constrained"
    )
    for axis, title in zip(axes[0], titles, strict=True):
        _draw_model(axis, title, [m for m in single if m["model"] == title])
    axes[0][0].set_ylabel("decode, tokens/s, one row")
    names = dict.fromkeys(name for m in single for name in m["contenders"])
    handles = [Patch(color=_COLOURS[name], label=name.replace("_", " ")) for name in names]
    handles.append(plt.Line2D([], [], color="black", linewidth=1, label="memory bandwidth"))
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _draw_model(axis: Any, title: str, measurements: list[dict[str, Any]]) -> None:
    for place, measurement in enumerate(measurements):
        contenders = measurement["contenders"]
        width = 0.8 / len(contenders)
        for number, (name, figures) in enumerate(contenders.items()):
            x = place + (number - (len(contenders) - 1) / 2) * width
            axis.bar(x, figures["decode_tokens_per_second"], width * 0.9, color=_COLOURS[name])
        limit = measurement["bandwidth"] / measurement["bytes_per_token"]
        axis.hlines(limit, place - 0.45, place + 0.45, color="black", linewidth=1)
    axis.set_xticks(range(len(measurements)), [m["precision"] for m in measurements])
    axis.set_title(title)
    axis.spines[["top", "right"]].set_visible(False)
