import json

import pytest
import torch

from align_batches import CONFIGS, bare, collate, row, rows, tiny
from alignx.align.language_model import decoder_layers
from alignx.align.model import AlignmentConfig, AlignmentModel, load_alignment, load_alignment_weights, rows_to_read, save_alignment, sentence_embeddings
from alignx.align.pooling import SOURCE, TARGET
from alignx.align.token_loss import next_token_loss, predictable_labels
from alignx.errors import InputError, UsageError
from transformers import AutoModelForCausalLM


def model(name="llama", **settings):
    torch.manual_seed(1)
    return AlignmentModel(tiny(name), AlignmentConfig(**{"layer": 2, **settings}))


def mirrored(count=3):
    "Rows 2i and 2i + 1 are one pair in both directions."
    both = []
    for i in range(count):
        both += [row(2 + i, 3, 10, 11, seed=i), row(3, 2 + i, 11, 10, seed=50 + i)]
    return collate(both)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("pooling", ["row", "mirror", "alone"])
def test_all_losses_and_gradients_of_every_architecture(name, pooling):
    aligned, batch = model(name, pooling=pooling), mirrored()
    output = aligned(**batch)
    expected = output.lm_loss + 0.3 * output.contrastive_loss + 0.4 * output.language_matching_loss
    assert torch.allclose(output.loss, expected) and output.loss.isfinite() and output.contrastive_loss > 0
    output.loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in aligned.parameters())


@pytest.mark.parametrize("name", ["llama", "gpt2", "bloom"])
@pytest.mark.parametrize("pooling", ["row", "alone"])
def test_padding_side_and_amount_do_not_matter(name, pooling):
    aligned, some = model(name, pooling=pooling), rows(4)
    if name == "gpt2":  # learned positions count from the left edge, so only more padding on the right is a fair question
        pair = collate(some), {k: torch.nn.functional.pad(v, (0, 5), value=-100 if k == "labels" else 0) if v.dim() == 2 else v for k, v in collate(some).items()}
    else:
        pair = collate(some, "right"), collate(some, "left")
    one, other = (aligned(**batch) for batch in pair)
    for key in ("lm_loss", "contrastive_loss", "language_matching_loss"):
        assert torch.allclose(one[key], other[key], atol=2e-4), key


def test_alone_equals_reading_each_sentence_by_itself():
    aligned, some = model(pooling="alone"), rows(3)
    batch = collate(some, "left")
    from alignx.align.model import pair_embeddings
    pairs = pair_embeddings(aligned.lm, aligned.alignment, batch, torch.zeros(*batch["input_ids"].shape, 32))
    for i, one in enumerate(some):
        for vectors, side in ((pairs.source, SOURCE), (pairs.target, TARGET)):
            ids = [1] + [token for token, span in zip(one["input_ids"], one["spans"]) if span == side]
            states = aligned.lm(torch.tensor([ids]), output_hidden_states=True).hidden_states[2][0, 1:]
            assert torch.allclose(vectors[i], states.mean(0), atol=1e-5)


def test_alone_has_not_read_the_other_side_and_row_has():
    one, changed = row(3, 3, seed=1), row(3, 3, seed=1)
    changed["input_ids"][3] = (changed["input_ids"][3] + 1) % 50 + 3  # another first source token
    from alignx.align.model import pair_embeddings
    from alignx.align.language_model import states_up_to
    targets = {}
    for pooling in ("row", "alone"):
        aligned = model(pooling=pooling)
        for name, each in (("one", one), ("changed", changed)):
            batch = collate([each])
            hidden = states_up_to(aligned.lm, 2, batch["input_ids"], batch["attention_mask"])
            targets[pooling, name] = pair_embeddings(aligned.lm, aligned.alignment, batch, hidden).target
    assert not torch.allclose(targets["row", "one"], targets["row", "changed"], atol=1e-4)
    assert torch.equal(targets["alone", "one"], targets["alone", "changed"])


@pytest.mark.parametrize("side", ["left", "right"])
def test_rows_without_labels_are_contrasted_and_do_not_pass_the_upper_layers(side):
    aligned, batch = model(pooling="alone"), collate(rows(6), side)
    batch["labels"][[0, 2, 3, 5]] = -100
    passed = []
    top = decoder_layers(aligned.lm)[2][-1]
    handle = top.register_forward_hook(lambda module, args, out: passed.append(len(out if isinstance(out, torch.Tensor) else out[0])))
    output = aligned(**batch)
    handle.remove()
    assert passed == [2], "the top layer sees the labelled rows alone"
    read = aligned.lm(batch["input_ids"], attention_mask=batch["attention_mask"], output_hidden_states=True)
    lm_loss = next_token_loss(read.logits, predictable_labels(batch["labels"], batch["attention_mask"]))
    some = {name: value[[1, 4]] for name, value in batch.items()}
    sentences = sentence_embeddings(read.hidden_states[-1][[1, 4]], *(some[name] for name in ("attention_mask", "spans", "source_lang", "target_lang")))
    assert torch.allclose(output.lm_loss, lm_loss, atol=1e-5) and output.contrastive_pairs == 6
    assert torch.allclose(output.language_matching_loss, aligned.heads["language_matching"](*sentences).loss, atol=1e-5)
    assert torch.allclose(output.contrastive_loss, aligned(**collate(rows(6), side)).contrastive_loss, atol=1e-5)


