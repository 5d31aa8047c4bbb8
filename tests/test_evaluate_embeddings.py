"""Embeddings of sentences encoded alone: any architecture, any batch, any padding side."""
import numpy as np
import pytest
import torch

from alignx.errors import InputError, UsageError
from alignx.evaluate.embeddings import embed_layers
from evaluate_tools import byte_tokenizer, tiny_model

TEXTS = ["Peace.", "Everyone has the right to education.", "平和", "a", "Tous les êtres humains naissent libres."]


def reference(model, tokenizer, text):
    "One sentence, no batch, no padding, mean by hand in float64."
    encoded = tokenizer(text, return_tensors="pt")
    own = torch.tensor([token not in (0, 1, 2) for token in encoded["input_ids"][0].tolist()])
    stack = model.get_encoder() if model.config.is_encoder_decoder else model
    inputs = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
    with torch.no_grad():
        states = stack(**inputs, output_hidden_states=True).hidden_states
    return np.stack([state[0][own].double().mean(0).numpy() for state in states])


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom", "bert", "xlmr", "t5"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_equals_one_sentence_at_a_time(kind, side):
    tokenizer = byte_tokenizer("<s> $A </s>" if kind in ("bert", "xlmr") else "<s> $A", padding_side=side)
    model = tiny_model(kind)
    found = embed_layers(model, tokenizer, TEXTS, batch_size=3)
    assert found.dtype == np.float32 and found.shape == (4, len(TEXTS), 32)
    for index, text in enumerate(TEXTS):
        np.testing.assert_allclose(found[:, index], reference(model, tokenizer, text), rtol=1e-4, atol=1e-5)


def test_batch_size_order_and_missing_padding_token_do_not_matter():
    model = tiny_model()
    one = embed_layers(model, byte_tokenizer(), TEXTS, batch_size=1)
    many = embed_layers(model, byte_tokenizer(pad=False), TEXTS[::-1], batch_size=64)[:, ::-1]
    np.testing.assert_allclose(one, many, rtol=1e-4, atol=1e-5)


def test_special_tokens_are_given_but_not_pooled():
    model, text = tiny_model(), "Peace."
    with_bos = embed_layers(model, byte_tokenizer(), [text])
    without = embed_layers(model, byte_tokenizer("$A"), [text])
    np.testing.assert_allclose(with_bos[0], without[0], rtol=1e-5)  # the table's vectors of the text alone
    assert np.abs(with_bos[2] - without[2]).max() > 1e-4  # but later layers have read the token


def test_layers_are_chosen_in_order():
    model, tokenizer = tiny_model(), byte_tokenizer()
    every = embed_layers(model, tokenizer, TEXTS)
    np.testing.assert_array_equal(embed_layers(model, tokenizer, TEXTS, layers=[3, 0]), every[[3, 0]])


@pytest.mark.parametrize("layers", [[4], [-1], [1.5], []])
def test_impossible_layers(layers):
    with pytest.raises(UsageError, match="layer"):
        embed_layers(tiny_model(), byte_tokenizer(), TEXTS, layers=layers)


@pytest.mark.parametrize("bad", ["", " ", "\n\t", "\u3000", None, 3])
def test_a_sentence_without_content_is_named(bad):
    with pytest.raises(InputError, match="sentence 2"):
        embed_layers(tiny_model(), byte_tokenizer(), ["a", "b", bad])


def test_no_sentences():
    with pytest.raises(InputError, match="no sentences"):
        embed_layers(tiny_model(), byte_tokenizer(), [])


def test_overflow_is_an_error_and_not_a_wrong_score():
    model = tiny_model()
    model.model.layers[1].mlp.up_proj.weight.data *= 1e30
    model.model.layers[1].mlp.down_proj.weight.data[0, :] = 3e38
    with pytest.raises(InputError, match="layer 2.*dtype"):
        embed_layers(model, byte_tokenizer(), TEXTS)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_numbers_are_named(value):
    model = tiny_model()
    model.model.layers[1].mlp.down_proj.weight.data[0, 0] = value
    with pytest.raises(InputError, match="model.layers.1.mlp.down_proj.weight.*checkpoint is broken"):
        embed_layers(model, byte_tokenizer(), TEXTS)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bloom", "bert", "xlmr", "t5"])
