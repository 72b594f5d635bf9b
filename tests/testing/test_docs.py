"""docs/test-your-allocator.md: its examples fail as it says, with the output that it shows."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "test-your-allocator.md"
TEXT = PAGE.read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: (.+?) -->\n```python\n(.*?)```", TEXT, re.DOTALL))
OUTPUTS = dict(re.findall(r"<!-- output: (.+?) -->\n```\n(.*?)```", TEXT, re.DOTALL))


def test_every_example_of_the_page_is_tested_here() -> None:
    assert set(EXAMPLES) == set(OUTPUTS) == {"allocator", "policy"}
    assert TEXT.count("```python") == len(EXAMPLES)


@pytest.mark.parametrize("name", sorted(EXAMPLES))
def test_an_example_fails_with_the_counterexample_shown(name: str, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(EXAMPLES[name])
    done = subprocess.run(
        [sys.executable, "mine.py"], capture_output=True, text=True, timeout=300, cwd=tmp_path
    )
    assert done.returncode == 1
    shown = done.stderr[done.stderr.index("Violation: ") + len("Violation: ") :]
    assert shown.replace(f"{tmp_path}/", "").strip() == OUTPUTS[name].strip()