@pytest.mark.parametrize("groups", [1, 2, 5])
def test_the_losses_do_not_depend_on_the_groups(groups, monkeypatch):
    import alignx.align.model as module

    aligned, batch = model(pooling="alone"), collate([*rows(5), bare(9), bare(2, seed=3)])
    batch["labels"][[0, 3]] = -100
    whole = aligned(**batch)
    monkeypatch.setattr(module, "rows_to_read", lambda batch, shifted: rows_to_read(batch, groups, shifted))
    parted = aligned(**batch)
    for name in ("lm_loss", "contrastive_loss", "language_matching_loss"):
        assert torch.allclose(whole[name], parted[name], atol=1e-5), name


def test_a_group_without_rows_teaches_nothing():
    batch = collate(rows(3))
    parts = rows_to_read(batch, groups=5)
    assert [len(part["labels"]) for part in parts] == [1] * 5
    for part in parts[3:]:
        assert (part["labels"] == -100).all() and not part["spans"].any() and part["source_lang"].tolist() == part["target_lang"].tolist() == [-1]


def test_distillation_holds_plain_rows_to_the_model_before_training_and_saves_none_of_it(tmp_path):
    batch = collate([*rows(3), bare(5, seed=7)])
    plain, held = model(pooling="alone"), model(pooling="alone", distillation=1.0)
    assert set(held.state_dict()) == set(plain.state_dict())
    assert held(**batch).contrastive_loss == plain(**batch).contrastive_loss
    only = {name: value[3:] for name, value in batch.items()}
    held(**only).lm_loss.backward()
    assert all(p.grad is None or p.grad.abs().max() < 1e-6 for p in held.lm.parameters()), "nothing has changed yet"
    with torch.no_grad():
        for weight in held.lm.parameters():
            weight.mul_(1.1)
    held.zero_grad()
    held(**only).lm_loss.backward()
    assert any(p.grad.abs().max() > 1e-4 for p in held.lm.parameters())
    save_alignment(held, tmp_path)
    assert load_alignment(tmp_path).alignment.distillation == 1.0
    with pytest.raises(UsageError, match="distillation"):
        AlignmentConfig(distillation=1.5)


def test_a_batch_without_labels_still_gives_every_parameter_a_gradient():
    aligned, batch = model(pooling="alone"), collate(rows(4))
    output = aligned(**{**batch, "labels": torch.full_like(batch["labels"], -100)})
    output.loss.backward()
    assert output.lm_loss == 0 and output.contrastive_loss > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in aligned.parameters())


@pytest.mark.parametrize("side", ["left", "right"])
def test_language_matching_pools_the_states_one_to_the_left(side):
    batch = collate(rows(3), side)
    last = torch.randn(*batch["input_ids"].shape, 4)
    pooled, languages = sentence_embeddings(last, batch["attention_mask"], batch["spans"], batch["source_lang"], batch["target_lang"])
    for i in range(3):
        for number, place in ((SOURCE, i), (TARGET, 3 + i)):
            positions = (batch["spans"][i] == number).nonzero().flatten()
            assert torch.allclose(pooled[place], last[i, positions - 1].mean(0), atol=1e-6)
    assert torch.equal(languages, torch.cat([batch["source_lang"], batch["target_lang"]]))


@pytest.mark.parametrize("pooling", ["row", "mirror", "alone"])
@pytest.mark.parametrize("unusable", [[bare(5), bare(3)], [bare(2, seed=3), {**row(2, 0), "source_lang": -1, "target_lang": -1}]])
def test_a_batch_without_a_pair_trains_the_language_model_and_breaks_nothing(pooling, unusable):
    aligned = model(pooling=pooling)
    output = aligned(**collate(unusable))
    output.loss.backward()
    assert output.loss == output.lm_loss and output.lm_loss > 0
    assert all(p.grad is not None and p.grad.isfinite().all() for p in aligned.parameters())
    assert not any(p.grad.any() for p in aligned.heads.parameters())
    assert aligned.lm.get_input_embeddings().weight.grad.any()


