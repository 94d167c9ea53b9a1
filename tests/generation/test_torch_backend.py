"""Parity and samplers on torch, in a process whose Keras backend it is."""

from backends import run_on_torch


def test_parity() -> None:
    chosen = "llama-llama3-scaling or gpt2-inner"
    assert "10 passed" in run_on_torch("families/test_transformers_parity.py", "-k", chosen)


def test_loops() -> None:
    beam_search = "test_hypotheses_are_those_of_transformers[llama-1.0]"
    contrastive_search = "test_one_candidate_or_no_penalty_is_greedy"
    speculative_decoding = "test_greedy_tokens_are_the_same_with_a_draft[4]"
    summary = run_on_torch(
        f"generation/test_beam_search.py::{beam_search}",
        f"generation/test_contrastive_search.py::{contrastive_search}",
        f"generation/test_speculative_decoding.py::{speculative_decoding}",
        "generation/test_outgrown_caches.py",
        "generation/test_top_k.py",
    )
    assert "11 passed" in summary
