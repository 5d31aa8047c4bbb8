import copy
import logging
import re

import datasets
import numpy as np
import pytest
import torch
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from alignx.data import AlignmentCollator, encode_rows, encoding_report, keep_labels, language_id, load_parallel, mirror_row, preview, render, translation_instructions
from alignx.data.spans import all_marks, find_span, row_marks, split_byte_runs
from alignx.demo import demo_corpus
from alignx.errors import InputError, UsageError

BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
QUIET = {"show_progress": False}


@pytest.fixture(scope="module")
def corpus():
    datasets.disable_progress_bars()
    return load_parallel(demo_corpus(), languages=["en", "zh", "ar", "th", "sw"], split="test").select(range(100))


def byte_level(texts):
    "GPT-2's kind."
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=True)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=600, special_tokens=["<|end|>"], initial_alphabet=alphabet, **QUIET))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def greedy_punctuation(texts):
    "Llama 3's kind: punctuation takes the line breaks behind it, so that a full stop and the template's seam are one token."
    tokenizer = Tokenizer(models.BPE())
    pattern = Regex(r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Split(pattern, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    seams = ["Yes?\n\n", "Yes.\n\n", "no。\n\n"] * 100
    tokenizer.train_from_iterator([*texts, *seams], trainers.BpeTrainer(vocab_size=700, special_tokens=["<|end|>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), **QUIET))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|end|>")


def unigram(texts):
    "XLM-R's and T5's kind, with a byte fallback."
    trained = Tokenizer(models.Unigram())
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trained.train_from_iterator(texts, trainers.UnigramTrainer(vocab_size=500, special_tokens=["<unk>", "<s>", "</s>"], unk_token="<unk>", **QUIET))
    vocabulary = sorted(trained.get_vocab(), key=trained.get_vocab().get)
    scores = [(piece, -len(vocabulary) / (len(piece) + 1)) for piece in vocabulary]
    tokenizer = Tokenizer(models.Unigram([*scores[:3], *((byte, -999.0) for byte in BYTES), *scores[3:]], unk_id=0, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(), decoders.Fuse()])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<unk>", padding_side="left")


def sentencepiece_bpe(texts):
    "Llama 2's kind: spaces are replaced by the normalizer, unknown characters are spelled in bytes."
    tokenizer = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)])
    words = [word for text in texts for word in text.split()]
    tokenizer.train_from_iterator(words, trainers.BpeTrainer(vocab_size=600, special_tokens=["<unk>", "<s>", "</s>", *BYTES], **QUIET))
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def wordpiece(texts):
    "BERT's kind: it lowers case, strips accents, and has no end-of-text token but [SEP]."
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer, tokenizer.pre_tokenizer, tokenizer.decoder = normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
    tokenizer.train_from_iterator(texts, trainers.WordPieceTrainer(vocab_size=900, special_tokens=special, **QUIET))
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")


KINDS = {kind.__name__: kind for kind in (byte_level, greedy_punctuation, unigram, sentencepiece_bpe, wordpiece)}


@pytest.fixture(scope="module")
def tokenizers(corpus):
    texts = [*corpus["source"], *corpus["target"][::4]]
    return {name: kind(texts) for name, kind in KINDS.items()}


@pytest.fixture(params=KINDS)
def tokenizer(request, tokenizers):
    return tokenizers[request.param]


def row(source, target, **changes):
    return {"instruction": "Translate the following text from English to Chinese.", "input": source, "output": target, "lang": "zh", "source_lang": "en", "target_lang": "zh", **changes}


def encode(rows, tokenizer, **settings):
    return encode_rows(Dataset.from_list(rows), tokenizer, **settings)


def span_ids(encoded, number, prefix=""):
    return [token for token, span in zip(encoded[f"{prefix}input_ids"], encoded[f"{prefix}spans"]) if span == number]


def bare(text):
    return "".join(text.split())


def assert_spans_hold(encoded, sentences, tokenizer):
    "Each span decodes to what its sentence alone is encoded to, white space aside."
    for number, sentence in zip((1, 2), sentences):
        alone = tokenizer(sentence.strip(), add_special_tokens=False, split_special_tokens=True)["input_ids"]
        assert bare(tokenizer.decode(span_ids(encoded, number))) == bare(tokenizer.decode(alone)), (number, sentence)
        marked = np.flatnonzero(np.array(encoded["spans"]) == number)
        assert len(marked) == 0 or marked[-1] - marked[0] + 1 == len(marked)


AWKWARD = [
    " leading", "trailing ", "\n\nnewlines\n\n", "\t tab \r\n", "Yes?", "Yes.\n", "。", "a", "I", "{input}", "### Response:\n", "two\n\nparagraphs",
    "世界人权宣言", "你好。\n\n", "الإعلان العالمي لحقوق الإنسان", "ปฏิญญาสากล", "สวัสดี ", "👩‍👩‍👧‍👦", "🏳️‍🌈 flag", "é e\u0301 ñ", "\u0301mark first",
    "zero\u200bwidth", "\u200fمرحبا\u200f", "full　width　", "ﬁ ligature", "x" * 50, "𝕳𝖊𝖑𝖑𝖔", "nul\x00byte", "½ ％", "한국어", "\ufeffbom", "a\u00a0b",
]


@pytest.mark.parametrize("template", ["alpaca", "plain", "{instruction} <<{input}>> = <<{output}>>"])
def test_spans_of_awkward_sentences(tokenizer, template):
    pairs = [(sentence, AWKWARD[-1 - index]) for index, sentence in enumerate(AWKWARD)]
    if "<<" in template:  # a seam without white space may melt into the sentence; ends that are letters do not
        words = [sentence for sentence in AWKWARD if sentence.isascii() and sentence.strip()[0].isalpha() and sentence.strip()[-1].isalpha()]
        pairs = list(zip(words, reversed(words)))
    for encoded, pair in zip(encode([row(*pair) for pair in pairs], tokenizer, template=template, max_length=4096), pairs):
        assert_spans_hold(encoded, pair, tokenizer)


PIECES = st.sampled_from(["All human beings", "世界", "。", "الإنسان", "สิทธิ", "👩‍👧", "e\u0301", "?", "!", ".", " ", "  ", "\n", "\n\n", "\t", "\u3000", "a", "Z9", "क्षि", "\u200d", "###", ":", "…", "ﬃ"])
SENTENCES = st.one_of(st.lists(PIECES, max_size=8).map("".join), st.text(st.characters(codec="utf-8", exclude_categories=["Co", "Cn"]), max_size=20))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs=st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=10), template=st.sampled_from(["alpaca", "plain"]))
def test_span_decodes_to_the_sentence(tokenizers, pairs, template):
    for tokenizer in tokenizers.values():
        for encoded, pair in zip(encode([row(*pair) for pair in pairs], tokenizer, template=template, max_length=4096), pairs):
            assert_spans_hold(encoded, pair, tokenizer)
            assert len(encoded["input_ids"]) == len(encoded["spans"]) == len(encoded["labels"]) == len(encoded["attention_mask"])