def test_unusable_rows_leave_the_alignment_losses_of_the_others_alone():
    aligned, some = model(), rows(4)
    one, other = aligned(**collate(some)), aligned(**collate([bare(9), *some, bare(2)]))
    for key in ("contrastive_loss", "language_matching_loss", "retrieval_accuracy"):
        assert torch.allclose(one[key], other[key], atol=1e-5)
    assert other.contrastive_pairs == 4


def test_a_repeated_row_is_no_negative_unless_asked():
    some = rows(3)
    batch = collate([*some, some[0]])
    masked, counted = (model(mask_duplicates=flag)(**batch).contrastive_loss for flag in (True, False))
    assert masked < counted


def test_objectives_switch_losses_off():
    batch = collate(rows(4))
    plain = model(objectives="lm")
    assert not list(plain.heads.parameters()) and plain(**batch).contrastive_loss is None
    contrastive = model(objectives="contrastive")
    output = contrastive(**batch)
    assert torch.allclose(output.loss, 0.3 * output.contrastive_loss) and output.lm_loss is None, "nothing above the layer is read in training"
    output.loss.backward()
    evaluated = contrastive.eval()(**batch)
    assert torch.allclose(evaluated.loss, output.loss) and torch.allclose(evaluated.lm_loss, plain(**batch).lm_loss) and not evaluated.lm_loss.requires_grad
    layers = contrastive.lm.model.layers
    assert layers[1].mlp.up_proj.weight.grad is not None and layers[2].mlp.up_proj.weight.grad is None, "layer 2 = after two layers"


def test_activation_checkpointing_gives_the_same_gradients():
    batch, found = collate(rows(4)), []
    for checkpointing in (False, True):
        aligned = model().train()
        if checkpointing:
            aligned.activation_checkpointing_enable()
        aligned(**batch).loss.backward()
        found.append([p.grad for p in aligned.parameters()])
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*found))
    with pytest.raises(UsageError, match="use_reentrant"):
        aligned.activation_checkpointing_enable({"use_reentrant": True})


def test_saved_folder_is_a_plain_model_and_comes_back(tmp_path):
    aligned = model("qwen3", language_matching_size=16)
    aligned.lm.config.use_cache = False
    save_alignment(aligned, tmp_path)
    plain, info = AutoModelForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"] and plain.config.use_cache and plain.dtype == torch.float32
    assert plain.generate(torch.tensor([[1, 5]]), max_new_tokens=3, do_sample=False).shape[1] > 2
    assert json.loads((tmp_path / "alignment_config.json").read_text())["language_matching_size"] == 16
    again, batch = load_alignment(tmp_path), collate(rows(4))
    assert again.alignment == aligned.alignment and torch.equal(again.eval()(**batch).loss, aligned(**batch).loss)
    with pytest.raises(InputError, match="language_matching_size"):
        load_alignment_weights(model("qwen3", language_matching_size=8), tmp_path)
    with pytest.raises(UsageError, match="alignment_config.json"):
        load_alignment(tmp_path / "nowhere")


def test_a_model_without_heads_saves_none(tmp_path):
    save_alignment(model(objectives="lm"), tmp_path)
    assert not (tmp_path / "alignment_heads.safetensors").exists() and not list(load_alignment(tmp_path).heads.parameters())


def test_weights_gathered_elsewhere_are_what_is_saved(tmp_path):
    aligned = model()
    gathered = {name: torch.full_like(tensor, 0.25) for name, tensor in aligned.state_dict().items()}
    save_alignment(aligned, tmp_path, gathered)
    assert all((tensor == 0.25).all() for tensor in load_alignment(tmp_path).state_dict().values())


def test_wrong_requests():
    with pytest.raises(UsageError, match="from 0 to 3"):
        model(layer=4)
    with pytest.raises(UsageError, match="auto"):
        AlignmentModel(tiny())
    AlignmentModel(tiny(), AlignmentConfig(objectives="lm"))  # plain pre-training needs no layer
    with pytest.raises(UsageError, match="encoder with a decoder"):
        AlignmentModel(torch.nn.Linear(2, 2), AlignmentConfig(layer=1))
    with pytest.raises(InputError, match="opposite direction"):
        model(pooling="mirror")(**collate(rows(4)))
    for settings in ({"objectives": ""}, {"objectives": "lm,lm"}, {"layer": -1}, {"layer": True}, {"language_matching_size": 0}):
        with pytest.raises(UsageError):
            AlignmentConfig(**settings)
    with pytest.raises(UsageError, match="did you mean 'contrastive'"):
        AlignmentConfig(objectives=["contrastve"])


@pytest.mark.parametrize("layer", [0, 1, 3])
def test_first_and_last_layer_can_be_chosen(layer):
    assert model(layer=layer)(**collate(rows(4))).loss.isfinite()
    assert model(layer=layer, pooling="alone")(**collate(rows(4))).loss.isfinite()
