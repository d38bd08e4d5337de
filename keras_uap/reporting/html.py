"""A result as one page of HTML in one file.

Images, style and script are inside the file, and its content security policy
forbids the browser to load anything else. The predictions are made beforehand,
so the slider for the strength only changes which image and text are shown. All
text is escaped by Jinja: names of classes and files may hold anything.

This module collects the contents of the page as plain values; `templates/`
holds its layout.
"""

import base64
import datetime
import hashlib
import io
import pathlib
import platform

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_uap.perturbations.pixels import apply_perturbation
from keras_uap.utils.formatting import images_of
from keras_uap.utils.progress import in_words
from keras_uap.utils.saving import atomic_path
from keras_uap.version import __version__
from keras_uap.visualization import style

TEMPLATES = pathlib.Path(__file__).parent / "templates"

# Larger images are shrunk; images up to the small size are stored losslessly.
_LARGEST, _SMALL = 512, 96
# The most characters of all images of the examples together.
_MOST_CHARACTERS = 4_000_000
# Classes in the table; the others are folded away.
_CLASSES = 12
_WRONG = "Error rate by the labels"


def write_audit(path, audit, class_names=None):
    """Writes an `Audit` as a page; see `Audit.save_html`."""
    _write(path, _page_of_audit(audit, class_names))


def write_hardening(path, hardening, class_names=None):
    """Writes a `Hardening` as a page; see `Hardening.save_html`."""
    page = _page_of_audit(hardening.after, class_names)
    settings = hardening.settings
    page |= {
        "kind": "Hardening",
        "changes": hardening.rows()[2],
        "before": hardening.before.fooling_rate,
        "kept": hardening.agreement,
        "warnings": hardening.warnings,
        "values": hardening.to_dict(),
    }
    training = (
        f"{settings['epochs']} epochs of {hardening.after.num_fit} images, "
        f"robustness {settings['robustness']:g}, learning rate "
        f"{settings['learning_rate']:g}: {hardening.training_passes:,} model "
        f"passes in {in_words(hardening.training_seconds)}"
    )
    page["facts"].append(("Training", training))
    _write(path, page)


def _page_of_audit(audit, class_names):
    card, report = audit.card, audit.report
    page = _page_of(report, class_names, card["classifier"], card["epsilon"])
    twice = _row("The perturbation at twice the norm", audit.larger_rate)
    page["rates"].insert(2, twice)
    page |= {
        "kind": "Audit",
        "runs": audit.runs,
        "strongest": audit.strongest,
        "effort": audit.effort,
        "half": audit.half(),
        "survival": audit.survival,
        "context": audit.context(),
        "next_steps": audit.next_steps(),
        "warnings": audit.warnings,
        "notes": audit.notes,
        "values": audit.to_dict(),
    }
    images = (
        f"{audit.num_fit} to fit on, {audit.num_select} to select the "
        f"strongest attack on; held out: {_count(report)}; no photograph is in "
        "two parts"
    )
    search = (
        f"budget “{audit.budget}”: {len(audit.runs)} perturbations, "
        f"{audit.passes:,} model passes (forward or backward passes of one "
        f"image) in {in_words(audit.seconds)}"
    )
    seeds = ", ".join(map(str, sorted({run.seed for run in audit.runs})))
    page["facts"] += [("Images", images), ("Search", search), ("Seeds", seeds)]
    return page


def write_report(path, report, class_names=None, card=None, warnings=()):
    """Writes a `FoolingReport` as a page; see `FoolingReport.save_html`."""
    card = card or {}
    name = card.get("classifier", "the classifier")
    page = _page_of(report, class_names, name, report.ball_epsilon)
    terms = {
        "found_on": "Found on",
        "found_by": "Found by",
        "seed": "Seed of the attack",
        "stop_reason": "The fit ended",
    }
    page["facts"] += [
        ("Images", f"measured on {_count(report)}"),
        *((terms[k], str(card[k])) for k in terms if card.get(k) is not None),
    ]
    page |= {"values": report.to_dict(), "warnings": warnings}
    _write(path, page)


# What is on the page ---------------------------------------------------------


def _page_of(report, class_names, classifier, epsilon):
    """What a page of an audit and one of a report have in common."""

    def name(label):
        return style.class_name(int(label), class_names)

    classes = [
        {"name": name(c), "rate": rate, "count": count}
        for c, (rate, count) in report.per_class().items()
    ]
    return {
        "kind": "Report",
        "classifier": classifier,
        "report": report,
        "count": _count(report),
        "size": _size(report, epsilon or report.epsilon),
        "target": None if report.target is None else name(report.target),
        "rates": _rates(report, name),
        "runs": [],
        "survival": [],
        "context": [],
        "next_steps": [],
        "changes": [],
        "examples": _examples(report, name),
        "perturbation": _perturbation(report),
        "dominant": [
            {"name": name(c), "rate": share}
            for c, share in report.dominant_labels(8)
        ],
        "classes": classes[:_CLASSES],
        "more_classes": classes[_CLASSES:],
        "facts": _facts(report, epsilon),
        "software": ", ".join(map(" ".join, versions().items())),
        "date": datetime.datetime.now(datetime.UTC).date(),
        "warnings": [],
        "notes": [],
    }


