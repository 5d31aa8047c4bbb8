"""Small models and hand-made batches for the tests of stage 1."""
from copy import deepcopy

import torch
from transformers import (
    AutoModelForCausalLM,
    BloomConfig,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Qwen3Config,
    XGLMConfig,
)

VOCAB = 60
_shared = {"vocab_size": VOCAB, "hidden_size": 32, "num_attention_heads": 2, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
_deep = {**_shared, "num_hidden_layers": 3, "intermediate_size": 48, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64}
_tokens = {"vocab_size": VOCAB, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0}
CONFIGS = {
    "llama": LlamaConfig(**_deep, tie_word_embeddings=True),
    "gpt2": GPT2Config(**_tokens, n_embd=32, n_layer=3, n_head=2, n_positions=64, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0),
    "mistral": MistralConfig(**_deep, sliding_window=8),
    "qwen3": Qwen3Config(**_deep),
    "gemma3": Gemma3TextConfig(**_deep, sliding_window=8, layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    "bloom": BloomConfig(**_tokens, hidden_size=32, n_layer=3, n_head=2),
    "xglm": XGLMConfig(**_tokens, d_model=32, num_layers=3, attention_heads=2, ffn_dim=48, max_position_embeddings=64, dropout=0.0, attention_dropout=0.0),
}


def tiny(name: str = "llama", seed: int = 0):
    "A random model of three layers of width 32."
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(deepcopy(CONFIGS[name])).float().eval()


def row(source: int, target: int, source_lang: int = 10, target_lang: int = 11, seed: int = 0) -> dict:
    "An encoded row: BOS, two words of prompt, `source` tokens, one separator, `target` tokens, EOS."
    random = torch.Generator().manual_seed(seed)
    words = torch.randint(3, VOCAB, (source + target + 3,), generator=random).tolist()
    ids = [1, *words[:2], *words[2 : 2 + source], words[2 + source], *words[3 + source :], 2]
    spans = [0, 0, 0] + [1] * source + [0] + [2] * target + [0]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": list(ids), "spans": spans, "source_lang": source_lang, "target_lang": target_lang}


def bare(length: int = 6, seed: int = 0) -> dict:
    "A row that is no translation."
    plain = row(length, 1, seed=seed)
    return {**plain, "spans": [0] * len(plain["spans"]), "source_lang": -1, "target_lang": -1}


def collate(rows: list[dict], side: str = "right") -> dict:
    "A padded batch, on either side."
    longest = max(len(one["input_ids"]) for one in rows)

    def pad(values, filler):
        missing = [filler] * (longest - len(values))
        return values + missing if side == "right" else missing + values

    fillers = {"input_ids": 0, "attention_mask": 0, "labels": -100, "spans": 0}
    batch = {name: torch.tensor([pad(one[name], filler) for one in rows]) for name, filler in fillers.items()}
    return batch | {name: torch.tensor([one[name] for one in rows]) for name in ("source_lang", "target_lang")}


def rows(count: int = 4, seed: int = 0) -> list[dict]:
    "Translation rows of several lengths and languages."
    return [row(2 + i % 3, 1 + i % 4, 10, 11 + i % 2, seed=100 * seed + i) for i in range(count)]
