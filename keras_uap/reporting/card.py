"""What a model card says of an audit: a block of Markdown, and JSON.

Names may hold anything. All characters that mean something in Markdown or HTML
are escaped.
"""

import datetime
import json
import pathlib
import re

from keras_uap.reporting import html
from keras_uap.utils.formatting import images_of, interval, percent
from keras_uap.utils.saving import atomic_path
from keras_uap.visualization.style import unit

# Fields that a card has in common with the audit.
FIELDS = (
    *("fooling_rate", "fooling_interval", "random_rate", "survival"),
    *("num_fit", "num_select", "num_images", "num_groups"),
    *("budget", "passes", "passes_to_half", "warnings"),
)
_THREAT = (
    "One perturbation is added to every input. Whoever makes it knows the "
    "classifier, but no labels."
)


def card_of(audit, command=None):
    """Returns the fields of the card of an `Audit`; see `Audit.save_card`."""
    values = audit.to_dict()
    names = "classifier", "norm", "epsilon", "value_range", "seed"
    card = {name: values["card"][name] for name in names}
    if command is None:
        command = (
            "keras_uap.audit(classifier, images, epsilon={epsilon:g}, "
            "norm={norm!r}, value_range={value_range}, budget={budget!r}, "
            "seed={seed})"
        ).format(**card, budget=audit.budget)
    return card | {
        "threat_model": _THREAT,
        **{name: values[name] for name in FIELDS},
        "command": shown(command),
        "versions": html.versions(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def write_card(path, audit, command=None):
    """Writes the files of `Audit.save_card`."""
    import jinja2  # It takes a while to import.

    path = pathlib.Path(path)
    if path.suffix != ".md":
        raise ValueError(f"The card must end in .md. Received: {path}.")
    card = card_of(audit, command)
    template = (html.TEMPLATES / "card.md.j2").read_text(encoding="utf-8")
    helpers = (percent, interval, images_of, escaped, unit)
    text = jinja2.Template(template, trim_blocks=True).render(
        card=card,
        half=audit.half(),
        **{helper.__name__: helper for helper in helpers},
    )
    values = json.dumps(card, indent=2, allow_nan=False)
    for file, content in ((path, text), (path.with_suffix(".json"), values)):
        with atomic_path(file) as unfinished:
            unfinished.write_text(content.rstrip() + "\n", encoding="utf-8")


def shown(text):
    """A text in one line, without control characters."""
    text = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(text.split())


def escaped(text):
    """A text in one line, without meaning in Markdown or HTML."""
    return re.sub(r"([\\`*_\[\]<>|~&$@#!]|:(?=/))", r"\\\1", shown(text))
