"""Peers are the comparison's affair: the package never needs them."""

from __future__ import annotations

import ast
from pathlib import Path

import omnicache

ROOT = Path(omnicache.__file__).parent
PEERS = {"cache_dit", "DeepCache", "tomesd"}


def imported(tree: ast.AST) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {one.name.partition(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


def test_peers_are_imported_by_their_own_file_alone_and_inside_functions():
    for path in ROOT.rglob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        here = imported(tree) & PEERS
        assert not here or path.parent == ROOT / "measure" / "peers", path
        assert len(here) <= 1, path
        atop = [node for node in tree.body if isinstance(node, (ast.Import, ast.ImportFrom))]
        assert not any(imported(node) & PEERS for node in atop), f"{path}: only when it is asked for"


def test_no_other_part_of_the_package_uses_the_comparison():
    users = [path for path in ROOT.rglob("*.py") if "omnicache.measure.peers" in path.read_text(encoding="utf-8")]
    assert {str(path.relative_to(ROOT)) for path in users if path.parent != ROOT / "measure" / "peers"} == {"cli/bench_peers.py"}
