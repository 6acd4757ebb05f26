"""Stand-ins for what diffusers' tests would download: tiny tokenizers, encoders and processors, made on the spot.

``install`` makes every ``from_pretrained`` of transformers answer with one, so that those tests' components can be built offline.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import sys
import zlib
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image
from tokenizers import AddedToken, Regex, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.normalizers import Replace
from tokenizers.pre_tokenizers import Sequence, Split, WhitespaceSplit
from tokenizers.processors import TemplateProcessing
from torch.nn import functional
from transformers import BatchFeature, PreTrainedModel, PreTrainedTokenizerBase, PreTrainedTokenizerFast
from transformers.feature_extraction_utils import FeatureExtractionMixin
from transformers.image_processing_base import ImageProcessingMixin
from transformers.processing_utils import ProcessorMixin

BASIC = ("<bos>", "<pad>", "<eos>", "<unk>")
IMAGE = "<|image_pad|>"
CHAT = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", IMAGE, "<image>", "<|start_header_id|>")
CHAT += ("<|end_header_id|>", "<|eot_id|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<think>", "</think>")
CHARACTERS = tuple(chr(i) for i in range(33, 127))
ALL = len(BASIC) + len(CHARACTERS) + len(CHAT)
TEMPLATE = """{% for m in messages %}<|im_start|>{{ m['role'] }}
{% if m['content'] is string %}{{ m['content'] }}{% else %}{% for p in m['content'] %}{% if p['type'] == 'text' %}{{ p['text'] }}\
{% else %}<|vision_start|><|image_pad|><|vision_end|>{% endif %}{% endfor %}{% endif %}<|im_end|>
{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant
{% endif %}"""

PLACEHOLDERS = ("parameterized", "requests_mock")
"""Packages that only the tests themselves use: where one is missing, an empty thing of that name does."""

_TEXT = {"num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
_ROPE = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1e6}
_VISION = {"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2}
_QWEN_TEXT = {
    **_TEXT,
    "hidden_size": 16,
    "num_key_value_heads": 2,
    "vocab_size": 1000,
    "rope_parameters": _ROPE,
    "rope_scaling": _ROPE,
}
_T5 = {"vocab_size": 1103, "d_model": 32, "d_kv": 8, "d_ff": 37, "num_layers": 2, "num_heads": 4}
_QWEN3_VISION = {"hidden_size": 16, "intermediate_size": 16, "out_hidden_size": 16, "deepstack_visual_indexes": [0]}
_GEMMA_TEXT = {**_TEXT, "hidden_size": 32, "vocab_size": 1000, "head_dim": 8, "num_key_value_heads": 1, "sliding_window": 64}
_GEMMA_VISION = {**_TEXT, "hidden_size": 32, "image_size": 28, "patch_size": 14}

CONFIGS: dict[str, dict[str, Any]] = {
    "t5": _T5,
    "umt5": _T5,
    "bert": {**_TEXT, "hidden_size": 32, "vocab_size": 1000},
    "llama": {**_TEXT, "hidden_size": 16, "vocab_size": 1000},
    "siglip_vision_model": {**_TEXT, "hidden_size": 32, "image_size": 30, "patch_size": 15},
    "qwen2_vl": {
        "text_config": _QWEN_TEXT,
        "vision_config": {**_VISION, "embed_dim": 16, "hidden_size": 16, "mlp_ratio": 2},
    },
    "qwen3_vl": {
        "text_config": {**_QWEN_TEXT, "head_dim": 8},
        "vision_config": {**_VISION, **_QWEN3_VISION},
    },
    "gemma3": {"text_config": _GEMMA_TEXT, "vision_config": _GEMMA_VISION, "mm_tokens_per_image": 4},
    "chatglm": {
        **{"num_layers": 2, "padded_vocab_size": 1000, "hidden_size": 8, "ffn_hidden_size": 16, "kv_channels": 4},
        **{"num_attention_heads": 2, "seq_length": 512, "num_hidden_layers": 2, "original_rope": True},
    },
}
"""Sizes of encoders by the type of their configuration; widths are those that the denoisers of the tests expect."""


@functools.cache
def _backend(size: int, marks: bool) -> Tokenizer:
    """A token for each word, by its first character, and for each other sign. With ``marks``, <bos> and <eos> around all."""
    words = (*BASIC, *CHARACTERS, *CHAT)[:size]
    made = Tokenizer(WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    made.normalizer = Replace(Regex(r"(?<=\w)\w+"), "")
    made.pre_tokenizer = Sequence([WhitespaceSplit(), Split(Regex("."), "isolated")])
    if marks:
        made.post_processor = TemplateProcessing(single="<bos> $A <eos>", special_tokens=[("<bos>", 0), ("<eos>", 2)])
    else:
        made.post_processor = TemplateProcessing(single="$A")
    made.add_special_tokens([AddedToken(w, special=True, normalized=False) for w in words if w in BASIC + CHAT])
    return made


def tokenizer(cls: type, name: str, **options: Any) -> PreTrainedTokenizerBase:
    """One of the class asked for, where that is built on a backend of its own."""
    kind = cls if issubclass(cls, PreTrainedTokenizerFast) else PreTrainedTokenizerFast
    made = kind.__new__(kind)
    short = "clip" in name.lower()
    PreTrainedTokenizerFast.__init__(
        made,
        tokenizer_object=_backend(8 if "dummy-gemma" in name else ALL, marks="qwen" not in name.lower()),
        model_max_length=options.get("model_max_length", 77 if short else 512),
        padding_side=options.get("padding_side", "right"),
        chat_template=TEMPLATE,
        **dict(zip(("bos_token", "pad_token", "eos_token", "unk_token"), BASIC, strict=True)),
    )
    return made


class ChatTokenizer(PreTrainedTokenizerFast):
    """Gives positions, too, and pads on the left."""

    model_input_names = ("input_ids", "attention_mask", "position_ids")  # type: ignore[assignment]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        out = super().__call__(*args, **kwargs)
        if isinstance(out["input_ids"], torch.Tensor):
            out["position_ids"] = (out["attention_mask"].cumsum(-1) - 1).clamp_min(0)
        return out


class Processor:
    """Of texts with pictures: every picture is sixteen patches, of which four are merged into one token."""

    image_token, patch, merge, frames, side, tokens = IMAGE, 14, 2, 2, 4, 4

    def __init__(self, tokenizer: PreTrainedTokenizerBase, image_token_id: int | None = None):
        self.tokenizer = tokenizer
        self.image_processor = MagicMock(patch_size=self.patch, merge_size=self.merge, min_pixels=784, max_pixels=784)
        self.own_image_id = int(tokenizer.convert_tokens_to_ids(IMAGE))
        self.image_token_id = self.own_image_id if image_token_id is None else image_token_id

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> Processor:
        if "glm" in name.lower():
            return GridProcessor(tokenizer(PreTrainedTokenizerFast, name))
        # Configurations that the tests write down leave the number of the picture's token as it is in the released model.
        return cls(tokenizer(PreTrainedTokenizerFast, name), 151655 if "Qwen2VL" in name else None)

    def __getattr__(self, name: str) -> Any:
        if name in ("decode", "batch_decode", "convert_tokens_to_ids", "pad_token_id", "eos_token_id", "padding_side"):
            return getattr(self.tokenizer, name)
        raise AttributeError(name)

    def __call__(self, text: Any = None, images: Any = None, videos: Any = None, **options: Any) -> BatchFeature:
        pictures = _flat(images)
        if not pictures:
            keys = ("padding", "max_length", "truncation", "return_tensors", "pad_to_multiple_of", "return_attention_mask")
            return BatchFeature(dict(self.tokenizer(text, **{k: v for k, v in options.items() if k in keys})))
        texts = [t.replace(IMAGE, IMAGE * self.tokens) for t in ([text] if isinstance(text, str) else text)]
        out = dict(self.tokenizer(texts, padding=True, return_tensors="pt"))
        shown = out["input_ids"] == self.own_image_id
        out["input_ids"] = out["input_ids"].masked_fill(shown, self.image_token_id)
        out["mm_token_type_ids"] = shown.long()
        out["pixel_values"] = torch.cat([self._patches(p) for p in pictures])
        out["image_grid_thw"] = torch.tensor([[1, self.side, self.side]] * len(pictures))
        return BatchFeature(out)

    def _patches(self, picture: Any) -> torch.Tensor:
        """One row for each patch; what is seen is random, and the same for the same picture."""
        data = picture.tobytes() if isinstance(picture, Image.Image) else np.ascontiguousarray(picture).tobytes()
        generator = torch.Generator().manual_seed(zlib.crc32(data))
        return torch.rand(self.side**2, 3 * self.frames * self.patch**2, generator=generator)

    def apply_chat_template(self, messages: Any, tokenize: bool = False, **options: Any) -> Any:
        text = self.tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=options.get("add_generation_prompt", False)
        )
        if not tokenize:
            return text
        talks = messages if isinstance(messages[0], list) else [messages]
        parts = [p for talk in talks for m in talk if isinstance(m["content"], list) for p in m["content"]]
        out = self(text=text, images=[p["image"] for p in parts if "image" in p], **options)
        return out if options.get("return_dict") else out["input_ids"]


class GridProcessor(Processor):
    """Ends every text with the sizes of the grids of tokens that are to be generated."""

    def apply_chat_template(self, messages: Any, tokenize: bool = False, **options: Any) -> Any:
        out = super().apply_chat_template(messages, tokenize, **{**options, "padding": True})
        high, wide = options["target_h"] // 32, options["target_w"] // 32
        small = int((high / wide) ** 0.5 * 16), int((wide / high) ** 0.5 * 16)
        count = len(out["input_ids"])
        out["image_grid_thw"] = torch.tensor([[1, high, wide], [1, *small]] * count)
        out["images_per_sample"] = torch.tensor([2] * count)
        return out


def _flat(images: Any) -> list[Any]:
    if images is None:
        return []
    if isinstance(images, (list, tuple)):
        return [p for entry in images for p in _flat(entry)]
    return [images]


def model(cls: type[PreTrainedModel], name: str, **options: Any) -> PreTrainedModel:
    """A tiny random one of the class asked for."""
    kind: Any = cls.config_class
    sizes = dict(CONFIGS[kind.model_type])
    if kind.model_type == "qwen3_vl":
        sizes["image_token_id"] = _backend(ALL, marks=False).token_to_id(IMAGE)
    torch.manual_seed(0)
    made = cls(kind(**sizes)).eval()
    if kind.model_type == "chatglm":  # leaves its weights as they are found in memory
        for parameter in made.parameters():
            torch.nn.init.normal_(parameter, std=0.1)
    return made


def denoiser(cls: type, name: str, subfolder: str = "", **options: Any) -> Any:
    """The one denoiser that tests download instead of building it."""
    if cls is not diffusers.UNet2DModel:
        raise OSError(f"There is no stand-in for the {cls.__name__} {name!r}.")
    torch.manual_seed(0)
    sizes = {"sample_size": 32, "block_out_channels": (32, 64), "layers_per_block": 1, "norm_num_groups": 32}
    kinds = {
        "down_block_types": ("ResnetDownsampleBlock2D", "AttnDownBlock2D"),
        "up_block_types": ("AttnUpBlock2D", "ResnetUpsampleBlock2D"),
    }
    return cls(**sizes, **kinds, num_class_embeds=10 if "class" in subfolder else None).eval()


def config(cls: type, name: str, **options: Any) -> Any:
    kind = next((k for k in ("umt5", "t5", "bert", "llama") if k in name.lower()), None)
    if kind is None:
        raise OSError(f"There is no stand-in for the configuration {name!r}.")
    return transformers.AutoConfig.for_model(kind, **CONFIGS[kind])


def processor(cls: type, name: str, **options: Any) -> Any:
    """Of pictures or sounds: one of the class asked for with its own defaults."""
    sizes = {"size": {"height": 32, "width": 32}} if cls.__name__.startswith("DPT") else {}
    return cls(**{**sizes, **{k: v for k, v in options.items() if k not in ("subfolder", "revision", "torch_dtype", "dtype")}})


def _answer(owner: type, make: Callable[..., Any]) -> None:
    """Folders are loaded as ever; names of the hub are answered by ``make``."""
    plain: Any = owner.__dict__["from_pretrained"]

    def from_pretrained(cls: type, name: Any, *args: Any, **options: Any) -> Any:
        if os.path.isdir(str(name)):
            return plain.__func__(cls, name, *args, **options)
        return make(cls, str(name), **options)

    owner.from_pretrained = classmethod(from_pretrained)  # type: ignore[attr-defined]


def install() -> None:
    """Put the stand-ins in place, for the life of this process. Before the tests are imported."""
    for name in PLACEHOLDERS:
        if importlib.util.find_spec(name) is None:
            sys.modules[name] = MagicMock()
    for owner in (PreTrainedTokenizerBase, transformers.AutoTokenizer):
        _answer(owner, tokenizer)
    _answer(PreTrainedModel, model)
    _answer(diffusers.ModelMixin, denoiser)
    _answer(transformers.AutoConfig, config)
    for owner in (ImageProcessingMixin, FeatureExtractionMixin):
        _answer(owner, processor)
    _answer(ProcessorMixin, lambda cls, name, **options: Processor.from_pretrained(name, **options))
    for name in ("AutoProcessor", "Qwen2VLProcessor", "Qwen2_5_VLProcessor", "Qwen3VLProcessor", "GlmImageProcessor"):
        for module in (transformers, sys.modules["transformers"]):  # importing diffusers may leave two of it
            setattr(module, name, Processor)
    _install_chatglm()
    _install_sizes()
    if importlib.util.find_spec("torchvision") is None:
        _install_transforms()


def _install_chatglm() -> None:
    """A tokenizer that diffusers itself brings along, where its needs are met."""
    try:
        from diffusers.pipelines.kolors import tokenizer as module
    except (ImportError, RuntimeError):
        return

    def make(cls: type, name: str, **options: Any) -> Any:
        return tokenizer(ChatTokenizer, name, padding_side="left", **options)

    if hasattr(module, "ChatGLMTokenizer"):
        module.ChatGLMTokenizer.from_pretrained = classmethod(make)


def _install_sizes() -> None:
    """Pipelines that enlarge every picture to a million points make it small here."""
    from diffusers.pipelines.qwenimage import pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus

    for module in (pipeline_qwenimage_edit, pipeline_qwenimage_edit_plus):
        plain = module.calculate_dimensions
        module.calculate_dimensions = lambda area, ratio, plain=plain: plain(min(area, 64 * 64), ratio)


def _install_transforms() -> None:
    """The few functions of torchvision without which some of diffusers' modules stop at a name that is not defined."""

    def resize(picture: torch.Tensor, size: list[int], **_: Any) -> torch.Tensor:
        return functional.interpolate(picture, size, mode="nearest")

    transforms = SimpleNamespace(
        functional=SimpleNamespace(resize=resize),
        InterpolationMode=SimpleNamespace(NEAREST="nearest"),
        Compose=lambda steps: lambda value: functools.reduce(lambda made, step: step(made), steps, value),
        Lambda=lambda step: step,
        ToTensor=lambda: lambda picture: torch.from_numpy(np.asarray(picture) / 255).permute(2, 0, 1).float(),
        Normalize=lambda mean, std, **_: lambda picture: (picture - mean[0]) / std[0],
    )
    from diffusers.models.controlnets import controlnet_cosmos
    from diffusers.models.transformers import transformer_cosmos
    from diffusers.pipelines.omnigen import pipeline_omnigen, processor_omnigen

    for module in (controlnet_cosmos, transformer_cosmos, processor_omnigen):
        module.transforms = transforms  # type: ignore[attr-defined]
    pipeline_omnigen.OmniGenMultiModalProcessor = processor_omnigen.OmniGenMultiModalProcessor  # type: ignore[attr-defined]
