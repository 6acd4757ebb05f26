"""The command line on diffusers folders: what -i fills, what is refused in a sentence, and what comes out as which file."""

from __future__ import annotations

import json
import wave
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from diffusers import (
    AutoencoderKL,
    DDIMPipeline,
    DDIMScheduler,
    DiTPipeline,
    TextToVideoSDPipeline,
    UNet3DConditionModel,
)
from PIL import Image
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer
from typer.testing import CliRunner

from omnicache.cli import app
from omnicache.cli.asking import draw, inputs_of, settings_of
from omnicache.cli.common import load
from omnicache.cli.saving import save
from omnicache.errors import OmniCacheError

from ..methods.tiny import dit, unet


def vae() -> AutoencoderKL:
    torch.manual_seed(0)
    return AutoencoderKL(
        block_out_channels=(8,),
        latent_channels=4,
        norm_num_groups=4,
        down_block_types=("DownEncoderBlock2D",),
        up_block_types=("UpDecoderBlock2D",),
        sample_size=8,
    )


def unconditional(folder: Path) -> None:
    model = unet()
    model.register_to_config(in_channels=3, out_channels=3)
    model.conv_in = torch.nn.Conv2d(3, 8, 3, padding=1)
    model.conv_out = torch.nn.Conv2d(8, 3, 3, padding=1)
    DDIMPipeline(model, DDIMScheduler()).save_pretrained(folder)


def by_class(folder: Path) -> None:
    DiTPipeline(dit(num_embeds_ada_norm=1000, out_channels=4), vae(), DDIMScheduler(clip_sample=False)).save_pretrained(folder)


