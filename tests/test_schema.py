"""One check for options of methods, fields of values and plan files: what is taken as it is, what is converted, what is refused."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import pytest

import omnicache
from omnicache.calibrate.trajectory import calibrate_trajectory
from omnicache.correctors import NoiseCorrection
from omnicache.errors import OmniCacheError
from omnicache.granularity import Stack
from omnicache.methods.speca import speca
from omnicache.methods.taylorseer import taylorseer
from omnicache.plan import Plan
from omnicache.policy import VALUES, Corrector, Policy, value
from omnicache.predictors import Hold, Taylor
from omnicache.registry import check_options
from omnicache.schema import Choice, Misfit, Range, fit, words
from omnicache.selectors import TokenScores
from omnicache.signals import LatentChange
from omnicache.triggers import Accumulate, Between, Every, First, PowerLaw, Ramp, Table, Verify

# --- one value, one annotation


@pytest.mark.parametrize(
    ("given", "hint", "made"),
    [
        (3, int, 3),
        (3.0, int, 3),
        (3, float, 3),
        (math.inf, float, math.inf),
        (None, int | None, None),
        (2.0, int | None, 2),
        (2.0, int | float, 2.0),
        (None, Annotated[float | None, Range(1)], None),
        ([1, 2.5], tuple[float, ...], (1, 2.5)),
        ([1.0, "a"], tuple[int, str], (1, "a")),
        ([[1], [2]], tuple[tuple[int, ...], ...], ((1,), (2,))),
        ([], tuple[int, ...], ()),
        ("a", Literal["a", "b"], "a"),
        (object, Any, object),
        ({"a": 1}, dict[str, int], {"a": 1}),
    ],
)
def test_what_fits(given, hint, made):
    found = fit(given, hint)
    assert found == made
    assert type(found) is type(made)
    if isinstance(made, tuple):
        assert [type(f) for f in found] == [type(m) for m in made]


@pytest.mark.parametrize(
    ("given", "hint", "said"),
    [
        (2.5, int, "a whole number is needed, not 2.5"),
        (math.inf, int, "a whole number is needed, not inf"),
        (True, int, "a number is needed, not True"),
        (False, float, "a number is needed, not False"),
        (math.nan, float, "a number is needed, not nan"),
        ("no", bool, "True or False is needed, not 'no'"),
        (1, bool, "True or False is needed, not 1"),
        (3, str, "a word is needed, not 3"),
        ("x", float | None, "a number is needed, not 'x'"),
        ("x", int | bool, "a whole number or True or False is needed, not 'x'"),
        ("abc", tuple[float, ...], "a list is needed, not 'abc'"),
        (0.5, tuple[float, ...], "a list is needed, not 0.5"),
        ([1, None], tuple[float, ...], "a number is needed, not None"),
        ([1], tuple[int, int], "a list of 2 is needed, not one of 1"),
        (7, Annotated[int, Range(1, 6)], "7 is outside [1, 6]"),
        (["l1"], Annotated[str, Choice(("l1", "l2"))], "['l1'] is none of 'l1', 'l2'"),
        ("SIGMA", Annotated[str, Choice(("step", "sigma"))], "'SIGMA' is none of 'step', 'sigma'. Did you mean 'sigma'?"),
        ("c", Literal["a", "b"], "'c' is none of 'a', 'b'"),
        (First, Every, f"an Every is needed, not {First!r}"),
        (Every, Every, f"an Every is needed, not {Every!r}. Write Every()"),
    ],
)
def test_what_does_not(given, hint, said):
    with pytest.raises(Misfit) as no:
        fit(given, hint)
    assert str(no.value) == said


def test_what_is_wanted_in_words():
    assert words(Annotated[int | None, Range(1)]) == "a whole number or None"
    assert words(tuple[int, ...]) == "a list"


# --- options of methods


@pytest.mark.parametrize(
    ("method", "options", "made"),
    [
        ("taylorseer", {"order": 1.0}, 1),
        ("deepcache", {"branch": 1.0}, 1),
        ("fora", {"interval": 4.0}, 4),
        ("teacache", {"coefficients": [2, 0.5]}, (2, 0.5)),
    ],
)
def test_an_option_is_what_its_annotation_says(method, options, made):
    plan = omnicache.methods()[method].plan(**options)
    (name,) = options
    assert plan.options[name] == made
    assert type(plan.options[name]) is type(made)
    assert hash(plan.policies) is not None
    assert Plan.from_json(plan.to_json()) == plan


@pytest.mark.parametrize(
    ("method", "options", "said"),
    [
        ("teacache", {"coefficients": "abc"}, "teacache: option coefficients: a list is needed, not 'abc'."),
        ("teacache", {"coefficients": 0.5}, "teacache: option coefficients: a list is needed, not 0.5."),
        ("teacache", {"coefficients": ()}, "option coefficients: at least one is needed"),
        ("teacache", {"threshold": math.nan}, "teacache: option threshold: a number is needed, not nan"),
        ("speca", {"redo": "no"}, "speca: option redo: True or False is needed, not 'no'."),
        ("omnicache-trajectory", {"schedule": "##.#", "gamma": (0.5,)}, "option gamma: 1 numbers do not fit a schedule of 4 steps"),
        ("omnicache-trajectory", {"schedule": "##.#", "gamma": (None, None, "x", None)}, "a number is needed, not 'x'"),
        ("fora", {"count": "dwn"}, r"'dwn' is none of 'down', 'up'\. Did you mean 'down'\?$"),
    ],
)
def test_an_option_that_does_not_fit_is_refused(method, options, said):
    with pytest.raises(OmniCacheError, match=said):
        omnicache.methods()[method].plan(**options)


def test_a_method_that_is_called_directly_is_checked_too():
    assert taylorseer(4.0, order=2.0) == taylorseer(interval=4, order=2)
    with pytest.raises(OmniCacheError, match="True or False is needed"):
        speca(redo="no")
    with pytest.raises(TypeError, match="too many positional arguments"):
        speca(*range(20))


def test_options_of_a_calibration_are_held_to_their_annotations():
    assert check_options("it", calibrate_trajectory, {"probes": 2.0, "frames": True}) == {"probes": 2, "frames": True}
    with pytest.raises(OmniCacheError, match="it: option correct: True or False is needed, not 1"):
        check_options("it", calibrate_trajectory, {"correct": 1})


# --- fields of values


CHANGE = LatentChange()


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Every(2.5), "Every: option interval: a whole number is needed, not 2.5."),
        (lambda: Every(0), r"Every: option interval: 0 is outside \[1, inf\]"),
        (lambda: Every(3, phase="0"), "Every: option phase: a number is needed"),
        (lambda: First(-1), r"First: option count: -1 is outside"),
        (lambda: Taylor(axis="sigmas"), r"Taylor: option axis: 'sigmas' is none of 'step', 'sigma'\. Did you mean 'sigma'\?$"),
        (lambda: Taylor(basis="lagrange"), "Taylor: option basis"),
        (lambda: Taylor(-1), r"Taylor: option order: -1 is outside \[0, inf\]"),
        (lambda: Hold(0), "Hold: option keep"),
        (lambda: Accumulate(CHANGE, 0.1, ()), "Accumulate: option coefficients: at least one is needed"),
        (lambda: Accumulate(0.1, 0.1), "Accumulate: option signal: a Signal is needed, not 0.1"),
        (lambda: Ramp(dense=0), "Ramp: option dense"),
        (lambda: Verify(decay=2.0), "Verify: option decay"),
        (lambda: Verify(redo="no"), "Verify: option redo"),
        (lambda: PowerLaw(power=1.0), "PowerLaw: option power"),
        (lambda: NoiseCorrection((0.5,), mask="gauss"), "Did you mean 'gaussian'"),
        (lambda: NoiseCorrection((0.5,), channels=0), "NoiseCorrection: option channels"),
        (lambda: TokenScores(cell=0), "TokenScores: option cell"),
        (lambda: First(1) | 3, "Or: option b: a Trigger is needed, not 3"),
        (lambda: Policy(Every, Stack()), r"Policy: option when: a Trigger is needed.* Write Every\(\)\."),
        (lambda: Policy(Every(2), None), "Policy: option where: a Where is needed, not None"),
        (lambda: Plan("mine", 3), "Plan: option policies: a list is needed"),
        (lambda: Plan("mine", steps="all"), "Plan: option steps: a number is needed, not 'all'"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_when_it_is_made(make, said):
    with pytest.raises(OmniCacheError, match=said):
        make()


def test_what_can_be_converted_is():
    assert Every(3.0) == Every(3)
    assert type(Every(3.0).interval) is int
    trigger = Accumulate(CHANGE, 0.1, [1.0, 0.0])
    assert trigger == Accumulate(CHANGE, 0.1, (1.0, 0.0))
    assert hash(trigger) == hash(Accumulate(CHANGE, 0.1, (1.0, 0.0)))
    assert Plan("mine", [Policy(Every(2), Stack())]).policies == (Policy(Every(2), Stack()),)


def test_a_value_of_ones_own_is_checked_before_its_own_check():
    class Mine(Every):
        share: Annotated[float, Range(0, 1)] = 0.5

        def __post_init__(self) -> None:
            if self.share * self.interval > 2:
                raise OmniCacheError("too much")

    Mine.__annotations__ = {"share": Annotated[float, Range(0, 1)]}
    mine: Any = value(Mine)
    try:
        assert mine(4.0).interval == 4
        with pytest.raises(OmniCacheError, match="Mine: option share: a number is needed, not 'x'"):
            mine(4, share="x")
        with pytest.raises(OmniCacheError, match="too much"):
            mine(9, share=1)
    finally:
        VALUES.pop("Mine")


def test_a_file_is_held_to_the_same():
    data = Plan("mine", (Policy(Table("#.#"), Stack(), Taylor(1)),)).to_json()
    data["policies"][0]["how"]["axis"] = "sigmas"
    with pytest.raises(OmniCacheError, match=r"is damaged: .*option axis: 'sigmas' is none of.*Calibrate again"):
        Plan.from_json(data)
    data["policies"][0]["how"] |= {"axis": "sigma", "order": 2.0}
    assert Plan.from_json(data).policies[0].how == Taylor(2, axis="sigma")


# --- plans whose parts do not go together


def test_a_rehearsing_corrector_needs_a_trigger_that_decides_beforehand():
    fix = NoiseCorrection((None, 0.5, None))
    with pytest.raises(OmniCacheError, match=r"mine: NoiseCorrection rehearses a step before it runs.*Every\(2\) or Table"):
        Plan("mine", (Policy(First(1) | Accumulate(CHANGE, 0.1), Stack(), fix=fix),))

    class Plain(Corrector):
        pass

    Plan("mine", (Policy(First(1) | Accumulate(CHANGE, 0.1), Stack(), fix=Plain()),))
    Plan("mine", (Policy(Verify(), Stack(), fix=fix),))


def test_between_never_stands_for_nothing():
    with pytest.raises(OmniCacheError, match=r"Between\(0.6, 0.4\) has no step in it"):
        Between(0.6, 0.4)
    with pytest.raises(OmniCacheError, match=r"1.5 is neither an index nor a share"):
        Between(1.5)
    assert Between(5.0, 10.0) == Between(5, 10)
