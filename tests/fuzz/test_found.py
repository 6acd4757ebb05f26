"""What the fuzz has found, as small as it would go: one test a bug."""

from __future__ import annotations

import torch
from tests.fuzz.models import Real, Toy, model_of
from tests.fuzz.oracle import check, counted, drawn
from tests.fuzz.worlds import Act, Case, Pipe, Run

import omnicache
from omnicache.correctors import NoiseCorrection
from omnicache.granularity import MLP, Attention, Block, Denoiser, Stack
from omnicache.plan import Plan
from omnicache.policy import Policy
from omnicache.predictors import Hold, Residual
from omnicache.selectors import TokenScores
from omnicache.signals import ModulatedInputChange
from omnicache.triggers import Accumulate, Every, First, Verify

STACK = (Policy(Every(2), Stack(), Residual(Hold())),)


def test_blocks_that_return_a_dataclass_are_cached_and_counted() -> None:
    """Nothing could see into it, so it was never reused, and the tensors in it were kept along with its form, uncounted."""
    assert check(Case(Toy(returns="record"), plan=STACK)) == "reused"
    assert check(Case(Toy(returns="record", streams="two"), plan=STACK)) == "reused"


def test_an_output_that_nothing_can_see_into_is_not_kept() -> None:
    assert check(Case(Toy(returns="object"), plan=STACK, laws=("frees",))) == "computed"


def test_rows_of_one_class_with_one_stream_and_with_two() -> None:
    """Which argument a block continues was known by its class alone: the second row was handed the first one's streams."""
    assert check(Case(Toy(streams="both", parts=False, keywords=True), plan=STACK)) == "reused"
    assert check(Case(Toy(streams="both", returns="list"), plan=(Policy(Every(2), Stack(), Hold()),))) == "reused"


def test_rows_are_chosen_only_where_each_is_worked_on_alone() -> None:
    """Of an attention, or of the whole model, some rows were computed as if the others were not there."""
    for where in (Attention(), Denoiser()):
        case = Case(Real("dit"), plan=(Policy(Every(2), where, Hold(), which=TokenScores(0.5)),))
        with torch.no_grad():
            _, run = drawn(case, case.made(), Run())
        assert "they look at each other" in str(run.trace)
        assert not any(r.partial for r in run.trace.records)
    with torch.no_grad():
        _, run = drawn(case, Plan("rows", (Policy(Every(2), MLP(), Hold(), which=TokenScores(0.5)),)), Run())
    assert any(r.partial for r in run.trace.records)


def test_a_check_of_an_output_that_nothing_can_see_into() -> None:
    """The error of no tensors was asked for, and that raised."""
    verify = Policy(Verify(0.5, shortest=1), MLP(), Hold())
    assert check(Case(Toy(returns="object"), plan=(verify,))) == "reused"


def test_a_block_that_writes_to_its_input_is_checked_and_looked_at_on_copies() -> None:
    """It was run once more on what it had written to already, and so was all that came after it."""
    assert check(Case(Toy(writes="its input"), plan=(Policy(Verify(0.5, shortest=1), Block(0), Hold()),))) == "reused"
    accumulate = First(2) | Accumulate(ModulatedInputChange(), 5.0)
    assert check(Case(Toy(writes="its input at once"), plan=(Policy(accumulate, MLP(), Hold()),))) == "reused"


def test_sites_inside_a_row_that_runs_twice_know_their_turn() -> None:
    """Where the row's first turn is reused and its second is not, the attentions of the second take the values of the first."""
    case = Case(Toy(layers=2, twice=True, writes="after the blocks"), plan=(Policy(First(0), Stack() | Attention(), Hold()),))
    assert check(case) == "reused"


def test_the_first_step_is_not_rehearsed() -> None:
    """A reuse at step 1 wants a rehearsal at step 0, where there is nothing yet to rehearse with: the model ran twice, unsaid."""
    case = Case(Toy(), plan=(Policy(Every(2), Stack(), Residual(Hold()), fix=NoiseCorrection((None, 0.3) * 3)),))
    with torch.no_grad(), omnicache.cache(pipe := Pipe(case), case.made()) as run, counted(pipe.transformer) as calls:
        pipe(Run())
    assert [r.rehearsals for r in run.trace.records] == [0, 0, 1, 0, 1, 0]
    assert calls[pipe.transformer] == 6 + 2


def test_a_bare_loop_after_an_image_to_image_run() -> None:
    """A run that begins late takes fewer steps than its scheduler lists, and was waited for when it had long been over: the first
    step of a loop that no pipeline runs was taken for its next one."""
    case = Case(Toy(), plan="fora", acts=(Act("run", Run(steps=5, start=1)), Act("bare", Run(steps=5))), laws=())
    assert check(case) == "reused"


def test_a_bare_loop_after_cancelled_requests() -> None:
    """The scheduler of a cancelled request stood at its second step, and the bare loop's first was taken for that one."""
    acts = (Act("requests", Run(steps=5, cancelled=1)), Act("bare", Run(steps=5)))
    assert check(Case(Toy(), plan=(Policy(First(0), Stack(), Hold()),), acts=acts)) == "reused"
    assert check(Case(Toy(), plan=STACK, acts=(Act("requests", Run(steps=5, cancelled=2)), Act("bare", Run(steps=8))))) == "reused"
    # Its first step may even be the very one that the cancelled run would have made next; but that one's pipeline is not at work.
    acts = (Act("run", Run(steps=5, cancelled=1)), Act("bare", Run(steps=5, start=1)))
    assert check(Case(Toy(), plan=STACK, acts=acts)) == "reused"


def test_a_step_that_is_evaluated_anew_is_looked_at_too() -> None:
    """A failed check freed the denoiser, and the row inside it was reused for the first time then: its proof was the picture."""
    redo = Policy(Verify(0.0, redo=True, shortest=0, longest=1, check=Block(-1)), Denoiser(), Hold())
    assert check(Case(Toy(reads="the first block"), plan=(Policy(First(0), Stack(), Hold()), redo))) == "reused"


def test_blocks_that_write_to_what_others_hold_are_computed() -> None:
    """The first block's output is the very tensor that the second writes to, and somebody reads it at the end."""
    plan = (Policy(First(0), Stack(), Residual(Hold())),)
    assert check(Case(Toy(writes="its input", reads="the first block"), plan=plan)) == "computed"
    assert check(Case(Toy(writes="its input"), plan=plan)) == "reused"


def test_several_runs_of_a_model_around_one_another() -> None:
    """The laws that other tests ask of well-behaved runs, of one that is cancelled, resumed elsewhere and interleaved."""
    acts = (Act("run", Run(cancelled=2)), Act("requests"), Act("other pipeline", Run(batch=2)), Act("new scheduler"), Act("anew"))
    assert check(Case(Toy(), plan=STACK, acts=acts)) == "reused"
    assert not [n for n, m in model_of(Toy()).named_modules() if m._forward_pre_hooks]
