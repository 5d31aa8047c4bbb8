"""Build what the package carries: the parallel corpus, the instructions, the tokenizer and the language model.

    python tools/build_demo_assets.py --corpora DIR            # everything, about an hour on two cores
    python tools/build_demo_assets.py --corpora DIR corpus     # one step: corpus, tokenizer, text, model, measure, install

DIR holds multi-way tuples, `{"id", "domain", "text": {language: sentence}}`, one JSON a line:

    udhr.jsonl.gz  cldr.jsonl.gz  demo_instruct.jsonl              go into the package
    libreoffice.jsonl.gz  lo_ui.jsonl.gz  manuals.jsonl.gz
    ddtp.jsonl.gz  story.jsonl.gz  transfer.jsonl.gz               are read by the model in training, and not shipped

nbs/studies/01_embedded_model.ipynb names the public packages that each of them comes from. The work folder (`--work`)
keeps the packed text and the checkpoints: run the command again after an interruption and training goes on.
"""
import argparse
import gzip
import hashlib
import json
import math
import os
import random
import shutil
import sys
from collections import Counter, defaultdict
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
ASSETS = ROOT / "alignx" / "assets"
LANGUAGES = ("en", "zh", "es", "fr", "de", "ru", "ja", "ar", "bn", "sw", "th", "tr")
SPECIAL = ["<s>", "</s>", "<unk>", "<pad>"]
SEED = 20260
TEST_TUPLES, VALIDATION_TUPLES = 330, 110
TEST_ARTICLES, VALIDATION_ARTICLES = 10, 5


# ---------------------------------------------------------------------------------------------- files
def read_lines(path: Path):
    "The JSON objects of a .jsonl or .jsonl.gz file."
    opener = gzip.open if path.suffix == ".gz" else open
    with opener(path, "rt", encoding="utf-8") as file:
        for line in file:
            yield json.loads(line)


