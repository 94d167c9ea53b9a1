"""The benchmark of loading; and nextword takes little more memory than the files."""

from pathlib import Path

import pytest
import torch
import transformers
from benchmarks.loading import markdown, measure

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="Linux alone tells the peak"
)


def test_the_peak_is_that_of_the_files(tmp_path: Path) -> None:
    config = transformers.LlamaConfig(
        vocab_size=16000,
        hidden_size=1024,
        intermediate_size=4096,
        num_hidden_layers=8,
        num_attention_heads=8,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = transformers.LlamaForCausalLM(config)
    model = model.to_empty(device="cpu").to(torch.bfloat16)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.01)
    model.save_pretrained(tmp_path)

    results = measure(tmp_path, "bfloat16", rounds=1, contenders=["nextword"])
    figures, size = results["contenders"]["nextword"], results["bytes"]
    assert size == (tmp_path / "model.safetensors").stat().st_size > 300e6
    # Beside the weights there is what is imported late or made once, however small the model.
    assert 0.9 * size < figures["load_peak_bytes"] < 1.15 * size + 220e6
    assert figures["load_peak_bytes"] <= figures["token_peak_bytes"]
    assert 0 < figures["load_seconds"] < figures["token_seconds"]
    page = markdown({"model": "Tiny", "precision": "bfloat16", **results})
    assert f"| nextword | {figures['load_seconds']:.1f} |" in page
