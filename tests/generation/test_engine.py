"""The engine on a tiny model: seeds, batches, stopping, chunks, and what is compiled when."""

from typing import Any

import keras
import pytest

import nextword
from generation.tiny import VOCABULARY_SIZE, full_pass_logits, make_request, run, tiny_backbone
from nextword.generation import Engine
from nextword.samplers import GreedySampler, RandomSampler, TopKSampler, TopPSampler


@pytest.fixture(scope="module")
def backbone() -> Any:
    return tiny_backbone()


@pytest.fixture(scope="module")
def engine(backbone: Any) -> Engine:
    return Engine(backbone)


def full_pass_greedy(backbone: Any, token_ids: list[int]) -> list[int]:
    return full_pass_logits(backbone, [token_ids])[0].argmax(axis=-1).tolist()


SAMPLERS = [
    GreedySampler(),
    RandomSampler(temperature=1.3),
    TopKSampler(k=7),
    TopPSampler(p=0.8),
    TopPSampler(p=0.8, k=9, temperature=0.7),
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=repr)
def test_a_request_is_the_same_alone_and_in_any_batch(engine: Engine, sampler: Any) -> None:
    requests = [make_request(length, seed=length) for length in (1, 7, 40, 7, 33)]
    alone = [run(engine, [request], sampler)[0] for request in requests]
    assert run(engine, requests, sampler) == alone
    assert run(engine, requests[::-1], sampler) == alone[::-1]
    assert len({tuple(tokens) for tokens in alone}) == 4  # two of the five are the same request


def test_seeds_make_differences(engine: Engine) -> None:
    sampler = RandomSampler()
    tokens = [run(engine, [make_request(5, seed=seed)], sampler)[0] for seed in (1, 2, 2**62)]
    assert len({tuple(row) for row in tokens}) == 3


def test_layers_of_a_kind_share_a_program_and_others_have_their_own() -> None:
    backbone = tiny_backbone(num_layers=5, intermediate_dim=64)
    layers = backbone.transformer_layers
    assert len({layer.kind for layer in layers}) == 1
    backbone.quantize("q8_0", filters=lambda layer: "layer_1/" in layer.path)
    assert [layer.kind == layers[0].kind for layer in layers] == [True, False, True, True, True]
    for layer, alpha in ((layers[2], 1.0), (layers[3], 8.0), (layers[4], 8.0)):
        (kernel,) = layer.self_attention.query.matrices
        kernel.enable_lora(2, alpha)
        for factor in kernel.update.factors:
            factor.assign(keras.random.normal(factor.shape, seed=3))
    assert len({layer.kind for layer in layers}) == 4
    request = make_request(20, max_new_tokens=4)
    (tokens,) = run(Engine(backbone), [request], GreedySampler())
    row = [*request.token_ids, *tokens]
    assert full_pass_greedy(backbone, row)[19:-1] == tokens


@pytest.mark.parametrize("length", [511, 512, 513, 1200])
def test_long_prompts_are_computed_in_chunks(backbone: Any, engine: Engine, length: int) -> None:
    request = make_request(length, max_new_tokens=4)
    tokens = run(engine, [request, make_request(3)], GreedySampler())[0]
    row = [*request.token_ids, *tokens]
    assert full_pass_greedy(backbone, row)[length - 1 : -1] == tokens


def test_the_padding_of_a_prompt_may_lie_beyond_the_context() -> None:
    backbone = nextword.models.GPT2Backbone(
        vocabulary_size=VOCABULARY_SIZE,
        num_layers=2,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=16,
        max_sequence_length=20,
    )
    request = make_request(17, max_new_tokens=3)
    tokens = run(Engine(backbone), [request], GreedySampler())[0]
    assert full_pass_greedy(backbone, [*request.token_ids, *tokens])[16:-1] == tokens


def test_more_requests_than_slots_are_taken_in_turn(backbone: Any, engine: Engine) -> None:
    requests = [make_request(length) for length in (3, 9, 4, 20, 5)]
    few_slots = Engine(backbone, max_slots=2)
    sampler = GreedySampler()
    assert run(few_slots, requests, sampler) == run(engine, requests, sampler)


def test_each_row_stops_by_itself(engine: Engine) -> None:
    plain = run(engine, [make_request(7), make_request(40)], GreedySampler())
    stop = plain[0][4]
    requests = [
        make_request(7, stop_token_ids=frozenset([stop])),
        make_request(40, max_new_tokens=3),
    ]
    tokens = list(engine.generate(requests, GreedySampler()))
    rows = [[t.token_id for t in tokens if t.request == row] for row in range(2)]
    assert rows[0] == plain[0][: plain[0].index(stop) + 1]
    assert rows[1] == plain[1][:3]
    reasons = {t.request: t.finish_reason for t in tokens if t.finish_reason}
    assert reasons == {0: "stop", 1: "length"}


def test_cancelling_one_request_leaves_the_others(engine: Engine) -> None:
    requests = [make_request(7), make_request(40)]
    plain = run(engine, requests, GreedySampler())
    with engine.generate(requests, GreedySampler()) as generation:
        rows: list[list[int]] = [[], []]
        for token in generation:
            rows[token.request].append(token.token_id)
            if len(rows[0]) == 2:
                generation.cancel(0)
    assert rows == [plain[0][:2], plain[1]]


def test_closing_ends_the_generation(engine: Engine) -> None:
    generation = engine.generate([make_request(7)], GreedySampler())
    next(generation)
    generation.close()
    assert list(generation) == []
    assert generation.statistics.generated_tokens == 1


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (GreedySampler(), GreedySampler()),
        (RandomSampler(temperature=0.5), RandomSampler(temperature=2)),
        (TopKSampler(k=3, seed=1), TopKSampler(k=50, temperature=0.3, seed=2)),
        (TopPSampler(p=0.3), TopPSampler(p=0.9, k=4, temperature=1.5)),
    ],
    ids=repr,
)
def test_only_new_shapes_compile(
    engine: Engine, compilations: list[str], first: Any, second: Any
) -> None:
    requests = [make_request(17, seed=3), make_request(5)]
    run(engine, requests, first)
    warm = len(compilations)
    others = [
        make_request(30, seed=2**60, stop_token_ids=frozenset([1, 2, 3])),
        make_request(9, max_new_tokens=20),
    ]
    run(engine, others, second)
    assert len(compilations) == warm
    run(engine, [*others, make_request(4)], second)
    assert len(compilations) > warm  # the listener does hear of compilations