CHATS = {
    "chatml": "{% for m in messages %}<|turn|>{{ m['role'] }}\n{{ m['content'] }}<|stop|>\n{% endfor %}",
    "header": "{{ '<|turn|>' }}{% for m in messages %}<|turn|>{{ m['role'] }}<|stop|>\n\n{{ m['content'] | trim }}<|stop|>{% endfor %}",
    "brackets": "{% for m in messages %}{% if m['role'] == 'user' %}<|turn|>[INST] {{ m['content'].strip() }} [/INST]{% else %} {{ m['content'].strip() }} <|stop|>{% endif %}{% endfor %}",
    "model": "{% for m in messages %}{% set role = 'model' if m['role'] == 'assistant' else m['role'] %}<|turn|>{{ role }}\n{{ m['content'] | trim }}<|stop|>\n{% endfor %}",
    "thinking": "{% for m in messages %}<|turn|>{{ m['role'] }}\n{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m['content'] }}<|stop|>\n{% endfor %}",
}


@pytest.fixture(scope="module")
def chatting(tokenizers):
    "Every kind of tokenizer with every chat template."
    made = {}
    for kind, tokenizer in tokenizers.items():
        for name, template in CHATS.items():
            made[kind, name] = copy.deepcopy(tokenizer)
            made[kind, name].add_special_tokens({"additional_special_tokens": ["<|turn|>", "<|stop|>"]})
            made[kind, name].chat_template = template
    return made


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pairs=st.lists(st.tuples(SENTENCES, SENTENCES), min_size=1, max_size=4), name=st.sampled_from([*CHATS]), train_on=st.sampled_from(["all", "completion"]))
def test_a_chat_is_what_the_tokenizer_makes_of_it(chatting, pairs, name, train_on):
    for (kind, chat), tokenizer in chatting.items():
        if chat != name:
            continue
        rows = [row(*pair) for pair in pairs]
        for encoded, pair, one in zip(encode(rows, tokenizer, template="chat", max_length=4096, train_on=train_on), pairs, rows):
            assert_spans_hold(encoded, pair, tokenizer)
            if pair[0].strip():
                messages = [{"role": "user", "content": f"{one['instruction']}\n{pair[0].strip()}"}, {"role": "assistant", "content": pair[1].strip()}]
                assert encoded["input_ids"] == tokenizer.apply_chat_template(messages)["input_ids"]


