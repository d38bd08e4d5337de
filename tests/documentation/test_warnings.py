"""The page of warnings has every warning of the code, and no other.

The errors that the page on troubleshooting explains are in the code, too.
"""

import ast
import pathlib
import re

ROOT = pathlib.Path(__file__).parents[2]


def template(node):
    """The text of a string or f-string, `…` for what varies, or ""."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if not isinstance(node, ast.JoinedStr):
        return ""
    return "".join(
        part.value if isinstance(part, ast.Constant) else "…"
        for part in node.values
    )


def strings(tree):
    """The templates in a tree, outermost ones alone, without docstrings."""
    if isinstance(tree, ast.Expr) and isinstance(tree.value, ast.Constant):
        return
    text = template(tree)
    if text:
        yield text
        return
    for child in ast.iter_child_nodes(tree):
        yield from strings(child)


def invalid_arguments(tree):
    """What `validation.invalid` begins with, by the calls in a tree."""
    assigned = [node for node in ast.walk(tree) if isinstance(node, ast.Assign)]
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        if ast.unparse(call.func) not in ("invalid", "validation.invalid"):
            continue
        name, expected = call.args[:2]
        for node in sorted(assigned, key=lambda node: node.lineno):
            same = ast.unparse(node.targets[0]) == ast.unparse(call.args[1])
            if same and node.lineno < call.lineno:
                expected = node.value
        yield f"{template(name)} must be {template(expected)}"


def warnings_of(path):
    """What is passed to `warn`, named a warning or made by a function so named.

    A function may be called `..._warnings` or `warnings_of`, a name `warning`
    or `TOO_FEW`. There sentences count, which end with a full stop.
    """
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            if ast.unparse(node.func) == "warnings.warn":
                yield from strings(node.args[0])
        elif (
            isinstance(node, ast.FunctionDef) and "warnings" in node.name
        ) or (
            isinstance(node, ast.Assign)
            and ast.unparse(node.targets[0]) in ("warning", "TOO_FEW")
        ):
            parts = node.body if hasattr(node, "body") else [node.value]
            for part in parts:
                yield from (t for t in strings(part) if t.endswith("."))


def rows(page="warnings.md", after="# Warnings"):
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    cells = re.findall(r"^\| (\w.+?|….+?) \|", text.partition(after)[2], re.M)
    return [
        cell for cell in cells if cell not in ("warning", "message begins with")
    ]


def test_each_warning_has_a_row_and_each_row_a_warning():
    package = (ROOT / "keras_uap").rglob("*.py")
    found = [text for path in package for text in warnings_of(path)]
    assert len(found) > 10
    begun = [[row for row in rows() if is_begun(text, row)] for text in found]
    missing = [text for text, row in zip(found, begun) if not row]
    assert missing == []
    known = {row for each in begun for row in each}
    assert [row for row in rows() if row not in known] == []


def is_begun(text, row):
    parts = [re.escape(part) for part in row.split("…")]
    return re.match(".*".join(parts), text, re.S) is not None


def test_errors_that_are_explained_exist():
    package = (ROOT / "keras_uap").rglob("*.py")
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in package]
    found = [
        text
        for tree in trees
        for text in [*strings(tree), *invalid_arguments(tree)]
    ]
    explained = rows("troubleshooting.md", after="## Errors")
    assert len(explained) > 5
    for row in explained:
        assert any(is_begun(text, row) for text in found), row
