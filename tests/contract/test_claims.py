"""The table of docs/security.md against the tests it names."""

import ast

import pytest

from tests.claims import ROOT, claimed


def test_the_page_names_tests() -> None:
    """A page whose table nobody finds would prove nothing."""
    assert len(set(claimed())) > 40


@pytest.mark.parametrize("named", sorted(set(claimed())))
def test_each_named_test_exists(named: str) -> None:
    """A claim whose test was renamed or removed is only a sentence."""
    path, _, name = named.partition("::")
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    assert name in {node.name for node in tree.body if isinstance(node, functions)}