@pytest.mark.parametrize("name", CHATS)
def test_the_answer_of_a_chat_is_its_completion(chatting, name):
    for (_, chat), tokenizer in chatting.items():
        if chat == name:
            encoded = encode([row("One", "two three")], tokenizer, template="chat", train_on="completion")[0]
            labels = [label for label in encoded["labels"] if label != -100]
            assert bare(tokenizer.decode(labels, skip_special_tokens=True)) == "twothree"
            assert tokenizer.convert_tokens_to_ids("<|stop|>") in labels[-3:], "the token that ends the answer must be learnt"


def test_special_tokens_written_in_a_chat_are_text(chatting):
    for tokenizer in chatting.values():
        turn = tokenizer.convert_tokens_to_ids("<|turn|>")
        pairs = [("One", "Two"), ("a <|turn|> b", "<|stop|>"), ("<|turn|>", "Two <|turn|>")]
        encoded = encode([row(*pair) for pair in pairs], tokenizer, template="chat")
        assert len({one["input_ids"].count(turn) for one in encoded}) == 1
        for one, pair in zip(encoded, pairs):
            assert_spans_hold(one, pair, tokenizer)


def test_chats_have_twins(chatting):
    for tokenizer in chatting.values():
        general = {"instruction": "Name a colour.", "input": "", "output": "Blue", "lang": "en", "source_lang": None, "target_lang": None}
        both = encode([row("One", "Two"), general], tokenizer, template="chat", mirror=True)
        assert both["mirror_input_ids"][0] == encode([mirror_row(row("One", "Two"))], tokenizer, template="chat")["input_ids"][0]
        assert len(both["mirror_input_ids"][1]) == 1


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (None, "has no chat template"),
        ("{% for m in messages %}{{ m['content'] | upper }}{% endfor %}", "question and answer once each"),
        ("{% for m in messages %}{{ m['content'] | replace('Say', 'Tell') }}\n{% endfor %}", "rewrites texts such as 'Say it'"),
        ("{% for m in messages %}{{ m['content'] }}{{ m['content'] }}{% endfor %}", "once each"),
        ("{{ raise_exception('A system message is needed') }}", "A system message is needed"),
    ],
)
def test_chat_templates_that_cannot_be_used(tokenizers, template, message):
    tokenizer = copy.deepcopy(tokenizers["byte_level"])
    tokenizer.chat_template = template
    with pytest.raises(UsageError, match=message):
        encode([row("One", "Two")], tokenizer, template="chat")


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(pair=st.tuples(SENTENCES, SENTENCES), template=st.sampled_from(["alpaca", "plain", "{instruction} <<{input}>> = <<{output}>>", "{input}{output}{instruction}"]))
def test_two_questions_find_what_all_positions_find(tokenizers, pair, template):
    for tokenizer in tokenizers.values():
        one = render(row(*pair), template)
        encoding = tokenizer(one.text, split_special_tokens=True).encodings[0]
        assert row_marks(encoding, one) == all_marks(np.array(encoding.offsets).reshape(-1, 2), encoding.tokens, one)


