"""The text sides of the models in ``zoo/``, before any training."""

import pytest
import torch

pytest.importorskip("diffusers")
words = pytest.importorskip("training.text.words")

CAPTIONS = ["red apple", "red heart", "pineapple", "ear of corn", "jack-o-lantern", "pool 8 ball"]


def test_every_word_of_a_caption_is_one_token_and_other_words_are_spelled():
    tokens = words.tokenizer(CAPTIONS)
    assert tokens.tokenize("Red apple") == ["red</w>", "apple</w>"]
    assert tokens.tokenize("jack-o-lantern") == ["jack</w>", "-</w>", "o</w>", "-</w>", "lantern</w>"]
    assert tokens.tokenize("zulu") == ["z", "u", "l", "u</w>"]


def test_a_caption_has_the_same_ids_in_every_process():
    assert words.ids(words.tokenizer(CAPTIONS), ["pineapple", ""]).tolist() == [
        [545, 542, 546, 546, 546, 546, 546, 546],
        [545, 546, 546, 546, 546, 546, 546, 546],
    ]


def test_words_are_encoded_as_the_pipeline_encodes_them():
    from diffusers import StableDiffusion3Pipeline

    torch.manual_seed(0)
    tokens = words.tokenizer(CAPTIONS)
    both = words.Words(tokens).eval()
    config = type("Config", (), {"joint_attention_dim": 2 * words.WIDTH, "sample_size": 16, "patch_size": 1})()
    transformer = type("Transformer", (torch.nn.Module,), {"config": config})()
    parts = {"text_encoder": both.first, "text_encoder_2": both.second, "tokenizer": tokens, "tokenizer_2": tokens}
    pipe = StableDiffusion3Pipeline(
        transformer=transformer, scheduler=None, vae=None, text_encoder_3=None, tokenizer_3=None, **parts
    )
    with torch.no_grad():
        seen, _, whole, _ = pipe.encode_prompt(CAPTIONS, None, None, device="cpu", max_sequence_length=2)
        expected, expected_whole = both(words.ids(tokens, CAPTIONS))
    assert torch.equal(seen[:, : words.LENGTH], expected) and not seen[:, words.LENGTH :].any()
    assert torch.equal(whole, expected_whole)


@pytest.mark.parametrize("count", [1, 2])
def test_a_video_model_that_learned_from_four_words_sees_the_pipelines_120_alike(count):
    data = pytest.importorskip("training.motion.data")
    from diffusers import AutoencoderKL, LattePipeline

    from training.emoji.transformer import scheduler
    from training.motion.transformer import Net

    torch.manual_seed(0)
    net = Net(width=32, layers=1).eval()
    for p in net.transformer.parameters():
        if not p.any():
            torch.nn.init.normal_(p, std=0.1)  # what begins at zero would hide the words
    parts = {"tokenizer": net.words.tokens, "text_encoder": net.words.encoder, "transformer": net.transformer}
    pipe = LattePipeline(**parts, vae=AutoencoderKL(norm_num_groups=1, block_out_channels=(1,)), scheduler=scheduler())
    label = torch.tensor([5, 10])[:count]
    z, t = torch.randn(count, 4, 16, 4, 4), torch.tensor([300, 600])[:count]
    with torch.no_grad():
        seen, none = pipe.encode_prompt([data.PROMPTS[i] for i in label])
        assert seen.shape[1] == (3 if count == 1 else 120)
        for which, whole in ((label, seen), (torch.full_like(label, len(data.PROMPTS)), none)):
            expected = net.transformer(z, t, whole).sample[:, :4]
            assert torch.allclose(net(z, t, which, padded=count > 1), expected, atol=1e-4)
            assert expected.std() > 0.1