@pytest.mark.parametrize("pooling", ["last", "weighted"])
def test_other_poolings_by_hand(kind, pooling):
    tokenizer, model = byte_tokenizer("<s> $A </s>"), tiny_model(kind)
    found = embed_layers(model, tokenizer, TEXTS, batch_size=3, pooling=pooling)
    stack = model.get_encoder() if model.config.is_encoder_decoder else model
    for index, text in enumerate(TEXTS):
        with torch.no_grad():
            states = stack(input_ids=torch.tensor([tokenizer(text)["input_ids"]]), output_hidden_states=True).hidden_states
        for layer, state in enumerate(states):
            own, total = state[0, 1:-1].double().numpy(), np.zeros(32)
            for i, vector in enumerate(own, 1):
                total += vector * (i / sum(range(1, len(own) + 1)) if pooling == "weighted" else i == len(own))
            np.testing.assert_allclose(found[layer, index], total, rtol=1e-4, atol=1e-5)


def test_into_a_file(tmp_path):
    model, tokenizer, path = tiny_model(), byte_tokenizer(), tmp_path / "vectors.npy"
    mapped = embed_layers(model, tokenizer, TEXTS, layers=[1, 3], out=path)
    assert isinstance(mapped, np.memmap) and not mapped.flags.writeable and [p.name for p in tmp_path.iterdir()] == ["vectors.npy"]
    np.testing.assert_array_equal(mapped, embed_layers(model, tokenizer, TEXTS, layers=[1, 3]))
    np.testing.assert_array_equal(np.load(path), mapped)


def test_a_file_that_could_not_be_finished_does_not_stay(tmp_path):
    model = tiny_model()
    model.model.norm.weight.data[:] = float("nan")
    with pytest.raises(InputError, match="model.norm.weight"):
        embed_layers(model, byte_tokenizer(), TEXTS, out=tmp_path / "vectors.npy")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "case, message",
    [
        (dict(tokenizer=None), "no tokenizer.*NoneType"),
        (dict(pooling="men"), "did you mean 'mean'"),
        (dict(batch_size=0), "batch_size.*0"),
        (dict(out="vectors.txt"), "out.*vectors.txt"),
        (dict(out="/no/such/folder/vectors.npy"), "out.*existing folder"),
    ],
)
def test_requests_that_make_no_sense(case, message):
    with pytest.raises(UsageError, match=message):
        embed_layers(**{"model": tiny_model(), "tokenizer": byte_tokenizer(), "texts": TEXTS, **case})


def test_tokenizer_of_another_model():
    model = tiny_model()
    model.resize_token_embeddings(40)
    with pytest.raises(InputError, match="40 token vectors.*do not belong together"):
        embed_layers(model, byte_tokenizer(), TEXTS)


@pytest.mark.parametrize("kind", ["llama", "gpt2", "bert"])
def test_long_sentences_are_cut_to_what_the_model_takes(kind):
    model, tokenizer = tiny_model(kind), byte_tokenizer()
    long = "x" * 400
    found = embed_layers(model, tokenizer, [long])
    np.testing.assert_allclose(found, embed_layers(model, tokenizer, [long[:127]]), rtol=1e-5)
    np.testing.assert_allclose(embed_layers(model, tokenizer, [long], max_length=8), embed_layers(model, tokenizer, ["x" * 7]), rtol=1e-5)


def test_mode_is_restored_and_dropout_is_off():
    model = tiny_model("bert").train()
    first, second = (embed_layers(model, byte_tokenizer(), TEXTS) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert model.training and all(parameter.grad is None for parameter in model.parameters())


def test_half_precision_comes_back_as_float32():
    model = tiny_model().to(torch.bfloat16)
    found = embed_layers(model, byte_tokenizer(), TEXTS)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, embed_layers(model.float(), byte_tokenizer(), TEXTS), atol=0.1)


def test_batches_hold_every_sentence_once_and_no_more_than_asked_for():
    from alignx.evaluate.embeddings import ENOUGH_TOKENS, _cuts

    generator = np.random.default_rng(0)
    for size in (1, 3, 32):
        lengths = np.sort(generator.geometric(0.02, 700))[::-1]
        cuts = list(_cuts(lengths, size))
        assert [place for start, stop in cuts for place in range(start, stop)] == list(range(700))
        assert max(stop - start for start, stop in cuts) == size
        early = [(start, stop) for start, stop in cuts[:-1] if stop - start < size]
        assert all(lengths[start:stop].sum() >= ENOUGH_TOKENS and lengths[stop] < 0.8 * lengths[start] for start, stop in early)