EDGES = ["", " ", "\n", "\u200b", "\u200d", "\u200f", "\u202e", "\ufeff", "\u0301", "\u0e31", "\ufe0f", ".", "。", "؟", "?\n", "»", "🏽", "🇰🇪", "\u00ad", "\u2028", "\x1f"]
MIDDLES = ["word", "世界", "עולם", "مرحبا", "กำ", "কি", "नमस्ते", "e\u0301\u0323", "👩\u200d👩\u200d👧\u200d👦", "🏴󠁧󠁢󠁳󠁣󠁴󠁿", "한", "ﷺ", "ß", "İ", "1️⃣"]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.sampled_from(EDGES), st.sampled_from(MIDDLES), st.sampled_from(EDGES)).map("".join), min_size=2, max_size=6), st.sampled_from(["alpaca", "plain"]))
def test_edges_of_every_kind(tokenizers, sentences, template):
    pairs = list(zip(sentences, sentences[1:]))
    for tokenizer in tokenizers.values():
        for encoded, pair in zip(encode([row(*pair) for pair in pairs], tokenizer, template=template, max_length=4096), pairs):
            assert_spans_hold(encoded, pair, tokenizer)


def test_truncation_policies(tokenizer, caplog):
    rows = [row("One", "Two"), row("One " * 60, "two " * 60), row("Three", "four")]
    length = max(len(one["input_ids"]) for one in encode([rows[0], rows[2]], tokenizer))
    cut, dropped = (encode(rows, tokenizer, max_length=length, truncation=policy) for policy in ("target_end", "drop"))
    assert [count > 0 for count in cut["truncated"]] == [False, True, False] and dropped[:] == cut.select([0, 2])[:]
    assert "1 of 3 rows are longer" in caplog.text and "left out" in caplog.text
    with pytest.raises(InputError, match=f"row 1: {cut['truncated'][1]} tokens more than max_length {length}"):
        encode(rows, tokenizer, max_length=length, truncation="raise")
    with pytest.raises(UsageError, match="did you mean 'drop'"):
        encode(rows, tokenizer, truncation="dropp")
    assert list(encode_rows(Dataset.from_list(rows).to_iterable_dataset(), tokenizer, max_length=length, truncation="drop")) == list(dropped)


def test_many_processes_give_the_same_rows(tokenizers, corpus):
    rows = translation_instructions(corpus)
    one, two = (encode_rows(rows, tokenizers["unigram"], mirror=True, num_proc=count) for count in (None, 2))
    assert one.features == two.features and one[:] == two[:]


@pytest.mark.parametrize("asked_in", ["source", "target"])
def test_requests_in_other_languages_keep_the_spans(tokenizers, corpus, asked_in):
    rows = translation_instructions(corpus, request_language=asked_in)
    assert {one for one in rows["instruction"] if re.search("[一-龥]", one)} or asked_in == "source"
    for tokenizer in tokenizers.values():
        for encoded, pair in zip(encode_rows(rows, tokenizer, max_length=8192), corpus):
            assert_spans_hold(encoded, (pair["source"], pair["target"]), tokenizer)


def test_a_punctuation_mark_that_swallows_the_seam_belongs_to_the_sentence(tokenizers):
    tokenizer = tokenizers["greedy_punctuation"]
    assert "?ĊĊ" in tokenizer.tokenize("Yes?\n\n### R")
    encoded = encode([row("Yes?", "no。")], tokenizer)[0]
    assert tokenizer.decode(span_ids(encoded, 1)) == "Yes?\n\n"
    assert tokenizer.decode(span_ids(encoded, 2)) == "no。"


def test_a_run_of_unknown_characters_ends_where_the_sentence_ends(tokenizers):
    tokenizer = tokenizers["unigram"]
    text = "x 𐍈\n\n###"
    offsets = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]
    assert any(start < 3 < end for start, end in offsets), "the run no longer crosses the seam; this test then tests nothing"
    encoded = encode([row("𐍈", "𐍈")], tokenizer)[0]
    assert tokenizer.convert_ids_to_tokens(span_ids(encoded, 1)) == ["<0xF0>", "<0x90>", "<0x8D>", "<0x88>"]


