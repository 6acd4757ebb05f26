"""Fixed representatives of the compatibility table; ``make compat`` runs all of it."""

from __future__ import annotations

import pytest
from tests.compat import denoisers as _entries  # noqa: F401  (fills the table)
from tests.compat.checks import ask
from tests.compat.tiny import DENOISERS

REPRESENTATIVES = {
    "DiTTransformer2DModel": "classes, adaLN-zero",
    "PixArtTransformer2DModel": "adaLN-single and cross-attention",
    "SD3Transformer2DModel": "two streams, the text ends in the last block",
    "FluxTransformer2DModel": "two rows of blocks",
    "Flux3Transformer2DModel": "rows that run in another order than they are registered in",
    "AuraFlowTransformer2DModel": "two rows, registers",
    "HunyuanDiT2DModel": "long skips between blocks",
    "UniDiffuserModel": "long skips to blocks that are never called as such",
    "ChromaTransformer2DModel": "a modulation that is cut in pieces",
    "GlmImageTransformer2DModel": "a feed-forward that runs twice in a block",
    "RFD4ProteinaTransformer": "blocks that run twice in a pass",
    "ZImageTransformer2DModel": "lists of pictures",
    "Lumina2Transformer2DModel": "text refiners before the blocks",
    "LatteTransformer3DModel": "spatial and temporal blocks in turn",
    "WanTransformer3DModel": "video",
    "HunyuanVideoTransformer3DModel": "video, a text refiner first",
    "LTX2VideoTransformer3DModel": "video and sound",
    "StableAudioDiTModel": "sound",
    "UNet2DModel": "U-Net",
    "UNet2DConditionModel": "U-Net with cross-attention",
    "UNetSpatioTemporalConditionModel": "U-Net for video",
    "StableCascadeUNet": "U-Net of lists of lists",
    "Kandinsky3UNet": "U-Net whose blocks' outputs are the skips",
}


@pytest.mark.parametrize("name", REPRESENTATIVES)
def test_works_on(name: str) -> None:
    if not DENOISERS[name].known(name):
        pytest.skip(f"the installed diffusers has no {name}")
    answer = ask(name, DENOISERS[name])
    assert answer.good, answer
    assert answer.modules is None or answer.modules > 0
