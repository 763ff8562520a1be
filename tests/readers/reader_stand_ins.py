"""Tiny random causal models of many kinds, and a byte-level tokenizer, for the reader's tests."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    OPTConfig,
    OPTForCausalLM,
    PreTrainedTokenizerFast,
)

from longlode.models import LonglodeConfig, LonglodeForCausalLM

VOCABULARY, LENGTH = 320, 24
SIZE = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
NARROW = {"num_key_value_heads": 2, "head_dim": 8, "intermediate_size": 64, "sliding_window": 16}


def opt():
    # word_embed_proj_dim as in OPT-350M: a projection stands between the last layer and the head.
    return OPTForCausalLM(OPTConfig(**SIZE, ffn_dim=64, word_embed_proj_dim=16, max_position_embeddings=64))


def llama():
    return LlamaForCausalLM(LlamaConfig(**SIZE, num_key_value_heads=2, intermediate_size=64))


def gpt2():
    config = GPT2Config(vocab_size=VOCABULARY, n_embd=32, n_layer=2, n_head=2, n_positions=64)
    config.bos_token_id = config.eos_token_id = 0
    return GPT2LMHeadModel(config)


def mistral():
    return MistralForCausalLM(MistralConfig(**SIZE, **NARROW))


def gemma():
    return Gemma2ForCausalLM(Gemma2Config(**SIZE, **NARROW, final_logit_softcapping=1.0))


def lfm2():
    # Convolution layers with a state and an attention layer: transformers' own kind of hybrid cache.
    config = Lfm2Config(
        **SIZE, num_key_value_heads=2, intermediate_size=64, full_attn_idxs=[1], pad_token_id=0
    )
    return Lfm2ForCausalLM(config)


def stack(mixers, **fields):
    sizes = {"vocab_size": VOCABULARY, "hidden_size": 32, "num_heads": 2, "window": 16}
    config = LonglodeConfig(mixers=mixers, **sizes, **fields)
    return LonglodeForCausalLM(config)


MODELS = {
    "opt": opt,
    "llama": llama,
    "gpt2": gpt2,
    "mistral-window": mistral,
    "gemma-softcap": gemma,
    "lfm2-hybrid": lfm2,
    "D": lambda: stack("DD"),
    "DS": lambda: stack("DS"),
    "DA": lambda: stack("DA"),
}


def build(name, dtype=torch.float32):
    """A random model that listens to its context: weights large enough for it to matter by whole nats."""
    model = MODELS[name]().to(dtype).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.normal_(0, 0.15)
    return model


def make_tokenizer():
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, initial_alphabet=alphabet, show_progress=False)
    bpe.train_from_iterator(["the cat sat on the mat, then the other cat sat there too"] * 5, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, model_max_length=8)