def test_split_byte_runs_leaves_runs_that_were_rewritten():
    offsets = np.array([(0, 1), (1, 4), (1, 4), (4, 5)])
    assert split_byte_runs(offsets, ["a", "<0x41>", "<0x42>", "b"]).tolist() == offsets.tolist()
    assert split_byte_runs(np.array([(1, 3), (1, 3)]), ["<0x41>", "<0x42>"]).tolist() == [[1, 2], [2, 3]]


def test_find_span_majority_and_tie():
    text = "abcdef"
    assert find_span(np.array([(0, 4), (4, 6)]), (2, 6), text) == (0, 2)  # two of four characters: a tie goes to the sentence
    assert find_span(np.array([(0, 4), (4, 6)]), (3, 6), text) == (1, 2)
    assert find_span(np.array([(0, 0), (0, 6)]), (5, 6), text) is None
    assert find_span(np.array([(0, 2), (2, 2), (2, 4)]), (0, 4), text) == (0, 3)
    assert find_span(np.empty((0, 2), dtype=int), (0, 4), text) is None


def test_one_token_target_and_empty_source(tokenizer):
    encoded = encode([row("A long enough source.", "a"), row("", "target"), row("  \n", "target"), row("source", "")], tokenizer)
    assert len(span_ids(encoded[0], 2)) == 1
    for index, (source, target) in enumerate([(True, True), (False, True), (False, True), (True, False)]):
        assert (1 in encoded[index]["spans"], 2 in encoded[index]["spans"]) == (source, target)
        assert any(label != -100 for label in encoded[index]["labels"])


def test_general_rows_have_no_span_and_no_language(tokenizer):
    encoded = encode([{"instruction": "Name a colour.", "input": "", "output": "Blue", "lang": "en", "source_lang": None, "target_lang": None}], tokenizer)[0]
    assert set(encoded["spans"]) == {0} and encoded["source_lang"] == encoded["target_lang"] == -1


def test_ends_once(tokenizers):
    for name, tokenizer in tokenizers.items():
        ids = encode([row("One", "Two")], tokenizer)[0]["input_ids"]
        end = tokenizer.sep_token_id if name == "wordpiece" else tokenizer.eos_token_id
        assert ids[-1] == end and ids.count(end) == 1
        assert ids.count(tokenizer.bos_token_id) == (tokenizer.bos_token is not None and ids[0] == tokenizer.bos_token_id)


def test_special_tokens_written_in_a_text_are_text(tokenizers):
    tokenizer = tokenizers["sentencepiece_bpe"]
    ids = encode([row("stop </s> here", "x")], tokenizer)[0]["input_ids"]
    assert ids.count(tokenizer.eos_token_id) == 1
    assert tokenizer("</s>", add_special_tokens=False)["input_ids"] == [tokenizer.eos_token_id], "the tokenizer itself must not be changed"


def test_labels(tokenizers):
    for tokenizer in tokenizers.values():
        everything = encode([row("One", "two three")], tokenizer)[0]
        assert everything["labels"] == [-100] + everything["input_ids"][1:], "nothing comes before the first token to predict it from"
        answer = encode([row("One", "two three")], tokenizer, train_on="completion")[0]
        trained = [label for label in answer["labels"] if label != -100]
        assert bare(tokenizer.decode(trained, skip_special_tokens=True)) == "twothree"
        assert trained[-1] == everything["input_ids"][-1] and len(trained) == len(span_ids(answer, 2)) + 1
        assert answer["spans"] == everything["spans"] and answer["input_ids"] == everything["input_ids"]


