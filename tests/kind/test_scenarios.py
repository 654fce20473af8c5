"""The end-to-end scenarios that are skipped on kind are there."""

import ast
import importlib.util
from pathlib import Path
from typing import Any

E2E = Path(__file__).resolve().parents[2] / "e2e"


def settings() -> Any:
    specification = importlib.util.spec_from_file_location("end_to_end_settings", E2E / "conftest.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def test_each_names_a_test_and_has_a_reason_unless_it_is_an_exception() -> None:
    skipped = settings().NOT_ON_KIND
    for key, reason in skipped.items():
        file, _, test = key.partition("::")
        defined = {
            node.name
            for node in ast.parse((E2E / file).read_text()).body
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert not test or test in defined, key
        assert reason or file in skipped, key
