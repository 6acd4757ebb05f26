"""The text side of ``emoji-text``: a tokenizer of the captions' words and two small CLIP encoders, as Stable Diffusion 3 has."""

from __future__ import annotations

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import torch
from tokenizers import pre_tokenizers
from torch import nn
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

Encoder = TypeVar("Encoder", CLIPTextModel, CLIPTextModelWithProjection)
LENGTH = 8  # start, up to six words, end: the longest caption
WIDTH = 48  # of each encoder
START, END = "<|startoftext|>", "<|endoftext|>"
WORD = re.compile(r"[^\W\d_]+|\d|[^\s\w]+")  # as CLIP divides text, for captions in ASCII


def tokenizer(captions: list[str]) -> CLIPTokenizer:
    """CLIP's byte-level tokenizer with merges learned from the captions: each of their words is one token, others are spelled."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    merges = _merges(sorted({word for caption in captions for word in WORD.findall(caption.lower())}))
    listed = [*alphabet, *(letter + "</w>" for letter in alphabet), *(a + b for a, b in merges), START, END]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(dict.fromkeys(listed))},
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=LENGTH,
    )


def _merges(words: list[str]) -> list[tuple[str, str]]:
    """Byte-pair encoding until every word is one token; of pairs as frequent, the first in the alphabet.

    By hand, because the trainer of ``tokenizers`` breaks ties by chance, and a model must find its words where it left them.
    """
    spelled = [[*word[:-1], word[-1] + "</w>"] for word in words]
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in spelled for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word in spelled:
            i = 0
            while i < len(word) - 1:
                if (word[i], word[i + 1]) == best:
                    word[i : i + 2] = ["".join(best)]
                i += 1
    return merges


def write_files(tokens: CLIPTokenizer, folder: Path) -> None:
    """The vocabulary and the merges as transformers before version 5 read them."""
    saved = json.loads(tokens.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(saved["vocab"], ensure_ascii=False) + "\n", encoding="utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in saved["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")


def encoder(tokens: CLIPTokenizer, kind: type[Encoder] = CLIPTextModelWithProjection) -> Encoder:
    """Two layers; Stable Diffusion 3 reads the words after the first and the whole caption after the second."""
    config = CLIPTextConfig(
        vocab_size=len(tokens),
        hidden_size=WIDTH,
        intermediate_size=4 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
    )
    model = kind(config)
    embeddings = next(m for m in model.modules() if hasattr(m, "position_embedding"))
    # Rows of size one: what the transformer's first projection gets has the size of what it was built for.
    nn.init.normal_(embeddings.token_embedding.weight, std=0.7)
    nn.init.normal_(embeddings.position_embedding.weight, std=0.2)
    return model


def silent(captions: list[str]) -> tuple[T5EncoderModel, T5Tokenizer]:
    """A T5 that says nothing: all its weights are zero, and so is what it puts out.

    The pipeline does the same by itself where it has no T5, but diffusers does not load a folder without one.
    """
    words = sorted({f"▁{word}" for caption in captions for word in (*caption.split(), *caption.lower().split())})
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -9.0), *((word, -1.0) for word in words)]
    tokens = T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=256)
    sizes = {"vocab_size": len(tokens), "d_model": 2 * WIDTH, "d_kv": 8, "d_ff": 8, "num_layers": 1, "num_heads": 1}
    model = T5EncoderModel(T5Config(**sizes, pad_token_id=0, eos_token_id=1, decoder_start_token_id=0))
    for weight in model.parameters():
        nn.init.zeros_(weight)
    return model.eval(), tokens


class Words(nn.Module):
    """Both encoders, applied as ``StableDiffusion3Pipeline.encode_prompt`` applies them."""

    def __init__(self, tokens: CLIPTokenizer):
        super().__init__()
        self.first, self.second = encoder(tokens), encoder(tokens)

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Token ids ``(n, 8)`` to words ``(n, 8, 96)`` and whole captions ``(n, 96)``."""
        seen = [model(ids, output_hidden_states=True) for model in (self.first, self.second)]
        return torch.cat([s.hidden_states[-2] for s in seen], -1), torch.cat([s.text_embeds for s in seen], -1)


def ids(tokens: CLIPTokenizer, captions: list[str]) -> torch.Tensor:
    """Captions to token ids ``(n, 8)``, as the pipeline makes them."""
    return tokens(captions, padding="max_length", max_length=LENGTH, truncation=True, return_tensors="pt").input_ids