def test_truncation_is_counted_and_cut_sentences_lose_their_span(tokenizers, caplog):
    tokenizer = tokenizers["byte_level"]
    whole = encode([row("One two three", "four five six")], tokenizer)[0]
    length = len(whole["input_ids"])
    target_end = max(index for index, span in enumerate(whole["spans"]) if span == 2) + 1
    source_end = max(index for index, span in enumerate(whole["spans"]) if span == 1) + 1
    expected = {length: (True, True, 0), target_end: (True, True, length - target_end), target_end - 1: (True, False, length - target_end + 1), source_end - 1: (False, False, length - source_end + 1), 1: (False, False, length - 1)}
    for max_length, (source, target, cut) in expected.items():
        with caplog.at_level(logging.WARNING):
            caplog.clear()
            encoded = encode([row("One two three", "four five six")], tokenizer, max_length=max_length)
        one = encoded[0]
        assert (1 in one["spans"], 2 in one["spans"], one["truncated"]) == (source, target, cut)
        assert one["input_ids"] == whole["input_ids"][:max_length] and len(one["labels"]) == len(one["spans"]) == max_length
        assert bool(caplog.records) == bool(cut)
        report = encoding_report(encoded)
        assert report["rows cut"] == bool(cut) and report["tokens cut"] == cut and report["translations without a target span"] == (not target)


def test_mirror_is_the_encoded_mirror_row(tokenizer, corpus):
    rows = translation_instructions(corpus.select(range(12)))
    both = encode_rows(rows, tokenizer, mirror=True, train_on="completion")
    alone = encode([mirror_row(one) for one in rows], tokenizer, train_on="completion")
    for name in ("input_ids", "attention_mask", "labels", "spans", "source_lang", "target_lang"):
        assert both[f"mirror_{name}"] == alone[name]
    assert both["source_lang"] == alone["target_lang"] == [language_id("en")] * 12


@pytest.mark.parametrize("mirror", [False, True])
@pytest.mark.parametrize("share", [0, 0.25, 1])
def test_keep_labels_silences_exactly_the_other_translations(tokenizer, corpus, share, mirror):
    general = {"instruction": "Name a colour.", "input": "", "output": "Blue", "lang": "en", "source_lang": None, "target_lang": None}
    rows = Dataset.from_list([*translation_instructions(corpus.select(range(12))), general, general])
    whole = encode_rows(rows, tokenizer, mirror=mirror)
    kept = keep_labels(whole, share, seed=3)
    speaking = [any(label != -100 for label in labels) for labels in kept["labels"]]
    assert sum(speaking[:12]) == 12 * share and all(speaking[12:])
    assert all(labels == whole["labels"][i] for i, labels in enumerate(kept["labels"]) if speaking[i])
    if mirror:
        assert [any(label != -100 for label in labels) for labels in kept["mirror_labels"]][:12] == speaking[:12]
    unchanged = [name for name in whole.column_names if "labels" not in name]
    assert kept.features == whole.features and kept.select_columns(unchanged)[:] == whole.select_columns(unchanged)[:]
    assert kept[:] == keep_labels(whole, share, seed=3)[:]


def test_keep_labels_refuses_a_share_that_is_none(tokenizer, corpus):
    with pytest.raises(UsageError, match="between 0 and 1"):
        keep_labels(encode_rows(translation_instructions(corpus.select(range(2))), tokenizer), 1.5)


def test_mirror_of_mixed_rows(tokenizer):
    general = {"instruction": "Name a colour.", "input": "", "output": "Blue", "lang": "en", "source_lang": None, "target_lang": None}
    encoded = encode([general, row("One", "Two"), general], tokenizer, mirror=True)
    batch = AlignmentCollator(tokenizer)([encoded[index] for index in range(3)])
    assert batch["input_ids"].shape[0] == 6
    assert batch["attention_mask"].sum(1).tolist()[1::4] == [1, 1]
    for filler in (1, 5):
        assert (batch["labels"][filler] == -100).all() and (batch["spans"][filler] == 0).all()
    assert batch["source_lang"].tolist() == [-1, -1, language_id("en"), language_id("zh"), -1, -1]


def test_streaming_gives_the_same_rows(tokenizer, corpus):
    rows = translation_instructions(corpus.select(range(5)))
    stream = translation_instructions(corpus.select(range(5)).to_iterable_dataset())
    assert list(encode_rows(stream, tokenizer, mirror=True)) == list(encode_rows(rows, tokenizer, mirror=True))


