from __future__ import annotations

from omnicache.calibrate import progress as module


def test_without_a_terminal_a_long_wait_tells_how_far_it_is(monkeypatch, capsys):
    """A calibration of ten minutes whose output went to a file was taken for one that hangs."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    with module.progress("layer by layer", 10) as done:
        for _ in range(10):
            now[0] += 20.0
            done()
    assert capsys.readouterr().err.splitlines() == [
        "layer by layer: 2 of 10, about 3 min left",
        "layer by layer: 4 of 10, about 2 min left",
        "layer by layer: 6 of 10, about 80 s left",
        "layer by layer: 8 of 10, about 40 s left",
    ]


def test_nothing_is_told_when_nobody_asked(monkeypatch, capsys):
    monkeypatch.setattr(module, "EVERY", 0.0)
    with module.progress("layer by layer", 3, show=False) as done:
        done()
        done()
    assert capsys.readouterr() == ("", "")
