"""Each contender on the models that it is for: its settings change the work, and leave nothing behind."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import pairwise

import pytest
import torch

from omnicache import zoo
from omnicache.errors import OmniCacheError
from omnicache.measure.peers import CONTENDERS, fewer_steps
from omnicache.measure.peers import solvers as higher
from omnicache.measure.peers.contender import Setting, contender
from omnicache.measure.peers.desk import Desk
from omnicache.measure.peers.scene import Spec

pytest.importorskip("diffusers")
STEPS = 8


@pytest.fixture
def desk(tmp_path):
    """A process's desk, in this one: ``desk("emoji", "cache_dit_package", "cache_dit")``."""

    def opened(model: str, name: str, package: str | None = None) -> Desk:
        if model not in zoo.names():
            pytest.skip(f"the model {model} is not here")
        if package is not None and find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
        spec = Spec(model, STEPS, None, samples=1, tuning=1, goals=(30.0,), threads=1, folder=tmp_path)
        return Desk(spec, f"omnicache.measure.peers.{name}")

    return opened


def drawn(desk: Desk, options=None) -> torch.Tensor:
    desk.use(None if options is None else Setting(options, "tried"))
    return torch.from_numpy(desk.draw("tuning", 0, 1)[2])


def test_every_contender_has_a_name_of_its_own():
    names = [contender(module).name for module in CONTENDERS.values()]
    assert len(set(names)) == len(names)
    assert contender(CONTENDERS["tuned"]).kind == "ours"


@pytest.mark.parametrize("model", ["emoji", "emoji-text"])
def test_cache_dit_has_twenty_settings_and_more_and_takes_its_hands_off_classes(desk, model):
    it = desk(model, "cache_dit_package", "cache_dit")
    before = type(it.scene.pipe).__call__
    settings = it.settings()
    assert len(settings) >= 20 and len({one.label for one in settings}) == len(settings)
    for part in ("TaylorSeer", "FoCa", "DMD", "mask", "F1B0", "F8B0"):
        assert any(part in one.label for one in settings), part
    plain = drawn(it)
    for part in ("threshold 0.6, warm-up 2", "mask of every 3 steps after 3, DMD", "mask ultra, FoCa"):
        options = next(one.options for one in settings if one.label.endswith(part))
        assert not torch.equal(drawn(it, options), plain), part
    assert torch.equal(drawn(it), plain)
    assert type(it.scene.pipe).__call__ is before and not getattr(type(it.scene.pipe), "_is_cached", False)


def test_cache_dit_is_not_trusted_where_it_takes_a_model_for_another(desk):
    it = desk("emoji-motion", "cache_dit_package", "cache_dit")
    with pytest.raises(OmniCacheError, match="takes this model for another one"):
        it.settings()


def test_cache_dit_says_why_it_has_nothing_for_a_unet(desk):
    with pytest.raises(OmniCacheError, match="list of transformer blocks"):
        desk("emoji-unet", "cache_dit_package", "cache_dit").settings()


CACHES = {
    "emoji": (
        "FirstBlockCache, threshold 0.6",
        "attention and MLP",
        "every 3 steps, lite",
        "MagCache, threshold 0.5, retention 0.1",
    ),
    "emoji-text": ("every 3 steps, lite", "FasterCache", "PyramidAttentionBroadcast, every 3"),
    "emoji-unet": ("PyramidAttentionBroadcast, every 3", "attention and MLP"),
}


@pytest.mark.parametrize("model", CACHES)
def test_diffusers_caches_change_the_pictures_and_forget_between_runs(desk, model):
    it = desk(model, "diffusers_caches")
    settings, plain = it.settings(), drawn(it)
    for part in CACHES[model]:
        setting = [one for one in settings if part in one.label][-1]
        first = drawn(it, setting.options)
        assert not torch.equal(first, plain), setting.label
        assert torch.equal(torch.from_numpy(it.draw("tuning", 0, 1)[2]), first), f"{setting.label} remembers an earlier run"
    assert torch.equal(drawn(it), plain)


def test_a_cache_that_finds_no_blocks_says_so(desk):
    it = desk("emoji-unet", "diffusers_caches")
    for cache in ("first block", "magcache"):
        with pytest.raises(OmniCacheError, match="list of transformer blocks"):
            it.use(Setting({"cache": cache, "threshold": 0.5, "retention": 0.2}, cache))


@pytest.mark.parametrize(("name", "package"), [("deepcache_package", "DeepCache"), ("tomesd_package", "tomesd")])
def test_packages_for_unets(desk, name, package):
    it = desk("emoji-unet", name, package)
    settings, plain = it.settings(), drawn(it)
    assert not torch.equal(drawn(it, settings[-1].options), plain)
    assert torch.equal(drawn(it), plain)


def test_deepcache_says_why_it_has_nothing_for_a_transformer(desk):
    with pytest.raises(OmniCacheError, match="has none"):
        desk("emoji", "deepcache_package").settings()


@pytest.mark.parametrize(
    ("model", "solvers"),
    [
        ("emoji", ("DPM-Solver++ 2M", "UniPC 3", "DEIS 2")),
        ("emoji-text", ("DPM-Solver++ 3M", "UniPC 2", "Heun")),
        ("emoji-unet", ("DPM-Solver++ 2M", "DEIS 2", "DPM2")),
        ("emoji-animate", ("EDM DPM-Solver++ 2M",)),
    ],
)
def test_a_solver_of_higher_order_comes_near_with_nearly_all_steps(desk, model, solvers):
    it = desk(model, "solvers")
    known = {one.options["solver"] for one in it.settings()}
    plain = drawn(it)
    for solver in solvers:
        assert solver in known
        made = drawn(it, {"solver": solver, "steps": STEPS})
        error = float((made - plain).pow(2).mean())
        assert 0 < error < 0.03, f"{solver}: 15 dB and more, or it is no solver for this model"


def test_fewer_steps(desk):
    it = desk("emoji", "fewer_steps")
    steps = [one.options["steps"] for one in it.settings()]
    assert steps == sorted(steps) and all(1 < k < STEPS for k in steps)
    assert not torch.equal(drawn(it, {"steps": 4}), drawn(it))


@pytest.mark.parametrize("steps", [20, 30, 50])
@pytest.mark.parametrize("shares", [fewer_steps.SHARES, higher.SHARES])
def test_no_small_number_of_steps_is_passed_over(steps, shares):
    """A rival of 5 steps is a fifth faster than one of 6."""
    tried = fewer_steps.ladder(steps, shares)
    assert tried[:9] == list(range(2, 11))
    assert max(tried) / steps >= 0.8 and all(b - a <= max(1, 0.22 * steps) for a, b in pairwise(tried))


def test_published_methods_need_no_calibration(desk):
    it = desk("emoji", "omnicache_methods")
    settings = it.settings()
    assert {"taylorseer", "dbcache", "first-block-cache"} <= {one.options["method"] for one in settings}
    chosen = next(one for one in settings if one.options["method"] == "taylorseer")
    assert not torch.equal(drawn(it, chosen.options), drawn(it))