def test_collator_pads_alike_on_both_sides(tokenizer, corpus):
    encoded = encode_rows(translation_instructions(corpus.select(range(4))), tokenizer)
    rows = [encoded[index] for index in range(4)]
    right, left = (AlignmentCollator(tokenizer, padding_side=side, pad_to_multiple_of=8)(rows) for side in ("right", "left"))
    assert right["input_ids"].shape[1] % 8 == 0
    for name in ("input_ids", "labels", "spans"):
        for batch in (right, left):
            assert batch[name].dtype == torch.long
            for index, one in enumerate(rows):
                assert batch[name][index][batch["attention_mask"][index].bool()].tolist() == one[name]
    assert (right["labels"][right["attention_mask"] == 0] == -100).all() and (left["spans"][left["attention_mask"] == 0] == 0).all()
    assert right["attention_mask"][:, 0].all() and left["attention_mask"][:, -1].all()


def test_padding_side_does_not_change_a_model(tokenizers, corpus):
    tokenizer = tokenizers["unigram"]
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, max_position_embeddings=1024)
    model = LlamaForCausalLM(config).double().eval()
    rows = list(encode_rows(translation_instructions(corpus.select(range(8, 11))), tokenizer, template="plain"))
    assert len({len(one["input_ids"]) for one in rows}) > 1, "rows of one length need no padding"
    results = []
    for side in ("right", "left"):
        batch = AlignmentCollator(tokenizer, padding_side=side)(rows)
        with torch.no_grad():
            output = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], labels=batch["labels"], output_hidden_states=True)
        source = (batch["spans"] == 1).unsqueeze(-1)
        results.append((output.loss, (output.hidden_states[1] * source).sum(1)))
    for right, left in zip(*results):  # rotary tables are float32, so positions that differ by a shift agree to about 1e-6
        assert torch.allclose(right, left, atol=1e-5)


def test_collator_takes_what_there_is_and_leaves_the_tokenizer_alone(tokenizers):
    tokenizer = tokenizers["byte_level"]
    batch = AlignmentCollator(tokenizer)([{"input_ids": [1, 2], "attention_mask": [1, 1], "labels": [1, 2]}, {"input_ids": [1], "attention_mask": [1], "labels": [1]}])
    assert set(batch) == {"input_ids", "attention_mask", "labels"} and tokenizer.pad_token is None


@pytest.mark.parametrize("kind", KINDS)
def test_every_corpus_row_keeps_both_sentences(kind, tokenizers, corpus):
    tokenizer = tokenizers[kind]
    for encoded, pair in zip(encode_rows(translation_instructions(corpus), tokenizer, max_length=8192), corpus):
        assert_spans_hold(encoded, (pair["source"], pair["target"]), tokenizer)


def test_bad_input(tokenizers, corpus):
    tokenizer = tokenizers["byte_level"]
    with pytest.raises(InputError, match="row 0.*translation_instructions"):
        encode_rows(corpus, tokenizer)
    with pytest.raises(InputError, match="row 1, field 'output'"):
        encode([row("a", "b"), row("a", None)], tokenizer)
    with pytest.raises(UsageError, match="completion"):
        encode([row("a", "b")], tokenizer, train_on="complete")
    with pytest.raises(UsageError, match="at least 1"):
        encode([row("a", "b")], tokenizer, max_length=0)


def test_preview_is_escaped_and_agrees_with_the_spans(tokenizer):
    painted = preview([row("<b>世界</b> & 👩‍👧", "plain")], tokenizer, mirror=True, train_on="completion", template="plain")
    assert len(painted.rows) == 2
    html = painted._repr_html_()
    assert "<b>" not in html and "undefined" not in html
    encoded = encode([row("<b>世界</b> & 👩‍👧", "plain")], tokenizer, template="plain")[0]
    assert [token.span for token in painted.rows[0]] == encoded["spans"]
    assert "".join(token.text for token in painted.rows[0]) == tokenizer.decode(encoded["input_ids"], clean_up_tokenization_spaces=False)
    assert "source" in str(painted)


def test_preview_is_coloured_in_terminals_only(tokenizers, monkeypatch):
    painted = preview([row("One", "Two")], tokenizers["byte_level"], template="plain", train_on="completion")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert "\033[" not in str(painted) and "⟦source⟧One⟦template⟧" in str(painted) and "⟦target, loss⟧Two" in str(painted)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert "\033[" in str(painted) and "⟦" not in str(painted)
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\033[" not in str(painted)
