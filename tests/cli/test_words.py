"""What the commands say to people, and what they take for granted: on a tiny model, looked at as it is shown."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from diffusers import DDIMScheduler, DiTPipeline
from rich.console import Console
from typer.testing import CliRunner

import omnicache
from omnicache.cli import app
from omnicache.cli.common import plain_warnings, table_of
from omnicache.cli.methods import AXES
from omnicache.cli.record import recorded
from omnicache.errors import OmniCacheError
from omnicache.granularity import Stack
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.triggers import Table

from ..methods.tiny import dit
from .test_demo import vae


@pytest.fixture
def model(tmp_path, monkeypatch) -> str:
    """The name of a model of the zoo that draws by class, in a folder of the test's own."""
    folder = tmp_path / "zoo" / "tiny"
    pipe = DiTPipeline(dit(num_embeds_ada_norm=1000, out_channels=4), vae(), DDIMScheduler(clip_sample=False))
    pipe.register_to_config(id2label=dict(enumerate(("cat", "dog", "fox"))))
    pipe.save_pretrained(folder)
    about = {"call": {"class_labels": [0], "guidance_scale": 1.5, "num_inference_steps": 9}}
    (folder / "zoo.json").write_text(json.dumps(about))
    monkeypatch.setenv("OMNICACHE_ZOO", str(tmp_path / "zoo"))
    monkeypatch.chdir(tmp_path)
    return "tiny"


def shown(*words: str) -> str:
    """What a command prints."""
    return CliRunner().invoke(app, list(words), catch_exceptions=False).output