def video(folder: Path) -> None:
    words = ["<|startoftext|>", "<|endoftext|>", *"abcdefghijklmnopqrstuvwxyz", *(f"{c}</w>" for c in "abcdefghijklmnopqrstuvwxyz")]
    source = folder.parent / "words"
    source.mkdir()
    (source / "vocab.json").write_text(json.dumps({w: i for i, w in enumerate(words)}))
    (source / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer(str(source / "vocab.json"), str(source / "merges.txt"), model_max_length=8)
    text = CLIPTextConfig(
        vocab_size=len(words),
        hidden_size=8,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=8,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    torch.manual_seed(0)
    model = UNet3DConditionModel(
        sample_size=8,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        down_block_types=("CrossAttnDownBlock3D", "DownBlock3D"),
        up_block_types=("UpBlock3D", "CrossAttnUpBlock3D"),
        cross_attention_dim=8,
        attention_head_dim=4,
    )
    TextToVideoSDPipeline(vae(), CLIPTextModel(text), tokenizer, model, DDIMScheduler(clip_sample=False)).save_pretrained(folder)


MAKERS = {"unconditional": unconditional, "class": by_class, "video": video}


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    """A saved pipeline of each kind."""
    found = {}
    for name, make in MAKERS.items():
        found[name] = str(tmp_path_factory.mktemp(name) / "pipe")
        make(Path(found[name]))
    return found


def omnicache(*words: str) -> dict:
    """What a command says with --json; its error, if it has one, is raised."""
    result = CliRunner().invoke(app, [*words, "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


# --- run and doctor on folders


def test_a_pipeline_that_is_asked_nothing_is_run_without_an_input(folders, tmp_path):
    made = omnicache("run", folders["unconditional"], "--steps", "6", "-m", "deepcache", "-o", "interval=2", "--out", str(tmp_path))
    assert [one["computed"] for one in made["images"]] == ["#.#.#."]
    assert made["images"][0]["input"] == "unconditional"
    assert Image.open(made["images"][0]["path"]).size == (8, 8)


def test_an_input_for_a_pipeline_that_is_asked_nothing_is_refused(folders):
    for command in ("run", "doctor"):
        with pytest.raises(OmniCacheError, match="DDIMPipeline takes neither a prompt nor a class; leave -i out"):
            omnicache(command, folders["unconditional"], "-i", "3", "--steps", "6")


def test_guidance_for_a_pipeline_without_it_is_refused(folders):
    with pytest.raises(OmniCacheError, match="DDIMPipeline takes no guidance; leave --guidance out"):
        omnicache("run", folders["unconditional"], "--guidance", "2")


def test_the_doctor_on_a_pipeline_that_is_asked_nothing(folders):
    found = omnicache("doctor", folders["unconditional"], "--steps", "6")
    assert (found["denoiser"], found["family"]) == ("UNet2DModel", "unet")
    assert {row["method"]: row["computed"] for row in found["methods"]}["deepcache"] == "#..#.."


@pytest.mark.parametrize("broken", [RuntimeError("shapes do not match"), TypeError("no such argument")])
def test_a_method_that_breaks_does_not_end_the_doctors_table(folders, monkeypatch, broken):
    from omnicache.cli import doctor

    tried = doctor._trial

    def trial(pipe, method, call):
        if method == "deepcache":
            raise broken
        return tried(pipe, method, call)

    monkeypatch.setattr(doctor, "_trial", trial)
    rows = {row["method"]: row for row in omnicache("doctor", folders["unconditional"], "--steps", "4")["methods"]}
    assert rows["deepcache"]["why"] == f"It failed with {type(broken).__name__}: {broken}"
    assert rows["easycache"]["computed"]


def test_a_pipeline_that_is_asked_for_a_class_by_number(folders, tmp_path):
    made = omnicache("run", folders["class"], "--steps", "6", "-m", "fora", "-i", "3", "--out", str(tmp_path))
    assert made["images"][0]["computed"] == "#.#..#"
    assert omnicache("run", folders["class"], "--steps", "5", "--out", str(tmp_path))["images"][0]["input"] == "1"
    with pytest.raises(OmniCacheError, match=r"takes classes by number, for example -i 3; not 'fox'"):
        omnicache("run", folders["class"], "-i", "fox")
    with pytest.raises(OmniCacheError, match="DiTPipeline failed with IndexError"):
        omnicache("run", folders["class"], "-i", "5000", "--out", str(tmp_path))


def test_a_limit_of_memory_is_kept_and_told(folders, tmp_path):
    made = omnicache("run", folders["class"], "--steps", "8", "-m", "fora", "--memory", "2 KB", "--out", str(tmp_path))
    image = made["images"][0]
    assert 0 < image["cache_bytes"] <= 2000
    assert image["notes"][0].startswith("To hold at most 2 KB: values are kept as bfloat16")
    with pytest.raises(OmniCacheError, match="'lots' is no amount of memory"):
        omnicache("run", folders["class"], "-m", "fora", "--memory", "lots", "--out", str(tmp_path))


def test_a_video_is_saved_as_one(folders, tmp_path):
    made = omnicache("run", folders["video"], "--steps", "2", "-i", "fox", "--out", str(tmp_path))["images"][0]
    film = Image.open(made["path"])
    assert (film.format, film.n_frames) == ("WEBP", 16)
    assert "a video of 16 frames" in " ".join(made["notes"])


def test_the_demo_is_for_shipped_models(folders):
    with pytest.raises(OmniCacheError, match=r"The demo needs a shipped model \(emoji[^)]*\).*omnicache doctor"):
        omnicache("demo", "--model", folders["unconditional"])


def test_a_folder_that_is_broken(tmp_path):
    (tmp_path / "model_index.json").write_text('{"_class_name": "DDIMPipeline", "unet": ["diffusers", "UNet2DModel"]}')
    with pytest.raises(OmniCacheError, match="could not be loaded by diffusers"):
        load(str(tmp_path))


def test_too_few_steps_for_a_calibration(tmp_path):
    for steps in ("1", "2"):
        with pytest.raises(OmniCacheError, match=rf"{steps} step\(s\) are too few"):
            omnicache("calibrate", "emoji", "--steps", steps, "-m", "teacache", "-i", "fox", "--out", str(tmp_path / "p.json"))


# --- what can be asked


class Restore:
    """Takes a prompt and must have a picture."""

    def __call__(self, image, prompt=None, num_inference_steps=4):
        return image


class Prompted:
    def __call__(self, prompt, num_inference_steps=4, guidance_scale=1.0):
        raise ValueError("`image` has to be given")


class Prior:
    def __call__(self, prompt, prior_num_inference_steps=4):
        return prompt


def test_what_the_command_line_cannot_give_is_said():
    with pytest.raises(OmniCacheError, match=r"Restore needs image, and the command line gives prompts and classes only.*Python"):
        inputs_of(Restore(), ["fox"])
    with pytest.raises(OmniCacheError, match="Prior takes no num_inference_steps"):
        settings_of(Prior(), 4)
    with pytest.raises(OmniCacheError, match=r"Prompted failed with ValueError: `image` has to be given.*it prompt"):
        draw(Prompted(), {"prompt": "fox"})


def test_a_prompt_goes_where_a_prompt_belongs():
    assert inputs_of(Prompted(), ["a fox", "7"]) == [{"prompt": "a fox"}, {"prompt": "7"}]
    assert len(inputs_of(Prompted(), [], count=2)) == 2


# --- what comes out


def test_what_is_saved_as_what(tmp_path):
    pipe, picture = SimpleNamespace(), Image.new("RGB", (8, 6), "red")
    path, note = save(pipe, SimpleNamespace(images=[picture]), tmp_path / "0")
    assert (path.name, note, Image.open(path).size) == ("0.png", None, (8, 6))
    for frames in ([[picture, Image.new("RGB", (8, 6))]], torch.rand(1, 2, 6, 8, 3), torch.rand(1, 2, 3, 6, 8).numpy()):
        path, note = save(pipe, SimpleNamespace(frames=frames), tmp_path / "1")
        assert (path.suffix, Image.open(path).n_frames, Image.open(path).size) == (".webp", 2, (8, 6))
        assert "2 frames" in str(note)
    path, note = save(pipe, SimpleNamespace(images=torch.rand(1, 4, 8, 8)), tmp_path / "2")
    assert (path.suffix, torch.load(path).shape) == (".pt", (4, 8, 8))
    assert "no picture but numbers of the shape (4, 8, 8)" in str(note)
    assert save(pipe, (torch.rand(2, 5),), tmp_path / "3")[0].name == "3.pt"


def test_sound_is_saved_at_its_rate_or_as_numbers(tmp_path):
    sound = SimpleNamespace(audios=torch.linspace(-1, 1, 200).reshape(1, 2, 100).numpy())
    pipe = SimpleNamespace(vocoder=SimpleNamespace(config=SimpleNamespace(sampling_rate=16000)))
    path, note = save(pipe, sound, tmp_path / "0")
    assert "16000 Hz" in str(note)
    with wave.open(str(path)) as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (2, 16000, 100)
    assert save(SimpleNamespace(), sound, tmp_path / "1")[0].suffix == ".pt"
