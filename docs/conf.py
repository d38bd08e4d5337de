"""How the site is built: `sphinx-build -W -n docs build/docs`.

The docstrings are Keras' kind, Markdown inside Google sections. Sphinx'
autodoc and napoleon read reStructuredText, so `reference.py` has Griffe take
the sections apart and writes Markdown, which MyST renders as it stands.
"""

import os
import pathlib
import shutil
import sys

import sphinx.addnodes
from docutils import nodes
from sphinx.transforms import SphinxTransform

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE.parent))
os.environ["PATH"] = os.pathsep.join(
    [str(pathlib.Path(sys.executable).parent), os.environ["PATH"]]
)
os.environ["PYTHONPATH"] = str(HERE.parent)
# What `--help` is printed with.
os.environ["COLUMNS"] = "80"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import reference  # noqa: E402
import schema  # noqa: E402

import keras_uap  # noqa: E402

project = "keras_uap"
author = "The keras_uap developers"
copyright = author
version = release = keras_uap.__version__

extensions = [
    "myst_nb",
    "sphinx.ext.viewcode",
    "sphinxcontrib.programoutput",
]
myst_enable_extensions = ["fieldlist", "colon_fence"]
toc_object_entries_show_parents = "hide"
myst_heading_anchors = 3
# Notebooks are shown as they were run, with their stored outputs.
nb_execution_mode = "off"
nb_merge_streams = True
exclude_patterns = ["_build"]
# Inventories of other projects would need the network.
nitpick_ignore_regex = [("py:exc", r"[A-Z]\w+")]
programoutput_use_ansi = False

html_theme = "furo"
html_title = f"keras_uap {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_theme_options = {"source_directory": "docs/"}


def write_pages(app):
    """Writes the reference, and copies the notebooks beside the pages."""
    folder = HERE / "reference"
    folder.mkdir(exist_ok=True)
    for name, text in reference.pages().items():
        _write(folder / name, text)
    _write(folder / "results.schema.json", schema.text())
    folder = HERE / "notebooks"
    folder.mkdir(exist_ok=True)
    for path in (HERE.parent / "notebooks").iterdir():
        if path.suffix in (".ipynb", ".png"):
            shutil.copy2(path, folder / path.name)


def _write(path, text):
    # What has not changed is not built anew.
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        path.write_text(text, encoding="utf-8")


def mend_links(app, name, source):
    """Links that lead out of `docs/` lead to the copies, or to the files.

    In the repository `../notebooks/` and `../docs/` are right, on the site the
    notebooks lie below the pages.
    """
    text = source[0].replace("](../notebooks/", "](notebooks/")
    source[0] = text.replace("](../docs/", "](../")


class NamesAsLinks(SphinxTransform):
    """A public name in code type links to its place in the reference.

    Not on the page of the command line, where `audit` is a command.
    """

    default_priority = 500

    def apply(self):
        names = _names()
        here = self.document.settings.env.docname
        if here == "command_line":
            return
        for literal in list(self.document.findall(nodes.literal)):
            text = literal.astext().partition("(")[0]
            inside = literal.parent
            while inside is not None and not isinstance(
                inside, nodes.reference | sphinx.addnodes.pending_xref
            ):
                inside = inside.parent
            # Names of attributes are in the role `code`.
            if text not in names or inside is not None or literal["classes"]:
                continue
            link = sphinx.addnodes.pending_xref(
                "",
                refdomain="py",
                reftype="obj",
                reftarget=names[text],
                refdoc=here,
                refwarn=True,
            )
            literal.replace_self(link)
            link += literal


def _names():
    """What a text may call a public name, and its place."""
    names = {}
    for module in reversed(reference.MODULES):
        for name in reference.public_names(sys.modules[module]):
            path = f"{module}.{name}"
            names[path] = path
            names[path.removeprefix("keras_uap.")] = path
    for module, name, cls in reference.returned():
        names[name] = path = f"{module.__name__}.{name}"
        for member in reference.public_members(cls):
            names[f"{name}.{member}"] = f"{path}.{member}"
    return names


def setup(app):
    app.connect("builder-inited", write_pages)
    app.connect("source-read", mend_links)
    app.add_transform(NamesAsLinks)