def _count(report):
    return images_of(report.num_images, report.num_groups)


def _size(report, epsilon):
    """How large the perturbation is, in words."""
    unit = style.unit(report.value_range)
    if report.norm == "linf":
        return f"of at most {epsilon:.4g}{unit} in each value"
    return f"of {report.norm} norm at most {epsilon:,.4g}"


def _row(text, rate, interval=None, kind="fooled"):
    """A row with a bar; `kind` says in which colour."""
    return {"name": text, "rate": rate, "interval": interval, "kind": kind}


def _rates(report, name):
    """Rows of the table of rates."""
    rows, own = [], "The perturbation"
    if report.target_rate is not None:
        sent, own = f"Sent to {name(report.target)}", "Any other label"
        random_rate = report.target_random_rate
        rows = [
            _row(sent, report.target_rate, report.target_interval),
            _row(f"{sent}, by random noise", random_rate, kind="noise"),
        ]
    noise = report.random_rate, report.random_interval, "noise"
    rows += [
        _row(own, report.fooling_rate, report.fooling_interval),
        _row("Random noise of the same norm", *noise),
        _row("Rounded to whole grey levels", report.rounded_rate),
        _row("Without clipping to the range", report.unclipped_rate),
        _row(f"{_WRONG}, clean", report.clean_error_rate, kind="noise"),
        _row(f"{_WRONG}, perturbed", report.error_rate),
    ]
    return [row for row in rows if row["rate"] is not None]


def _facts(report, epsilon):
    """Pairs of a term and a text: how it was measured."""
    ball = f"{report.norm}, this perturbation has {report.epsilon:.4g}"
    if epsilon is not None:
        ball += f"; at most {epsilon:.4g} was allowed"
    values = "none: nothing is clipped"
    if report.value_range is not None:
        values = "{:g} to {:g}, clipped".format(*report.value_range)
    noise = "random signs" if report.norm == "linf" else "Gaussian noise"
    return [
        ("Norm", ball),
        ("Range of values", values),
        ("Fooled", "the prediction differs from the clean prediction"),
        ("Random noise", f"{noise}, of the perturbation's own norm"),
        ("Intervals", "95%; images of one photograph are not independent"),
    ]


def versions():
    """The versions of the software, by its name."""
    return {
        "keras_uap": __version__,
        "Keras": keras.__version__,
        "TensorFlow": tf.__version__,
        "NumPy": np.__version__,
        "Python": platform.python_version(),
    }


# Images ----------------------------------------------------------------------


def _examples(report, name):
    """What the slider shows, or None where the report kept no examples."""
    examples = report.examples
    if examples is None:
        return None
    rows, room = [], _MOST_CHARACTERS
    fooled = examples.labels != examples.labels[:, :1]
    for i, place in enumerate(examples.places):
        images = _strengths(report, i)
        room -= sum(map(len, images))
        if rows and room < 0:
            break
        names, sure = map(name, examples.labels[i]), examples.confidences[i]
        stops = [
            {"name": text, "confidence": float(share), "fooled": bool(changed)}
            for text, share, changed in zip(names, sure, fooled[i])
        ]
        number = int(place) + 1
        rows.append({"number": number, "images": images, "stops": stops})
    stops = [
        {
            "times": f"{strength:g}",
            "norm": f"{strength * report.epsilon:.4g}",
            "fooled": int(count),
        }
        for strength, count in zip(
            examples.strengths, fooled[: len(rows)].sum(axis=0)
        )
    ]
    return {
        "rows": rows,
        "stops": stops,
        # The perturbation as it is.
        "start": int(np.argmin(np.abs(examples.strengths - 1))),
        "is_drawn": style.is_drawn(examples.perturbation),
        "shape": " by ".join(map(str, examples.perturbation.shape)),
        "coarse": _is_coarse(examples.perturbation),
    }


