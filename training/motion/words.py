"""The text side of ``emoji-motion``: a tokenizer of its words and a one-layer T5 encoder, as Latte has."""

from __future__ import annotations

import math

import torch
from torch import nn
from transformers import T5Config, T5EncoderModel, T5Tokenizer

from training.motion.data import NOUNS, PROMPTS
from training.motion.law import MOTIONS

WIDTH = 64
LENGTH = 120  # what LattePipeline pads to, if there is more than one video
REAL = 3  # noun, motion, end


def tokenizer() -> T5Tokenizer:
    """A word is a token; what is no word of the prompts is unknown."""
    words = [f"▁{word}" for word in (*NOUNS, *MOTIONS)]
    vocab = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -9.0), *((word, -1.0) for word in words)]
    return T5Tokenizer(vocab=vocab, extra_ids=0, model_max_length=LENGTH)


def encoder(tokens: T5Tokenizer) -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(
            vocab_size=len(tokens),
            d_model=WIDTH,
            d_kv=WIDTH // 4,
            d_ff=2 * WIDTH,
            num_layers=1,
            num_heads=4,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=tokens.pad_token_id,
            eos_token_id=tokens.eos_token_id,
            decoder_start_token_id=tokens.pad_token_id,
        )
    )


class Words(nn.Module):
    """All prompts, and none, as ``LattePipeline.encode_prompt`` gives them, in fewer tokens.

    The pipeline pads to 120 tokens, zeroes the padding of prompts but not of the empty one, and cuts all padding off where there
    is one video only. Padding is alike at every place, so that one token that counts as many stands for it.
    """

    def __init__(self):
        super().__init__()
        self.tokens = tokenizer()
        self.encoder = encoder(self.tokens)
        asked = self.tokens([*PROMPTS, ""], padding="max_length", max_length=REAL + 1, return_tensors="pt")
        self.register_buffer("ids", asked.input_ids, persistent=False)
        self.register_buffer("mask", asked.attention_mask, persistent=False)

    def forward(self, label: torch.Tensor, padded: bool) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Words ``(n, 3 or 4, 64)`` of prompt ids, of which the last is no prompt, and what to add to their scores."""
        found = self.encoder(self.ids, attention_mask=self.mask).last_hidden_state
        none = torch.arange(len(self.ids), device=found.device) == len(PROMPTS)
        words = (found * (self.mask.bool() | none[:, None])[..., None])[label]
        if not padded:
            return words[:, :REAL], None
        weight = torch.zeros(1, 1, REAL + 1, device=words.device)
        weight[..., -1] = math.log(LENGTH - REAL)
        return words, weight