def write_lines(path: Path, rows) -> None:
    "Gzip without a time stamp, so that the same rows make the same bytes; the file appears whole or not at all."
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    with open(partial, "wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", compresslevel=9, mtime=0, filename="") as file:
        for row in rows:
            file.write((json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n").encode())
    os.replace(partial, path)


def write_json(path: Path, value) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(value, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def folded(text: str) -> str:
    "The form in which two sentences count as the same one."
    return " ".join(text.casefold().split())


def bucket(name: str, buckets: int) -> int:
    "A stable number below `buckets` for a name: the same on every machine."
    return int.from_bytes(hashlib.sha256(f"{SEED}:{name}".encode()).digest()[:8], "big") % buckets


# ---------------------------------------------------------------------------------------------- corpus
def groups_of_shared_sentences(rows: list[dict]) -> list[int]:
    "For each tuple the number of its group; tuples that share a sentence in any language are in one group."
    parent = list(range(len(rows)))

    def root(i):
        while parent[i] != i:
            parent[i] = parent[parent[i]]
            i = parent[i]
        return i

    first = {}
    for i, row in enumerate(rows):
        for text in row["text"].values():
            other = first.setdefault(folded(text), i)
            parent[root(i)] = root(other)
    return [root(i) for i in range(len(rows))]


def build_corpus(corpora: Path) -> None:
    """UDHR and CLDR with a fixed split by tuple, and the instructions.

    Test and validation tuples have a sentence in each of the twelve languages, share no sentence in any language with
    a training tuple, and occur in no instruction, so that whoever trains on `train` and on the instructions has seen
    none of their sentences.
    """
    rows = [row for name in ("udhr", "cldr") for row in read_lines(corpora / f"{name}.jsonl.gz")]
    instructions = list(read_lines(corpora / "demo_instruct.jsonl"))
    group = groups_of_shared_sentences(rows)
    taught = {folded(row[field]) for row in instructions for field in ("input", "output")}
    size = Counter(group)
    free = defaultdict(lambda: True)
    for row, g in zip(rows, group):
        complete = all(language in row["text"] for language in LANGUAGES)
        different = len({folded(row["text"][l]) for l in LANGUAGES if l in row["text"]}) > len(LANGUAGES) // 2
        if not complete or not different or any(folded(t) in taught for t in row["text"].values()):
            free[g] = False
    candidates = sorted((i for i, g in enumerate(group) if size[g] == 1 and free[g]), key=lambda i: bucket(rows[i]["id"], 1 << 60))
    law = [i for i in candidates if rows[i]["domain"] == "law"]
    rest = [i for i in candidates if rows[i]["domain"] != "law"]
    split = ["train"] * len(rows)
    for pool, tests, validations in ((law, TEST_ARTICLES, VALIDATION_ARTICLES), (rest, TEST_TUPLES, VALIDATION_TUPLES)):
        for i in pool[:tests]:
            split[i] = "test"
        for i in pool[tests : tests + validations]:
            split[i] = "validation"
    out = [{"id": r["id"], "domain": r["domain"], "split": s, "text": r["text"]} for r, s in zip(rows, split)]
    write_lines(ASSETS / "corpus.jsonl.gz", out)
    write_lines(ASSETS / "instructions.jsonl.gz", instructions)
    print("corpus:", dict(Counter(split)), {s: dict(Counter(r["domain"] for r in out if r["split"] == s)) for s in ("test", "validation")})
    print(f"corpus.jsonl.gz {(ASSETS / 'corpus.jsonl.gz').stat().st_size / 1e6:.2f} MB, instructions.jsonl.gz {(ASSETS / 'instructions.jsonl.gz').stat().st_size / 1e3:.0f} kB")


# ---------------------------------------------------------------------------------------------- text
READ_IN_TRAINING = ("libreoffice", "lo_ui", "manuals", "ddtp", "story")
HELD_OUT_PERCENT = 2
CORPUS_WEIGHT = {"cldr": 0.30, "udhr": 0.04, "facts": 0.05}
ENGLISH_WEIGHT = {"cldr": 0.06, "udhr": 0.01, "facts": 0.01}
PAIR_FORMS = ("{a}\n{b}", "{a} = {b}", "{A}: {a}\n{B}: {b}")


def document_of(corpus: str, row: dict) -> str:
    "The document that a tuple comes from; sentences of one document are shown to the model together."
    name = row["id"]
    if corpus == "libreoffice":
        return name.split("#")[0]
    if corpus == "lo_ui":
        return name.split("|")[0]
    if corpus == "ddtp":
        return name.rsplit(".", 1)[0]
    if corpus == "story":
        head, number = name.rsplit(".", 1)
        return f"{head}.{int(number) // 8}"
    if corpus == "cldr":
        return row["domain"]
    return name.rsplit(".", 1)[0]


def read_tuples(corpora: Path) -> tuple[list, list]:
    """Tuples `(corpus, document, {language: sentence})` to train on, and those held out.

    Held out are the embedded corpus's validation and test tuples and 2 % of the other corpora's documents. A sentence
    that is held out is removed from the training tuples wherever else it stands.
    """
    train, held_out = [], []
    for row in read_lines(ASSETS / "corpus.jsonl.gz"):
        corpus = "udhr" if row["domain"] == "law" else "cldr"
        item = (corpus, document_of(corpus, row), {l: row["text"][l] for l in LANGUAGES if l in row["text"]})
        (train if row["split"] == "train" else held_out).append(item)
    for corpus in READ_IN_TRAINING:
        for row in read_lines(corpora / f"{corpus}.jsonl.gz"):
            document = document_of(corpus, row)
            text = {l: " ".join(row["text"][l].split()) for l in LANGUAGES if l in row["text"]}
            (held_out if bucket(document, 100) < HELD_OUT_PERCENT else train).append((corpus, document, text))
    facts = defaultdict(dict)
    for row in read_lines(corpora / "transfer.jsonl.gz"):
        if row["split"] == "train" and row["lang"] in LANGUAGES:
            facts[row["fact"]][row["lang"]] = f"{row['instruction']}\n{row['input']}\n{row['output']}"
    never = {folded(t) for _, _, text in held_out for t in text.values()}
    for fact, text in facts.items():
        clean = {l: t for l, t in text.items() if not any(folded(part) in never for part in t.split("\n"))}
        train.append(("facts", fact.split(".")[0], clean))
    kept = []
    for corpus, document, text in train:
        text = {l: t for l, t in text.items() if folded(t) not in never}
        if text:
            kept.append((corpus, document, text))
    return kept, held_out


def documents(tuples: list, language: str, chance: random.Random) -> dict:
    "Per corpus the documents of one language: 1 to 12 consecutive sentences, or a shuffled list where order means nothing."
    by_document = defaultdict(list)
    for corpus, document, text in tuples:
        if language in text:
            by_document[corpus, document].append(text[language])
    out = defaultdict(list)
    for (corpus, _), sentences in by_document.items():
        if corpus in ("cldr", "facts", "lo_ui"):
            chance.shuffle(sentences)
        start = 0
        while start < len(sentences):
            size = chance.choice((1, 2, 4, 8, 12))
            out[corpus].append("\n".join(sentences[start : start + size]))
            start += size
    for corpus in out:
        chance.shuffle(out[corpus])
    return out


def pair_documents(tuples: list, source: str, target: str, chance: random.Random) -> dict:
    "Per corpus the documents that hold sentences of one language with their translations into another."
    names = {"en": "English", "zh": "Chinese", "es": "Spanish", "fr": "French", "de": "German", "ru": "Russian", "ja": "Japanese",
             "ar": "Arabic", "bn": "Bengali", "sw": "Swahili", "th": "Thai", "tr": "Turkish"}  # fmt: skip
    pairs = defaultdict(list)
    for corpus, _, text in tuples:
        if corpus != "facts" and source in text and target in text and len(text[source]) + len(text[target]) < 300:
            pairs[corpus].append((text[source], text[target]))
    out = defaultdict(list)
    for corpus, items in pairs.items():
        chance.shuffle(items)
        start = 0
        while start < len(items):
            size, form = chance.choice((1, 2, 4, 8)), chance.choice(PAIR_FORMS)
            out[corpus].append("\n".join(form.format(a=a, b=b, A=names[source], B=names[target]) for a, b in items[start : start + size]))
            start += size
    return out


def list_documents(tuples: list, chance: random.Random) -> dict:
    "Documents that say the same in several languages, one after the other, in a new order each time; short tuples only."
    out = []
    for corpus, _, text in tuples:
        if corpus == "cldr" and len(text) > 3:
            chosen = chance.sample(sorted(text), chance.randint(4, len(text)))
            out.append(chance.choice((" = ", "\n", " / ")).join(text[language] for language in chosen))
    chance.shuffle(out)
    return {"cldr": out}


class Stream:
    "An endless stream of documents that draws its corpora by weight and starts over, newly cut, when one is used up."

    def __init__(self, make, weights, chance):
        self.make, self.chance = make, chance
        self.queues = {corpus: list(queue) for corpus, queue in make().items()}
        size = {corpus: sum(map(len, queue)) for corpus, queue in self.queues.items()}
        free = math.fsum(math.sqrt(n) for corpus, n in size.items() if corpus not in weights)
        fixed = math.fsum(w for corpus, w in weights.items() if corpus in size)
        self.weight = {c: weights[c] if c in weights else max(1 - fixed, 0.05) * math.sqrt(n) / free for c, n in size.items()}
        self.rounds = Counter()

    def __iter__(self):
        corpora = list(self.queues)
        while True:
            corpus = self.chance.choices(corpora, [self.weight[c] / self.mean_length(c) for c in corpora])[0]
            if not self.queues[corpus]:
                self.rounds[corpus] += 1
                self.queues[corpus] = list(self.make()[corpus])
            yield self.queues[corpus].pop()

    def mean_length(self, corpus):
        if not hasattr(self, "_mean"):
            self._mean = {c: sum(map(len, q)) / len(q) for c, q in self.queues.items()}
        return self._mean[corpus]


# ---------------------------------------------------------------------------------------------- tokenizer
VOCABULARY = 8_000
ALPHABET_COVERAGE = {"zh": 0.97, "ja": 0.97}
ENGLISH_PART = 3


def tokenizer_text(tuples: list, chance: random.Random, characters: int = 600_000) -> list[str]:
    """The same amount of text of each language as far as there is, and of English three times as much.

    Characters so rare that they are better left to the byte fallback are cut out.
    """
    chosen, kept = [], set()
    for language in LANGUAGES:
        pool = [text[language] for corpus, _, text in tuples if language in text and corpus != "facts"]
        chance.shuffle(pool)
        taken, total = [], 0
        for sentence in pool:
            if total > characters * (ENGLISH_PART if language == "en" else 1) // (3 if language in ("zh", "ja") else 1):
                break
            taken.append(sentence)
            total += len(sentence)
        counts = Counter("".join(taken))
        reached = 0
        for character, n in counts.most_common():
            if reached > ALPHABET_COVERAGE.get(language, 0.9985) * sum(counts.values()):
                break
            kept.add(character)
            reached += n
        chosen += taken
    return ["".join(c if c in kept else "\n" for c in sentence) for sentence in chosen]


def build_tokenizer(corpora: Path, work: Path):
    """A Unigram tokenizer with byte fallback: no text is unknown to it, and none is normalised.

    A line break is a token of its own, so a sentence is cut in the same way alone and inside a row.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
    from transformers import PreTrainedTokenizerFast

    chance = random.Random(SEED)
    train, _ = read_tuples(corpora)
    lines = [line for sentence in tokenizer_text(train, chance) for line in sentence.split("\n") if line.strip()]
    learner = Tokenizer(models.Unigram())
    before = pre_tokenizers.Sequence([pre_tokenizers.Metaspace(prepend_scheme="always"), pre_tokenizers.Digits(individual_digits=True)])
    learner.pre_tokenizer = before
    size = VOCABULARY - len(SPECIAL) - 256 - 1
    learner.train_from_iterator(lines, trainers.UnigramTrainer(vocab_size=size, special_tokens=["<unk>"], unk_token="<unk>", max_piece_length=12, show_progress=False))
    pieces = [(p, s) for p, s in json.loads(learner.to_str())["model"]["vocab"] if p != "<unk>"]
    lowest = min(score for _, score in pieces)
    vocabulary = [(name, 0.0) for name in SPECIAL] + [(f"<0x{byte:02X}>", lowest - 5) for byte in range(256)] + pieces
    tokenizer = Tokenizer(models.Unigram(vocabulary, unk_id=SPECIAL.index("<unk>"), byte_fallback=True))
    tokenizer.pre_tokenizer = before
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    tokenizer.add_tokens([AddedToken("\n", normalized=False)])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Replace("\n ", "\n"), decoders.Replace(Regex("^ "), "")]
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>",
        model_max_length=512, padding_side="right", clean_up_tokenization_spaces=False,
    )  # fmt: skip
    (work / "model").mkdir(parents=True, exist_ok=True)
    fast.save_pretrained(work / "model")
    print(f"tokenizer: {len(fast)} pieces, {os.path.getsize(work / 'model' / 'tokenizer.json') / 1e3:.0f} kB")
    for language in LANGUAGES:
        text = " ".join(t[language] for c, _, t in train[:400] if language in t)
        print(f"  {language}: {len(text.split())} words, {len(text)} characters, {len(fast(text)['input_ids'])} tokens")
    return fast


# ---------------------------------------------------------------------------------------------- rows
ROW = 128
PAIR_SHARE = 0.05
LIST_SHARE = 0.095
ENGLISH_SHARE = 0.50
LOW_RESOURCE_POWER = 0.2


def row_plan(tuples: list, rows: int) -> dict:
    """How many rows of each kind: `(language,)` for text in one language, `(source, target)` for translations.

    14.5 % of the rows hold translations: 5 % sentence pairs with English on one side, 9.5 % (`LANGUAGES`) lists of names
    in many languages, as an encyclopaedia has them. 50 % hold English alone; the rest is shared by the other languages
    in proportion to the 0.2th power of what there is of them.
    """
    size = Counter()
    for _, _, text in tuples:
        for language, sentence in text.items():
            size[language] += len(sentence)
    others = [l for l in LANGUAGES if l != "en"]
    power = {l: size[l] ** LOW_RESOURCE_POWER for l in others}
    total = sum(power.values())
    plan = {("en",): round(rows * ENGLISH_SHARE), LANGUAGES: round(rows * LIST_SHARE)}
    for language in others:
        share = power[language] / total
        plan[(language,)] = round(rows * (1 - PAIR_SHARE - LIST_SHARE - ENGLISH_SHARE) * share)
        for pair in (("en", language), (language, "en")):
            plan[pair] = round(rows * PAIR_SHARE / 2 * share)
    return plan


def pack(stream, tokenizer, rows: int) -> np.ndarray:
    "Documents one after the other, each with its beginning and end, cut into `rows` rows of 128 tokens."
    ids, batch = [], []
    documents = iter(stream)
    while len(ids) < rows * ROW:
        batch = [next(documents) for _ in range(256)]
        for encoded in tokenizer(batch)["input_ids"]:
            ids += encoded + [tokenizer.eos_token_id]
    return np.array(ids[: rows * ROW], dtype=np.uint16).reshape(rows, ROW)


def build_text(corpora: Path, work: Path, rows: int) -> None:
    "Pack the training rows, shuffled, and write down what they are made of."
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work / "model")
    tokenizer.model_max_length = int(1e9)
    tuples, _ = read_tuples(corpora)
    packed, made_of = [], []
    for kind, count in row_plan(tuples, rows).items():
        chance = random.Random(f"{SEED}{kind}")
        make = documents if len(kind) == 1 else pair_documents
        weights = ENGLISH_WEIGHT if kind == ("en",) else CORPUS_WEIGHT
        if kind == LANGUAGES:
            stream = Stream(lambda: list_documents(tuples, chance), {}, chance)
        else:
            stream = Stream(lambda: make(tuples, *kind, chance), weights, chance)
        packed.append(pack(stream, tokenizer, count))
        made_of.append({"languages": list(kind), "rows": count, "times_through": dict(stream.rounds)})
        print(made_of[-1], flush=True)
    order = np.random.default_rng(SEED).permutation(sum(map(len, packed)))
    partial = work / "rows.partial.npy"
    np.save(partial, np.concatenate(packed)[order])
    os.replace(partial, work / "rows.npy")
    write_json(work / "rows.json", made_of)


# ---------------------------------------------------------------------------------------------- model
SHAPE = dict(hidden_size=160, num_hidden_layers=6, intermediate_size=432, num_attention_heads=4, num_key_value_heads=4)
BATCH = 32
STEPS = 5_000


def train_model(work: Path, steps: int = STEPS) -> None:
    "Train on packed rows, none of them twice; goes on from the last checkpoint if there is one."
    import torch
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments, set_seed
    from transformers.trainer_utils import get_last_checkpoint

    set_seed(SEED)
    tokenizer = AutoTokenizer.from_pretrained(work / "model")
    rows = np.load(work / "rows.npy")
    config = LlamaConfig(
        vocab_size=len(tokenizer), max_position_embeddings=512, tie_word_embeddings=True, initializer_range=0.04,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **SHAPE,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    print(f"{model.num_parameters() / 1e6:.2f} M parameters, {rows.size / 1e6:.2f} M tokens", flush=True)

    class Rows(torch.utils.data.Dataset):
        def __len__(self):
            return len(rows)

        def __getitem__(self, i):
            ids = torch.from_numpy(rows[i].astype(np.int64))
            return {"input_ids": ids, "labels": ids}

    arguments = TrainingArguments(
        output_dir=str(work / "checkpoints"), per_device_train_batch_size=BATCH, max_steps=steps, learning_rate=3e-3,
        adam_beta2=0.98, weight_decay=0.05, max_grad_norm=1.0, lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr_rate": 0.05},
        warmup_steps=200, logging_steps=50, save_steps=500, save_total_limit=2, seed=SEED, use_cpu=not torch.cuda.is_available(), disable_tqdm=True,
        bf16=True, torch_compile=True,
    )  # fmt: skip
    trainer = Trainer(model=model, args=arguments, train_dataset=Rows())
    last = get_last_checkpoint(arguments.output_dir) if Path(arguments.output_dir).is_dir() else None
    trainer.train(resume_from_checkpoint=last)
    trainer.model.config.use_cache = True
    trainer.model.to(torch.bfloat16).save_pretrained(work / "model")
    keep = [{k: h[k] for k in ("step", "loss", "learning_rate")} for h in trainer.state.log_history if "loss" in h]
    write_json(work / "training.json", keep)


# ---------------------------------------------------------------------------------------------- measure
HELD_OUT_TOKENS = 6_000
STUDY = ROOT / "nbs" / "studies" / "embedded_model.json"


def token_lines(tokenizer, texts: list[str], limit: int) -> list[list[int]]:
    "Token ids of whole documents, each with beginning and end, until `limit` tokens are reached."
    lines, total = [], 0
    for ids in tokenizer(texts)["input_ids"]:
        if total >= limit:
            break
        lines.append(ids[:511] + [tokenizer.eos_token_id])
        total += len(lines[-1]) - 1
    return lines


def unigram(tokenizer, tuples: list, language: str) -> np.ndarray:
    "Log-probabilities of tokens by how often they stand in the language's training text, with one added to each count."
    counts = np.ones(len(tokenizer))
    for _, _, text in tuples:
        if language in text:
            np.add.at(counts, tokenizer(text[language] + "\n")["input_ids"][1:], 1)
    counts[tokenizer.eos_token_id] += sum(language in text for _, _, text in tuples) / 5
    return np.log(counts / counts.sum())


def mean_losses(model, lines: list[list[int]], log_unigram: np.ndarray) -> tuple[float, float, int]:
    "Negative log-likelihood per token in nats of (model, unigram), and the number of tokens; the first token is given."
    import torch

    total = np.zeros(2)
    count = 0
    with torch.inference_mode():
        for line in lines:
            ids = torch.tensor(line)
            logits = model(input_ids=ids[None]).logits[0, :-1].float()
            total += (torch.nn.functional.cross_entropy(logits, ids[1:], reduction="sum").item(), -log_unigram[line[1:]].sum())
            count += len(line) - 1
    return *(total / max(count, 1)), count


def measure_model(corpora: Path, work: Path) -> None:
    "Perplexity on held-out text against a unigram model of the same language, and the curves, for the notebook."
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(work / "model")
    tokenizer.model_max_length = int(1e9)
    model = AutoModelForCausalLM.from_pretrained(work / "model", dtype=torch.float32).eval()
    train, held_out = read_tuples(corpora)
    table = []
    for language in LANGUAGES:
        chance = random.Random(f"{SEED}{language}")
        by_corpus = documents(held_out, language, chance)
        log_unigram = unigram(tokenizer, train, language)
        groups = {"shipped corpus": ("cldr", "udhr"), "other corpora": READ_IN_TRAINING}
        losses = {}
        for name, corpora_of_group in groups.items():
            lines = [line for c in corpora_of_group if c in by_corpus for line in token_lines(tokenizer, by_corpus[c], HELD_OUT_TOKENS)]
            losses[name] = mean_losses(model, lines, log_unigram)
        tokens = sum(count for *_, count in losses.values())
        losses["all"] = tuple(sum(part[i] * part[2] for part in losses.values()) / tokens for i in (0, 1)) + (tokens,)
        for name, (lm, baseline, count) in losses.items():
            if count:
                table.append({"language": language, "text": name, "tokens": count, "perplexity": math.exp(lm), "unigram": math.exp(baseline)})
        last = table[-1]
        print(f"{language}: perplexity {last['perplexity']:.1f}, unigram {last['unigram']:.1f}, ratio {last['perplexity'] / last['unigram']:.2f}", flush=True)
    rows = json.loads((work / "rows.json").read_text())
    shares = {
        "rows": sum(r["rows"] for r in rows),
        "pair_rows": sum(r["rows"] for r in rows if len(r["languages"]) > 1) / sum(r["rows"] for r in rows),
        "english_tokens": sum(r["rows"] * r["languages"].count("en") / len(r["languages"]) for r in rows) / sum(r["rows"] for r in rows),
    }
    study = {
        "command": "python tools/build_demo_assets.py --corpora DIR", "seed": SEED, "steps": STEPS, "tokens": STEPS * BATCH * ROW,
        "parameters": model.num_parameters(), "vocabulary": len(tokenizer), "shares": shares, "composition": rows,
        "curve": json.loads((work / "training.json").read_text()), "perplexity": table,
    }  # fmt: skip
    write_json(STUDY, study)


CARD = """---
language: [en, zh, es, fr, de, ru, ja, ar, bn, sw, th, tr]
license: apache-2.0
---
# The language model that alignx carries

A Llama-architecture decoder with {parameters:,} parameters and a Unigram tokenizer of {vocabulary:,} pieces with byte
fallback, trained from scratch on {tokens:,} tokens for the examples and tests of alignx. At least half of the tokens are
English; fewer than 15 % of the rows hold a sentence and its translation.

**For:** showing how representations of translations lie in a small multilingual model, and how training moves them.
**Not for:** writing, translating or knowing anything. It is too small and has read too little.

Text: the Universal Declaration of Human Rights and names from the Unicode CLDR (shipped with alignx), and from Debian 12
packages LibreOffice help and interface (MPL-2.0), GNOME help and Debian manuals (CC-BY-SA-3.0, GPL), package
descriptions, the narrative of Wesnoth (GPL-2+); facts from countries-list (MIT). None of that text is contained here.
The validation and test tuples of the shipped corpus were held out in every language.

Perplexity against a unigram model of each language, the training curve and the exact sources are in the notebook
`nbs/studies/01_embedded_model.ipynb`; the script is `tools/build_demo_assets.py`.
"""


def install(work: Path) -> None:
    "Copy the finished model folder into the package, with its card."
    target = ASSETS / "model"
    target.mkdir(parents=True, exist_ok=True)
    for path in sorted((work / "model").iterdir()):
        shutil.copyfile(path, target / path.name)
    (target / "README.md").write_text(CARD.format(**json.loads(STUDY.read_text(encoding="utf-8"))), encoding="utf-8")
    settings = json.loads((target / "tokenizer_config.json").read_text())
    settings = {k: v for k, v in settings.items() if k not in ("is_local", "local_files_only", "backend")} | {"tokenizer_class": "PreTrainedTokenizerFast"}
    write_json(target / "tokenizer_config.json", settings)
    size = sum(p.stat().st_size for p in target.iterdir()) / 1e6
    print(f"{target.relative_to(ROOT)}: {size:.2f} MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = ("corpus", "tokenizer", "text", "model", "measure", "install")
    parser.add_argument("steps", nargs="*", help=f"which of {', '.join(steps)} (default: all)")
    parser.add_argument("--corpora", type=Path, required=True, help="folder of multi-way JSONL files")
    parser.add_argument("--work", type=Path, default=ROOT / "build" / "demo", help="folder for what is in between")
    parser.add_argument("--rows", type=int, default=STEPS * BATCH, help="rows of 128 tokens to pack")
    arguments = parser.parse_args()
    wanted = arguments.steps or steps
    if unknown := set(wanted) - set(steps):
        parser.error(f"unknown step {sorted(unknown)[0]!r}; choose from {', '.join(steps)}")
    if missing := [n for n in ("udhr.jsonl.gz", "cldr.jsonl.gz", "demo_instruct.jsonl") if not (arguments.corpora / n).is_file()]:
        parser.error(f"--corpora {arguments.corpora}: {missing[0]} is not there")
    arguments.work.mkdir(parents=True, exist_ok=True)
    work = {
        "corpus": lambda: build_corpus(arguments.corpora),
        "tokenizer": lambda: build_tokenizer(arguments.corpora, arguments.work),
        "text": lambda: build_text(arguments.corpora, arguments.work, arguments.rows),
        "model": lambda: train_model(arguments.work),
        "measure": lambda: measure_model(arguments.corpora, arguments.work),
        "install": lambda: install(arguments.work),
    }
    done = {"tokenizer": "model/tokenizer.json", "text": "rows.npy", "model": "model/model.safetensors"}
    for step in steps:
        if step in wanted:
            if not arguments.steps and step in done and (arguments.work / done[step]).exists():
                print(f"{step}: already in {arguments.work}")
                continue
            work[step]()
    return 0


if __name__ == "__main__":
    sys.exit(main())
