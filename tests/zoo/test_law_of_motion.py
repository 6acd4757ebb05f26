"""The laws that the videos of the zoo obey, and the tracker that finds them in pixels."""

import math

import pytest
import torch

from training.motion.law import FRAMES, MOTIONS, law

FRAME = torch.arange(FRAMES, dtype=torch.float64)


@pytest.mark.parametrize("motion", MOTIONS)
def test_frame_0_is_the_pose_that_all_others_are_told_against(motion):
    assert [float(part) for part in law(motion, 0)] == [0, 0, 0, 1]


@pytest.mark.parametrize("motion", MOTIONS)
def test_sixteen_frames_later_all_is_as_before_but_for_a_whole_turn(motion):
    now, later = law(motion, FRAME), law(motion, FRAME + FRAMES)
    whole = 2 * math.pi if motion == "spinning" else 0.0
    assert torch.allclose(later.turn, now.turn + whole, atol=1e-12)
    for part in ("right", "down", "size"):
        assert torch.allclose(getattr(later, part), getattr(now, part), atol=1e-12)


def test_moving_swings_right_then_left():
    right = law("moving", FRAME).right
    assert right[4] == pytest.approx(0.18) and right[12] == pytest.approx(-0.18) and abs(right[8]) < 1e-12
    assert torch.allclose(right[1:], -right.flip(0)[:-1], atol=1e-12)


def test_spinning_turns_evenly_and_clockwise():
    assert torch.allclose(law("spinning", FRAME).turn.diff(), torch.full((15,), math.pi / 8, dtype=torch.float64))


def test_growing_is_largest_in_the_middle():
    size = law("growing", FRAME).size
    assert int(size.argmax()) == 8 and size[8] == pytest.approx(1.6)
    assert torch.allclose(size[1:], size.flip(0)[:-1], atol=1e-12)


def test_bouncing_falls_as_a_stone_does():
    down = law("bouncing", FRAME).down
    assert down[4] == down[12] == pytest.approx(-0.28) and down[8] == 0
    for flight in (down[:9], torch.cat([down[8:], down[:1]])):
        assert torch.allclose(flight.diff().diff(), torch.full((7,), 8 * 0.28 / 64, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("motion", MOTIONS)
def test_only_what_the_motion_names_changes(motion):
    pose = law(motion, FRAME)
    still = {"moving": "right", "spinning": "turn", "growing": "size", "bouncing": "down"}
    changed = [part for part in pose._fields if getattr(pose, part).std() > 0]
    assert changed == [still[motion]]


def test_an_unknown_motion_is_refused_by_name():
    with pytest.raises(ValueError, match="'rolling'; there are moving"):
        law("rolling", 0)


def test_the_tracker_finds_the_law_in_pixels():
    data = pytest.importorskip("training.motion.data")
    if not data_is_there():
        pytest.skip("the font or the names of emoji are not installed")
    prompt = torch.tensor([data.PROMPTS.index(f"frog {motion}") for motion in MOTIONS])
    clips, poses = data.draw(data.sheet(), prompt, g=torch.Generator().manual_seed(0))
    for clip, pose, motion in zip(clips, poses, MOTIONS, strict=True):
        found = data.track(clip / 2 + 0.5)
        assert (found[:, :2] - pose[:, :2]).norm(dim=1).max() < 0.02
        off = data.against_law(found, motion)
        assert off["centre"].max() < 0.02 and off["turn"].max() < 0.06 and off["size"].max() < 0.04


@pytest.mark.parametrize("count", [4, 6, 8, 12, 16, 24])
def test_prompts_taken_evenly_have_all_motions_and_many_nouns(count):
    data = pytest.importorskip("training.motion.data")
    if not data_is_there():
        pytest.skip("the font or the names of emoji are not installed")
    prompts = list(data.judged())
    assert sorted(prompts) == sorted(data.PROMPTS)
    taken = [prompts[i * len(prompts) // count].split() for i in range(count)]
    assert {motion for _, motion in taken} == set(MOTIONS)
    assert len({noun for noun, _ in taken}) >= min(count, 8) * 2 // 3


def data_is_there() -> bool:
    from training.emoji.data import FONT, NAMES

    return FONT.exists() and NAMES.exists()
