"""``omnicache report`` and ``omnicache doctor -m``, on tiny models: what a run leaves, what is drawn again, what is said."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest
from diffusers import DDIMScheduler, DiTPipeline
from PIL import Image
from typer.testing import CliRunner

import omnicache
from omnicache.cli import app
from omnicache.cli.bench import best_of
from omnicache.cli.record import Record, recorded
from omnicache.errors import OmniCacheError
from omnicache.plan import Plan

from ..methods.tiny import dit
from .test_demo import vae

for package in ("altair", "jinja2", "matplotlib", "vl_convert", "torchmetrics"):
    pytest.importorskip(package)


@pytest.fixture
def model(tmp_path, monkeypatch) -> str:
    """A model of the zoo that draws by class, and its name."""
    folder = tmp_path / "zoo" / "tiny"
    pipe = DiTPipeline(dit(num_embeds_ada_norm=1000, out_channels=4), vae(), DDIMScheduler(clip_sample=False))
    pipe.register_to_config(id2label=dict(enumerate(("cat", "dog", "fox", "owl", "cow"))))
    pipe.save_pretrained(folder)
    about = {"call": {"class_labels": [0], "guidance_scale": 1.5, "num_inference_steps": 8}}
    (folder / "zoo.json").write_text(json.dumps(about))
    monkeypatch.setenv("OMNICACHE_ZOO", str(tmp_path / "zoo"))
    return "tiny"


def told(*words: str) -> dict:
    """What a command says with --json; its error, if it has one, is raised."""
    result = CliRunner().invoke(app, [*words, "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout.strip().splitlines()[-1])


def test_a_run_leaves_what_a_report_needs_to_draw_the_same(model, tmp_path):
    out = tmp_path / "run"
    words = ["-m", "fora", "-o", "interval=2", "-i", "fox", "-i", "dog", "--steps", "8", "--seed", "5", "--out", str(out)]
    made = told("run", model, *words)
    record, plan = recorded(out)
    assert (record.model, record.method, record.steps, record.inputs, record.seed) == (model, "fora", 8, ("fox", "dog"), 5)
    assert (plan.method, plan.options["interval"]) == ("fora", 2) and list(record.images) == made["images"]
    found = told("report", str(out), "--pairs", "1")
    assert found["page"] == str(out / "report.html") and found["method"] == "fora" and len(found["psnr"]) == 2
    page = (out / "report.html").read_text(encoding="utf-8")
    assert "8 steps · guidance 1.5 · 2 inputs · 1 timed pair ·" in page and f"omnicache report {out}" in page
    assert 'alt="fox, uncached"' in page and 'alt="dog, cached"' in page
    drawn = Image.open(out / "000.png")
    assert drawn.size == (16, 16)


def test_the_report_draws_with_the_seeds_of_the_run(model, tmp_path, monkeypatch):
    seen = []
    plain = DiTPipeline.__call__

    def spy(self, *args, **kwargs):
        seen.append((kwargs["class_labels"], kwargs["generator"].initial_seed(), kwargs["num_inference_steps"]))
        return plain(self, *args, **kwargs)

    spy.__signature__ = inspect.signature(plain)
    monkeypatch.setattr(DiTPipeline, "__call__", spy)
    told("run", model, "-i", "fox", "-i", "dog", "--steps", "6", "--seed", "5", "--out", str(tmp_path / "run"))
    drawn = set(map(str, seen))
    seen.clear()
    told("report", str(tmp_path / "run"), "--pairs", "1")
    assert set(map(str, seen)) == drawn == {"([2], 5, 6)", "([1], 6, 6)"}


def test_a_plan_is_judged_by_inputs_that_it_was_not_fitted_on(model, tmp_path, monkeypatch):
    path, seen = str(tmp_path / "tiny.plan.json"), []
    plain = DiTPipeline.__call__

    def spy(self, *args, **kwargs):
        seen.append((*kwargs["class_labels"], kwargs["generator"].initial_seed()))
        return plain(self, *args, **kwargs)

    spy.__signature__ = inspect.signature(plain)
    monkeypatch.setattr(DiTPipeline, "__call__", spy)
    told("calibrate", model, "-m", "omnicache-optimal", "-o", "reuse=0.5", "--steps", "6", "--out", path)
    fitted = set(seen)
    assert (0, 0) in fitted
    judges = (
        ["run", model, "-m", path, "--out", str(tmp_path / "run")],
        ["report", path, "--pairs", "1"],
        ["report", str(tmp_path / "run"), "--pairs", "1"],
        ["doctor", model, "-m", path],
    )
    for words in judges:
        seen.clear()
        told(*words)
        assert seen and not fitted & set(seen), words


def test_another_method_on_the_same_run(model, tmp_path):
    told("run", model, "-m", "none", "--steps", "8", "--out", str(tmp_path / "run"))
    other = ["-m", "taylorseer", "-o", "interval=3", "--pairs", "1", "--out", str(tmp_path / "other")]
    found = told("report", str(tmp_path / "run"), *other)
    assert found["method"] == "taylorseer" and Path(found["page"]).parent == tmp_path / "other" and len(found["psnr"]) == 1
    page, run, out = Path(found["page"]).read_text(encoding="utf-8"), tmp_path / "run", tmp_path / "other"
    assert f"omnicache report {run} -m taylorseer --pairs 1 --out {out} -o interval=3" in page, (
        "all that was asked for is said again"
    )
    with pytest.raises(OmniCacheError, match="-o gives an option of a method; say which"):
        told("report", str(tmp_path / "run"), "-o", "interval=3")


def test_a_tuned_plan_is_reported_by_its_file_alone(model, tmp_path):
    path = tmp_path / "plans" / "tiny.plan.json"
    words = ["-m", "omnicache-optimal", "-o", "reuse=0.5", "--steps", "8", "-i", "cat", "-i", "fox", "--out", str(path)]
    told("calibrate", model, *words)
    plan = Plan.load(path)
    tried = [{"label": f"omnicache-optimal, {i} of 8", "speedup": 4.0 - i / 2, "psnr": 20.0 + i} for i in (3, 4, 5)]
    plan.with_measured(tuned={"tried": tried, "chosen": tried[1]}).save(path)
    found = told("report", str(path), "--pairs", "1")
    page = Path(found["page"]).read_text(encoding="utf-8")
    assert Path(found["page"]).parent == tmp_path / "plans" and found["model"] == model and len(found["psnr"]) == 4
    assert "The ring is around the plan of this page, omnicache-optimal, 4 of 8: 2.00 times as fast at 24.0 dB there." in page
    assert "Why these steps" in page and "What reuse costs" in page and "What errors grow to" in page
    error = plan.measured["error"]
    assert f"Fitted and drawn, {error:.2%} of the final latents was left" in page
    (path.parent / "both").mkdir()
    both = str((plan + omnicache.methods()["tomesd"].plan()).save(path.parent / "both" / "tiny.plan.json"))
    assert "What reuse costs" in Path(told("report", both, "--pairs", "1")["page"]).read_text(encoding="utf-8")


def test_a_layered_plan_shows_why_it_took_its_layers(model, tmp_path):
    path = str(tmp_path / "layered.plan.json")
    told("calibrate", model, "-m", "omnicache-layered", "-o", "speedup=1.2", "--steps", "6", "-i", "cat", "--out", path)
    page = Path(told("report", path, "-i", "owl", "--pairs", "1")["page"]).read_text(encoding="utf-8")
    for title in ("What was computed", "What reusing each layer costs for each second saved", "Time of each layer"):
        assert f"<h3>{title}</h3>" in page


def test_what_is_no_run_is_refused_with_what_to_give(model, tmp_path):
    with pytest.raises(OmniCacheError, match=r"has no run\.json: it is no folder that omnicache run, demo or bench"):
        told("report", str(tmp_path))
    with pytest.raises(OmniCacheError, match="There is no plan file"):
        told("report", str(tmp_path / "gone.plan.json"))
    path = omnicache.methods()["fora"].plan().save(tmp_path / "p.plan.json")
    with pytest.raises(OmniCacheError, match=r"does not say which pipeline it is for.*--model emoji"):
        told("report", str(path))
    for run in (path, tmp_path):  # the folder has one plan in it
        assert told("report", str(run), "--model", model, "--steps", "6", "--pairs", "1")["model"] == model
    (tmp_path / "run.json").write_text('{"omnicache_run": 1, "model": 3')
    with pytest.raises(OmniCacheError, match=r"cannot be read .* Run its command again"):
        told("report", str(tmp_path))


def test_a_comparison_with_peers_is_drawn_from_its_file(tmp_path):
    kept = Path(__file__).parents[2] / "benchmarks" / "results" / "peers-emoji-unet-20.json"
    found = told("report", str(kept), "--out", str(tmp_path))
    assert "DeepCache" in Path(found["page"]).read_text(encoding="utf-8")
    assert [one["goal"] for one in found["verdicts"]] == [30, 25]
    for more in (("-m", "fora"), ("--pairs", "3")):
        with pytest.raises(OmniCacheError, match="only --out"):
            told("report", str(kept), *more)
    folder = tmp_path / "bench"
    folder.mkdir()
    (folder / "peers.json").write_bytes(kept.read_bytes())
    assert Path(told("report", str(folder))["page"]) == folder / "peers.html", "the folder that the command wrote will do"
    (tmp_path / "part.json").write_text('{"duels": [], "verdicts": []}')
    with pytest.raises(OmniCacheError, match=r"'contenders' is missing\. Run that command again"):
        told("report", str(tmp_path / "part.json"))


def test_a_record_comes_back_as_it_was(tmp_path):
    plan = omnicache.methods()["teacache"].plan(threshold=0.2)
    tried = ({"label": "a", "speedup": 2.0, "psnr": None},)
    record = Record("emoji", "teacache", 20, 2.0, ("fox",), 3, "omnicache bench", tried, "a")
    record.save(tmp_path, plan)
    assert recorded(tmp_path) == (record, plan)


def test_the_best_of_a_comparison():
    def row(label, verdict, speed, psnr):
        return {"label": label, "verdict": verdict, "speedup": {"median": speed}, "psnr": {"mean": psnr}}

    rows = [row("a", "better", 2.0, 33.0), row("b", "even", 1.5, 40.0), row("c", "worse", 4.0, 35.0), row("d", "beyond", 5.0, 20.0)]
    assert best_of({"rows": rows}) == "a"
    assert best_of({"rows": rows[3:]}) == "d" and best_of({"rows": rows[2:3]}) is None


# --- the doctor on one method


def test_the_doctor_answers_why_not_faster_and_why_not_alike(model):
    found = told("doctor", model, "-m", "fora", "-o", "interval=5", "-i", "fox")
    assert (found["method"], found["options"]["interval"], found["steps"], len(found["psnr"])) == ("fora", 5, 8, 1)
    fast, like = " ".join(found["why_not_faster"]), " ".join(found["why_not_alike"])
    assert f"The denoiser is {found['speedup']['speedup']['median']:.2f} times as fast" in fast
    assert f"It takes {found['call']['share']:.0%} of an uncached call" in fast
    assert f"{found['work']:.0%} of the operations are done in" in fast
    assert f"match the uncached ones at {found['psnr'][0]:.1f} dB on one input" in like
    assert len(found["latent_error"]) == 8 and f"The final latents are off by {found['latent_error'][-1]:.1%}" in like
    assert ("Tried on the first input: with interval=4" if found["psnr"][0] < 30 else "with interval=7") in fast + like


def test_the_doctor_says_it_to_people_and_refuses_options_of_nothing(model):
    shown = CliRunner().invoke(app, ["doctor", model, "-m", "taylorseer", "--steps", "6"], catch_exceptions=False)
    assert "How fast\n- The denoiser is" in shown.stdout and "How like\n- Pictures match" in shown.stdout
    with pytest.raises(OmniCacheError, match="say which: -m taylorseer -o interval=4"):
        told("doctor", model, "-o", "interval=4")
    assert "methods" in told("doctor", model, "--steps", "6")