def _strengths(report, i):
    """Images of one example at each strength, or an empty list."""
    examples = report.examples
    images, v = examples.images, examples.perturbation
    if not style.is_drawn(v):
        return []
    perturbed = [
        apply_perturbation(images[i], strength * v, report.value_range).numpy()
        for strength in examples.strengths
    ]
    if style.is_image(v):
        limits = float(images.min()), float(images.max())
        low, high = report.value_range or limits
        return [_image((x - low) / ((high - low) or 1.0)) for x in perturbed]
    # The lines of a signal lie in front of the clean ones.
    most = np.abs(examples.strengths[-1] * v)
    lanes = style.lanes(images - most, images + most)
    return [
        _lines(perturbed[0], lanes, style.CLEAN),
        *(_lines(x, lanes, style.FOOLED, images[i]) for x in perturbed[1:]),
    ]


def _is_coarse(v):
    """Whether an image is so small that its pixels are shown as squares."""
    return style.is_image(v) and max(v.shape[:2]) <= _SMALL


def _perturbation(report):
    """An image of the perturbation and its description, or None."""
    if report.examples is None:
        return None
    v = report.examples.perturbation
    image, scale = None, None
    if style.is_image(v):
        image = _image(style.stretch(v), exact=True)
        scale = "Stretched to the full range; grey is no change."
    elif style.is_signal(v):
        image = _lines(v, style.lanes(v, -v), style.FOOLED, np.zeros_like(v))
        scale = "Stretched to the full height; a line for each channel"
        more = v.shape[-1] > style.CHANNELS
        scale += f", the first {style.CHANNELS}." if more else "."
    return {
        "image": image,
        "scale": scale,
        "shape": " by ".join(map(str, v.shape)),
        "largest": f"{np.abs(v).max():.4g}",
        "coarse": _is_coarse(v),
    }


def _image(values, exact=False):
    """An image `(H, W, 1 or 3)` of values in 0 to 1 as an address."""
    pixels = np.round(255 * np.clip(values, 0, 1)).astype("uint8")
    image = Image.fromarray(pixels if pixels.shape[-1] == 3 else pixels[..., 0])
    exact = exact or max(image.size) <= _SMALL
    image.thumbnail((_LARGEST, _LARGEST))
    file = io.BytesIO()
    # The colours are not subsampled: perturbations are fine detail.
    jpeg = {"quality": 82, "subsampling": 0}
    kind, options = ("png", {"optimize": True}) if exact else ("jpeg", jpeg)
    image.save(file, kind, **options)
    text = base64.b64encode(file.getvalue()).decode()
    return f"data:image/{kind};base64,{text}"


def _lines(signal, lanes, color, behind=None):
    """A signal `(T, C)` as an address: a line for each channel."""
    height = max(150, 40 * len(lanes.offsets))

    def lines(values, color, width):
        for c, offset in enumerate(lanes.offsets):
            y = lanes.high - (_thinned(values[:, c]) + offset)
            y *= height / (lanes.high - lanes.low)
            x = np.linspace(0, 300, len(y))
            points = " ".join(f"{a:.4g},{b:.4g}" for a, b in zip(x, y))
            yield (
                f'<polyline points="{points}" fill="none" stroke="{color}" '
                f'stroke-width="{width}"/>'
            )

    drawn = [] if behind is None else [*lines(behind, style.BEHIND, 2.4)]
    text = (
        '<svg xmlns="http://www.w3.org/2000/svg" width="300" '
        f'height="{height}" viewBox="0 0 300 {height}">'
        f"{''.join(drawn)}{''.join(lines(signal, color, 1.2))}</svg>"
    )
    text = base64.b64encode(text.encode()).decode()
    return f"data:image/svg+xml;base64,{text}"


def _thinned(line, most=150):
    """A long line as the least and the largest value of each piece."""
    if len(line) <= 2 * most:
        return line
    pieces = np.array_split(line, most)
    return np.ravel([(piece.min(), piece.max()) for piece in pieces])


# Writing ---------------------------------------------------------------------


def _write(path, page):
    """Writes the page, whole or not at all."""
    # Half of the time that this takes; whoever writes no page does not wait.
    import jinja2
    import markupsafe

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["whole"] = _whole
    environment.filters["images"] = _count
    environment.filters["tenths"] = lambda rate: f"{rate:.1%}"
    parts = {
        name: (TEMPLATES / f"report.{name}").read_text(encoding="utf-8")
        for name in ("css", "js")
    }
    text = environment.get_template("report.html.j2").render(
        page,
        **{name: markupsafe.Markup(part) for name, part in parts.items()},
        **{f"{name}_hash": _hash(part) for name, part in parts.items()},
    )
    # Names of files may hold bytes that are no text.
    with atomic_path(path) as unfinished:
        unfinished.write_bytes(text.encode("utf-8", "backslashreplace"))


def _whole(rate):
    """A share in whole per cent, with a decimal where 0% or 100% would lie."""
    text = f"{rate:.0%}"
    return f"{rate:.1%}" if text in ("0%", "100%") and 0 < rate < 1 else text


def _hash(text):
    """What the page's policy calls a script or a style that it allows."""
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