def save(steps: int) -> None:
    """A plan that is made for so many steps, in a file."""
    every_second = Policy(Table("#." * (steps // 2)), Stack(), Residual(Hold()))
    Plan("mine", (every_second,), made_for={"num_inference_steps": steps, "guidance_scale": 3.0}).save("x.plan.json")


def test_steps_and_guidance_that_are_not_given_are_those_of_the_plan(model):
    save(12)
    said = shown("run", model, "-m", "x.plan.json")
    assert "12 evaluations of the denoiser" in said and "Nothing was reused" not in said
    record, _ = recorded(Path("omnicache-run"))
    assert (record.steps, record.guidance) == (12, 3.0)
    shown("run", model, "-m", "fora", "--guidance", "2")
    record, _ = recorded(Path("omnicache-run"))
    assert (record.steps, record.guidance) == (9, 2.0)


def test_steps_that_do_not_fit_say_so_once_and_what_to_give(model):
    save(12)
    said = shown("run", model, "-m", "x.plan.json", "--steps", "10")
    assert said.count("the plan's schedule is for 12 steps") == 1 and "UserWarning" not in said
    looked = CliRunner().invoke(app, ["doctor", model, "-m", "x.plan.json", "--steps", "10"], catch_exceptions=False)
    assert looked.stdout.count("the plan's schedule is for 12 steps") == 1 and "schedule is for" not in looked.stderr
    assert "Draw in those 12 steps (--steps 12), or carry it over to 10, unmeasured: in Python, omnicache.Plan.load" in said


def test_a_next_step_has_the_words_of_the_command(model):
    said = shown("run", model, "-m", "taylorseer", "-o", "interval=5", "--steps", "12")
    assert f"`omnicache doctor {model} -m taylorseer -o interval=5 --steps 12` measures" in said
    said = shown("run", model, "-m", "taylorseer", "--memory", "1 GB", "--steps", "12", "--out", "a b")
    assert f"`omnicache doctor {model} -m 'a b/plan.json' --steps 12` measures" in said
    assert shlex.split(said.splitlines()[-1])[-3:] == ["omnicache", "report", "a b"]


def test_pictures_of_the_run_before_are_removed_and_nothing_else(model, tmp_path):
    out = tmp_path / "out"
    shown("run", model, "-i", "cat", "-i", "dog", "-i", "fox", "--steps", "5", "--out", str(out))
    (out / "mine.png").write_bytes(b"mine")
    (out / "007.png").write_bytes(b"mine too")
    said = shown("run", model, "-i", "cat", "--steps", "5", "--out", str(out))
    assert "Removed, of the run that was here before: 001.png, 002.png" in said
    assert sorted(path.name for path in out.glob("*.png")) == ["000.png", "007.png", "mine.png"]
    assert "Removed" not in shown("run", model, "-i", "cat", "--steps", "5", "--out", str(out))


def test_warnings_of_ours_are_plain_lines_and_those_of_others_as_ever():
    told = []
    with warnings.catch_warnings(record=True) as others, plain_warnings(told.append):
        warnings.simplefilter("always")
        warnings.warn("OmniCache (fora): this.", stacklevel=1)
        warnings.warn("another", stacklevel=1)
    assert told == ["OmniCache (fora): this."] and [str(one.message) for one in others] == ["another"]


def test_the_doctor_names_the_method_to_calibrate_and_explains_its_marks(model):
    found = json.loads(CliRunner().invoke(app, ["doctor", model, "--steps", "6", "--json"], catch_exceptions=False).stdout)
    why = {row["method"]: row["why"] for row in found["methods"]}
    assert why["teacache"] is None or "calibrate it first" not in why["teacache"]
    assert why["magcache"] == f"calibrate it first: omnicache calibrate {model} -m magcache"
    assert "without.;" not in str(why) and "; the rest is cached without. DiT" in why["pab"]


@pytest.mark.parametrize("width", [80, 120])
def test_no_table_cuts_a_word(monkeypatch, width):
    monkeypatch.setenv("COLUMNS", str(width))
    lines = shown("methods").splitlines()
    end = next(i for i, line in enumerate(lines) if line.startswith("* "))
    words = {word for line in lines[:end] for word in line.split()}
    axes = [m.axes.get(axis, "") for m in omnicache.methods().values() for axis in AXES]
    assert {word for text in axes for word in text.split()} <= words
    assert max(map(len, lines[:end])) <= width and "Adams-Bashforth" in words


def test_a_column_that_may_be_broken_anywhere_leaves_room_for_the_others():
    console = Console(width=40)
    with console.capture() as got:
        console.print(table_of(console, ("a", "b"), [("#" * 30, "several words of some length")], widest={"a": 12}))
    lines = got.get().splitlines()
    assert [line.split()[0] for line in lines[1:]] == ["#" * 12, "#" * 12, "#" * 6]
    assert "several words of some" in got.get()


def calibrated(model: str) -> str:
    """What a calibration says that leaves y.plan.json."""
    words = ("-m", "omnicache-optimal", "-o", "reuse=0.5", "--steps", "6", "-i", "cat", "--out", "y.plan.json")
    return shown("calibrate", model, *words)


def test_a_calibration_says_how_to_use_what_it_saved(model):
    said = calibrated(model)
    last = said.splitlines()[-1]
    assert last == f"Use it: omnicache run {model} -m y.plan.json"
    assert "6 evaluations of the denoiser" in shown(*shlex.split(last)[3:])


def test_the_version_and_the_module():
    assert shown("--version") == f"omnicache {omnicache.__version__}\n"
    made = subprocess.run([sys.executable, "-m", "omnicache", "--version"], capture_output=True, text=True, check=True)
    assert made.stdout == f"omnicache {omnicache.__version__}\n"


def test_a_next_calibration_is_for_the_same_steps_and_guidance(model):
    calibrated(model)
    found = CliRunner().invoke(app, ["doctor", model, "-m", "y.plan.json", "--json"], catch_exceptions=False).stdout
    told = " ".join(json.loads(found)["why_not_faster"] + json.loads(found)["why_not_alike"])
    assert f"omnicache calibrate {model} -m omnicache-optimal -o reuse=0." in told
    assert "--steps 6 --guidance 1.5 --out omnicache-optimal-0." in told and "PIPELINE" not in told


def test_check_says_what_a_plan_was_made_for_and_exits_with_2_where_it_is_refused(model):
    save(12)
    said = shown("check", model, "x.plan.json")
    assert "num_inference_steps" in said and "fine" in said and "refused" not in said
    told = json.loads(shown("check", model, "x.plan.json", "--guidance", "2", "--json"))["differences"]
    assert {d["what"]: d["verdict"] for d in told} == {"num_inference_steps": "fine", "guidance_scale": "measured elsewhere"}
    with pytest.raises(OmniCacheError, match=r"num_inference_steps: Its schedule is for another number of steps; plan.for_steps"):
        shown("check", model, "x.plan.json", "--steps", "20")


def test_a_search_that_is_stopped_says_that_nothing_is_lost(model, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(omnicache, "tune", stop)
    done = CliRunner().invoke(app, ["tune", model, "--psnr", "30", "--steps", "8"])
    assert done.exit_code == 130 and "the same command goes on from here" in done.output


def test_a_search_says_what_it_found_what_it_left_out_and_by_how_many_inputs(model, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    asked = ["tune", model, "--psnr", "12", "--steps", "8", "--count", "3", "--budget", "0", "--out", "t.plan.json"]
    said = shown(*asked)
    plan = Plan.load("t.plan.json")
    tuned = plan.measured["tuned"]
    assert plan.method == "omnicache-optimal" and plan.made_for["num_inference_steps"] == 8
    assert "on the one input it was chosen by" in said and "give four or more" in said
    assert "There was no time for" in said and "with a longer --budget the same command goes on" in said
    assert f"{tuned['chosen']['label']}: on 1 input that it was not chosen by" in said and "Saved t.plan.json" in said
    told = json.loads(CliRunner().invoke(app, [*asked, "--json"], catch_exceptions=False).stdout)
    assert told["plan"] == "t.plan.json" and told["chosen"] == tuned["chosen"] and told["left_out"] == list(tuned["left_out"])
