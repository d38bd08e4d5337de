"""What the README shows runs as it stands there."""

import pathlib
import re

import pytest

README = pathlib.Path(__file__).parents[1] / "README.md"


@pytest.mark.slow
def test_python_runs_when_pasted():
    text = README.read_text(encoding="utf-8")
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["v"].shape == (224, 224, 3)
    attacked = names["attacked"].predict(names["held_out"], verbose=0)
    clean = names["classifier"].predict(names["held_out"], verbose=0)
    # Random signs fool 12 % of them.
    assert (attacked.argmax(-1) != clean.argmax(-1)).mean() > 0.3


def test_links_lead_somewhere():
    pages = [README, *README.parent.glob("docs/*.md")]
    for page in pages:
        for link in re.findall(r"\]\(([^)#:]+)\)", page.read_text("utf-8")):
            assert (page.parent / link).exists(), f"{page.name}: {link}"
