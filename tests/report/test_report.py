"""The page about one plan: the answer first, everything that was measured, and one file without addresses."""

from __future__ import annotations

import dataclasses
import html
import re

import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DiTPipeline

from omnicache.api import plan_of
from omnicache.errors import OmniCacheError
from omnicache.measure.diagnosis import diagnose
from omnicache.measure.speed import Timed
from omnicache.measure.study import study
from omnicache.report import write_report
from omnicache.report.both_paths import both_paths
from omnicache.report.report import tried
from omnicache.report.study_page import About, write_study
from omnicache.report.trials import trial_rows
from omnicache.report.words import options, sentences

from ..methods.tiny import Pipe, dit
from .browser import CHROMIUM, WHY_NOT, assert_fits, looked_at

for package in ("altair", "jinja2", "matplotlib", "vl_convert", "PIL"):
    pytest.importorskip(package, reason=f'{package} is not installed: pip install "omnicache[report]"')


def painter() -> DiTPipeline:
    """Pictures of 8 x 8 pixels, by class."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("DownEncoderBlock2D",), "up_block_types": ("UpDecoderBlock2D",)}
    vae = AutoencoderKL(block_out_channels=(8,), latent_channels=4, norm_num_groups=4, sample_size=8, **blocks)
    names = dict(enumerate(("cat", "dog", "fox", "<b>owl</b>")))
    pipe = DiTPipeline(dit(num_embeds_ada_norm=1000, out_channels=4), vae, DDIMScheduler(clip_sample=False), id2label=names)
    pipe.set_progress_bar_config(disable=True)
    return pipe


@pytest.fixture(scope="module")
def found():
    pipe = painter()
    call = {"num_inference_steps": 10, "guidance_scale": 2.0}
    return diagnose(pipe, study(pipe, plan_of("fora"), ["fox", "<b>owl</b>"], call, pairs=2))


@pytest.fixture(scope="module")
def page(found, tmp_path_factory) -> str:
    about = About("tiny", ["10 steps", "<i>here</i>"], "omnicache report run", TRIED, "fora, interval=3")
    return write_study(found, about, tmp_path_factory.mktemp("page")).read_text(encoding="utf-8")


TRIED = (
    {"label": "fora, interval=3", "speedup": 1.9, "psnr": 31.0},
    {"label": "fora, interval=2", "speedup": 1.5, "psnr": 36.0},
    {"label": "fora, interval=7", "speedup": 2.0, "psnr": 12.0},
    {"label": "fewer-steps, ratio=0.5", "speedup": 2.1, "psnr": 20.0},
    {"label": "none", "speedup": 1.0, "psnr": None},
)


def text(page: str) -> str:
    """What can be read of it."""
    body = re.sub(r"<(script|style)\b.*?</\1>", " ", page[page.index("<main>") :], flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", body)).split())


def timed(found, uncached: float, cached: float):
    """The same with other times."""
    pairs = [
        dataclasses.replace(p, without=Timed(uncached, (uncached / 20,) * 10), within=Timed(cached, (cached / 20,) * 10))
        for p in found.study.pairs
    ]
    return dataclasses.replace(found, study=dataclasses.replace(found.study, pairs=tuple(pairs)))


def test_the_first_line_is_the_answer(found, page):
    ratio, like = found.study.speed["speedup"], sum(found.study.psnr) / 2
    first = text(page[: page.index("</h1>")] + "</h1>")
    assert first.endswith(
        f"{ratio['median']:.2f} times as fast ({ratio['low']:.2f} to {ratio['high']:.2f}, 2 pairs), {like:.1f} dB on 2 inputs"
    )
    assert page.count("<h1") == 1 and f"<title>{ratio['median']:.2f} times as fast, {like:.1f} dB" in page


def test_it_says_plainly_when_it_is_slower_or_looks_different(found, tmp_path):
    def header(study):
        page = write_study(study, About("tiny"), tmp_path).read_text(encoding="utf-8")
        return text(page[: page.index("</header>")])

    said = header(timed(found, 1.0, 2.0))
    assert said.startswith("OmniCache on tiny: fora 0.50 times as fast (0.50 to 0.50, 2 pairs),")
    assert "It is slower than without a cache" in said
    assert "slower" not in header(timed(found, 2.0, 1.0))
    drawn = tuple(dataclasses.replace(one, psnr=db) for one, db in zip(found.study.drawn, (20.0, 25.0), strict=True))
    worse = dataclasses.replace(found, study=dataclasses.replace(found.study, drawn=drawn))
    assert "It looks different: below 30 dB" in header(worse)


def test_everything_that_was_measured_is_there(found, page):
    said = text(page)
    for sentence in (*found.speed, *found.likeness):
        assert " ".join(sentence.split()) in said
    for title in ("The error so far", "The error of each step", "What was computed", "How far it strayed", "From noise to result"):
        assert f"<h3>{title}</h3>" in page
    assert "Memory over time" in said and "10 steps · <i>here</i>" in said
    assert "Compute when: every n-th step, at attention and MLP, else hold." in said
    assert "interval = 3 The paper's N." in said and "omnicache report run" in said


def test_each_input_can_be_compared(page):
    assert page.count('type="range" min="0" max="100"') == 2 and page.count('<img src="data:image/webp;base64,') == 8
    assert 'alt="&lt;b&gt;owl&lt;/b&gt;, uncached"' in page and "<b>owl</b>" in text(page)


def test_the_search_is_shown_with_the_chosen_one_in_it(page):
    assert "4 settings were measured; nothing is both faster and closer than the 3 on the line." in text(page)
    assert "The ring is around the plan of this page, fora, interval=3." in text(page)
    charts = re.findall(r'<svg [^>]*aria-label="Speedup against PSNR of 4 settings.*?</svg>', page, flags=re.DOTALL)
    assert len(charts) == 2 and all(chart.count('stroke="var(--path-2)"') == 2 for chart in charts)


def test_the_page_is_one_small_file_without_addresses_and_clashes(page):
    assert len(page.encode()) < 3_000_000
    assert not re.findall(r"https?://|//[a-z0-9-]+\.[a-z]", re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", page))
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_a_pipeline_that_makes_no_pictures(tmp_path):
    path = write_report(Pipe(dit()), "taylorseer", [1, 2], tmp_path, pairs=1, interval=4, num_inference_steps=8)
    said = text(path.read_text(encoding="utf-8"))
    assert path == tmp_path / "report.html" and re.search(r"times as fast \(one pair\), latents [\d.]+% off on 2 inputs", said)
    assert "The pipeline makes no pictures" in said and "8 steps · 2 inputs" in said
    again = html.unescape(re.search(r"<code>(.*?)</code>", path.read_text(encoding="utf-8"), re.DOTALL)[1])
    assert again.endswith(
        f"write_report(pipe, 'taylorseer', inputs, {str(tmp_path)!r}, interval=4, num_inference_steps=8, pairs=1)"
    )
    path.unlink()
    exec(again.replace("pipe = ...", "pipe = Pipe(dit())"), globals())
    assert path.exists(), "what is said runs, but for the pipeline, which nobody can write down"


def test_what_does_not_fit_is_refused_before_anything_is_drawn(tmp_path):
    with pytest.raises(OmniCacheError, match="'intervall' is neither an option of fora nor an argument of Pipe"):
        write_report(Pipe(dit()), "fora", [1], tmp_path, intervall=4)
    with pytest.raises(OmniCacheError, match="Pass the one around DiTTransformer2DModel, not the network alone"):
        write_report(dit(), "fora", [1], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_paths_that_lie_close_are_drawn_apart():
    along = [torch.tensor([10.0 - i, 0.1 * i * i, 0.0, 0.0]) for i in range(8)]
    (plain, other), times = both_paths(along, [x + 0.001 * i for i, x in enumerate(along)])
    assert times > 10 and len(plain) == len(other) == 8
    apart = max(sum((a - b) ** 2 for a, b in zip(p, q, strict=True)) ** 0.5 for p, q in zip(plain, other, strict=True))
    assert 0.3 < apart < 1.5
    assert both_paths(along, [x + i for i, x in enumerate(along)])[1] == 1
    assert len(both_paths(along, along[::2])[0][1]) == 4


def test_trials_know_what_beats_them():
    rows = {row["label"]: row for row in trial_rows(TRIED)}
    assert "none" not in rows and rows["fewer-steps, ratio=0.5"]["verdict"] == "reference"
    assert rows["fora, interval=7"]["verdict"] == "worse" and not rows["fora, interval=7"]["frontier"]
    assert rows["fora, interval=3"]["verdict"] == "even" and rows["fora, interval=3"]["frontier"]


def said_of(plan) -> list[str]:
    return [", ".join(" ".join(part) for part in sentence) for sentence in sentences(plan)]


def test_plans_in_words():
    plan = plan_of("taylorseer", interval=4)
    assert said_of(plan) == ["Compute when: the first steps, then every n-th, at attention and MLP, or the stack, else Taylor"]
    assert ("interval = 4", "One computed step in so many, counted from the last computed one.") in options(plan)
    assert ("warmup = 1, tail = 1", "Computed steps at the start and at the end; 1.") in options(plan_of("teacache"))
    assert said_of(plan_of("fewer-steps", ratio=0.5)) == ["Run 50% of the sampler's steps, and cache nothing"]
    assert said_of(plan_of("none")) == []
    assert len(said_of(plan + plan_of("omnicache-md"))) == 2


def test_plans_of_no_known_method_are_told_by_their_parts():
    mine = dataclasses.replace(plan_of("pab"), method="mine")
    assert said_of(mine)[0].endswith("one step in 2, at: spatial attention, else: the last computed value, unchanged")


def test_where_nothing_was_reused_no_speed_is_claimed_and_one_path_is_not_drawn_as_two(tmp_path):
    pipe = painter()
    plan = plan_of("teacache", threshold=1e-9)
    found = diagnose(pipe, study(pipe, plan, ["fox", "cat"], {"num_inference_steps": 8}, pairs=1))
    page = write_study(timed(found, 1.31, 1.0), About("tiny"), tmp_path).read_text(encoding="utf-8")
    said = text(page)
    assert "<title>Nothing was reused: it is as fast as uncached" in page
    assert "teacache Nothing was reused: it is as fast as uncached All 8 steps were computed. The pictures are identical" in said
    assert "reached the threshold 1e-09" in said[: said.index("Does it still look right?")], "why, and what to try"
    assert "times as fast, identical" not in said and "1.31 times" not in said and "100.0 dB" not in said
    assert "From noise to result" not in said and "as large as it is" not in said
    assert found.tried is None and found.speed[0].startswith("Nothing was reused, so it is as fast as uncached:")
    assert found.likeness == ("Pictures are identical to the uncached ones, on all 2 inputs.",)


TUNED = {
    "goal": "psnr=32",
    "chosen": {"label": "fora, interval=3", "psnr": 35.7, "speedup": 3.16},
    "held_out": {
        "psnr": {"mean": 27.1, "low": 26.5, "high": 27.8},
        "inputs": 2,
        "speedup": {"median": 3.0, "low": 2.5, "high": 3.4},
    },
    "tried": TRIED,
}


def test_a_tuned_plan_says_its_goal_and_of_which_inputs_each_figure_is(found, tmp_path):
    plan = found.study.plan.with_measured(tuned=TUNED)
    about = About("tiny", **tried(plan))
    tuned = dataclasses.replace(found, study=dataclasses.replace(found.study, plan=plan))
    said = text(write_study(tuned, about, tmp_path).read_text(encoding="utf-8"))
    assert (
        "It was tuned for 32 dB or more. The search found it 3.00 times as fast (2.50 to 3.40) and 27.1 dB (26.5 to 27.8)" in said
    )
    assert "on 2 inputs that it was not chosen by; on those that it was, 3.16 times as fast and 35.7 dB." in said
    assert "On inputs that it was not chosen by it is below its goal of 32 dB" in said
    fast = plan.with_measured(tuned={**TUNED, "goal": "speedup=3.2, psnr=25"})
    tuned = dataclasses.replace(found, study=dataclasses.replace(found.study, plan=fast))
    slow = text(write_study(tuned, about, tmp_path).read_text(encoding="utf-8"))
    assert "On inputs that it was not chosen by it is slower than its goal of 3.2 times as fast: tune on more inputs" in slow
    assert "All figures of this chart are of the inputs that the search chose by, and so differ from those above." in said
    for words in ("worse than fewer steps, or slower than no cache", "the plan of this page", "from 30 dB on hard to tell apart"):
        assert words in said[said.index("What else was tried") :], "the marks of the chart have a key"


def test_identical_settings_are_named_and_not_drawn(found, tmp_path):
    rows = ({"label": "teacache, threshold=0", "speedup": 1.1, "psnr": 100.0}, *TRIED)
    said = text(write_study(found, About("tiny", tried=rows), tmp_path).read_text(encoding="utf-8"))
    assert "Identical to the uncached, so not drawn: teacache, threshold=0." in said


def test_heat_maps_follow_the_colours_of_the_page(page):
    maps = re.findall(r'<svg [^>]*aria-label="(?:Heat map|[\d.]+% at most).*?</svg>', page, flags=re.DOTALL)
    assert len(maps) == 2
    for one in maps:
        fills = set(re.findall(r'fill="([^"]+)"', one))
        assert "var(--heat)" in fills and not any(f.startswith(("#", "rgb")) for f in fills), fills
        assert "Symbol legend" in one, "a key says what the shades are"


SLIDE = """
  var line = document.querySelector(".slide input"), over = document.querySelector(".slide .over");
  function cut() { return getComputedStyle(over).clipPath; }
  var half = cut();
  line.value = 20; line.dispatchEvent(new Event("input"));
  var amp = document.getElementById("amp"), diff = document.querySelector(".tile.diff"), faint = getComputedStyle(diff).filter;
  amp.value = 20; amp.dispatchEvent(new Event("input"));
  line.focus();
  return { half: half, moved: cut(), faint: faint, strong: getComputedStyle(diff).filter, focus: document.activeElement === line,
    said: document.getElementById("amp-out").textContent, wide: getComputedStyle(document.querySelector(".wide")).display,
    narrow: getComputedStyle(document.querySelector(".narrow")).display };
"""


@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
def test_in_a_browser_the_page_fits_and_its_sliders_move(page, tmp_path):
    seen = looked_at(page, tmp_path, SLIDE)
    assert_fits(seen)
    for one in seen.values():
        assert one["half"] != one["moved"] and one["faint"] == "brightness(6)" and one["strong"] == "brightness(20)"
        assert one["said"] == "20×" and one["focus"]
    assert (seen[1280]["wide"], seen[1280]["narrow"]) == ("block", "none")
    assert (seen[390]["wide"], seen[390]["narrow"]) == ("none", "block")


@pytest.mark.skipif(CHROMIUM is None, reason=WHY_NOT)
def test_the_browser_sees_what_is_wrong(page, tmp_path):
    wrong = "<div style='width:2000px'>wide</div><img src='https://example.org/x.png'><script>nowhere()</script></main>"
    seen = looked_at(page.replace("</main>", wrong), tmp_path)
    for one in seen.values():
        assert one["scroll"] > one["client"] and "DIV.null" in one["out"] and not one["loaded"]
        assert any("nowhere" in problem for problem in one["problems"])
        assert any("blocked https://example.org" in problem for problem in one["problems"])
