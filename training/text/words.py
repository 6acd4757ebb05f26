"""The text side of ``emoji-text``: a tokenizer of the captions' words and two small CLIP encoders, as Stable Diffusion 3 has."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, trainers
from torch import nn
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

LENGTH = 8  # start, up to six words, end: the longest caption
WIDTH = 48  # of each encoder
START, END = "<|startoftext|>", "<|endoftext|>"


def tokenizer(captions: list[str]) -> CLIPTokenizer:
    """CLIP's byte-level tokenizer with merges learned from the captions: each of their words is one token, others are spelled."""
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.normalizer = normalizers.Lowercase()
    words = pre_tokenizers.Split(Regex(r"[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"), behavior="removed", invert=True)
    learner.pre_tokenizer = pre_tokenizers.Sequence([words, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    plan = trainers.BpeTrainer(vocab_size=100_000, min_frequency=1, initial_alphabet=alphabet, end_of_word_suffix="</w>")
    learner.train_from_iterator(sorted(captions), plan)
    known = sorted(learner.get_vocab(), key=learner.get_vocab().__getitem__)
    listed = dict.fromkeys([*alphabet, *(letter + "</w>" for letter in alphabet), *known, START, END])
    found = json.loads(learner.to_str())["model"]["merges"]
    merges = [tuple(pair.split(" ") if isinstance(pair, str) else pair) for pair in found]
    return CLIPTokenizer(
        vocab={token: i for i, token in enumerate(listed)},
        merges=merges,
        unk_token=END,
        bos_token=START,
        eos_token=END,
        pad_token=END,
        model_max_length=LENGTH,
    )


def write_files(tokens: CLIPTokenizer, folder: Path) -> None:
    """The vocabulary and the merges as transformers before version 5 read them."""
    saved = json.loads(tokens.backend_tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(saved["vocab"], ensure_ascii=False) + "\n", encoding="utf-8")
    merges = [pair if isinstance(pair, str) else " ".join(pair) for pair in saved["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")


def encoder(tokens: CLIPTokenizer) -> CLIPTextModelWithProjection:
    """Two layers; the pipeline reads the words after the first and the whole caption after the second."""
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
    model = CLIPTextModelWithProjection(config)
    # Rows of size one: what the transformer's first projection gets has the size of what it was built for.
    nn.init.normal_(model.text_model.embeddings.token_embedding.weight, std=0.7)
    nn.init.normal_(model.text_model.embeddings.position_embedding.weight, std=0.2)
    return model


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
