"""Searches on models of transformers."""

from collections.abc import Sequence
from typing import Any

import torch

from nextword.samplers import BeamSampler, ContrastiveSampler


def beam_search(
    reference: Any,
    prompt: list[int],
    sampler: BeamSampler,
    length: int,
    stop_token_ids: Sequence[int] = (),
    **options: Any,
) -> list[list[int]]:
    """Return the continuations that transformers' beam search finds, best first."""
    with torch.no_grad():
        rows = reference.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            num_beams=sampler.num_beams,
            num_return_sequences=sampler.num_beams,
            length_penalty=sampler.length_penalty,
            early_stopping=False,
            do_sample=False,
            max_new_tokens=length,
            eos_token_id=list(stop_token_ids) or None,
            pad_token_id=0,
            **options,
        )
    found = []
    for row in rows[:, len(prompt) :].tolist():
        ends = [place + 1 for place, token_id in enumerate(row) if token_id in stop_token_ids]
        found.append(row[: ends[0]] if ends else row)
    return found


def contrastive_search(
    reference: Any, prompt: list[int], sampler: ContrastiveSampler, length: int
) -> list[int]:
    """Equation 5 of the paper, with a full pass for every candidate."""
    row = list(prompt)
    with torch.no_grad():
        logits = reference(torch.tensor([row])).logits[0, -1]
    for _ in range(length):
        probabilities, candidates = (logits / sampler.temperature).softmax(-1).topk(sampler.k)
        rows = torch.tensor([[*row, token_id] for token_id in candidates.tolist()])
        with torch.no_grad():
            outputs = reference(rows, output_hidden_states=True)
        hidden = outputs.hidden_states[-1]
        unit = hidden / hidden.norm(dim=-1, keepdim=True)
        similarity = (unit[:, -1:] * unit[:, :-1]).sum(-1).max(-1).values
        best = int(((1 - sampler.alpha) * probabilities - sampler.alpha * similarity).argmax())
        row.append(int(candidates[best]))
        logits = outputs.logits[best, -1]
    return row[len(prompt) :]
