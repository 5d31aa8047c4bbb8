"""Tiny random models and a byte-level tokenizer for the tests of the evaluate room."""
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, BloomConfig, BloomForCausalLM, GPT2Config, GPT2LMHeadModel
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, T5Config, T5ForConditionalGeneration
from transformers import XLMRobertaConfig, XLMRobertaForMaskedLM

SPECIAL = ["<pad>", "<s>", "</s>", "<unk>"]


def byte_tokenizer(single="<s> $A", pad=True, **options):
    "One token per byte; `single` says which special tokens stand around a text."
    vocabulary = SPECIAL + sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({token: index for index, token in enumerate(vocabulary)}, [], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=[(token, index) for index, token in enumerate(SPECIAL)])
    names = dict(bos_token="<s>", eos_token="</s>", unk_token="<unk>", **({"pad_token": "<pad>"} if pad else {}))
    return PreTrainedTokenizerFast(tokenizer_object=backend, model_max_length=512, **names, **options)


def tiny_model(kind="llama", seed=0):
    "A random model with 3 layers of width 32 for the vocabulary of `byte_tokenizer`."
    torch.manual_seed(seed)
    size = len(byte_tokenizer())
    common = dict(vocab_size=size, pad_token_id=0, bos_token_id=1, eos_token_id=2)
    wide = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4, max_position_embeddings=128)
    build = {
        "llama": lambda: LlamaForCausalLM(LlamaConfig(**common, **wide)),
        "bert": lambda: BertModel(BertConfig(**common, **wide)),
        "xlmr": lambda: XLMRobertaForMaskedLM(XLMRobertaConfig(**common, **wide)),
        "gpt2": lambda: GPT2LMHeadModel(GPT2Config(**common, n_embd=32, n_layer=3, n_head=4, n_positions=128)),
        "bloom": lambda: BloomForCausalLM(BloomConfig(**common, hidden_size=32, n_layer=3, n_head=4)),
        "t5": lambda: T5ForConditionalGeneration(T5Config(**common, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=4)),
    }
    return build[kind]().eval()
