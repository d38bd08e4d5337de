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
from keras_uap.utils.formatting import measured_on, percent
from keras_uap.utils.progress import in_words
from keras_uap.utils.saving import atomic_path
from keras_uap.version import __version__
from keras_uap.visualization import style

TEMPLATES = pathlib.Path(__file__).parent / "templates"

# Larger images are shrunk; images up to the small size are stored losslessly.
_LARGEST, _SMALL = 512, 96
# The most characters of all images of the examples together.
_MOST_CHARACTERS = 4_000_000


def write_audit(path, audit, class_names=None, hardening=None):
    """Writes an `Audit`, or the `Hardening` that ended with it, as a page.

    See `Audit.save_html` and `Hardening.save_html`.
    """
    result = hardening or audit
    page = {"report": audit.report, "card": audit.card, "audit": audit}
    page |= {"hardening": hardening, "warnings": result.warnings}
    _write(path, class_names, result, **page)


def write_report(path, report, class_names=None, card=None, warnings=()):
    """Writes a `FoolingReport` as a page; see `FoolingReport.save_html`."""
    card = {"classifier": "the classifier"} | (card or {})
    card["epsilon"] = report.ball_epsilon
    page = {"report": report, "card": card, "warnings": warnings}
    _write(path, class_names, report, **page)


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


def _examples(report):
    """What the slider shows, or None where the report kept no examples.

    Returns:
        Dictionary of `rows`, tuples of the number of an image, how it looks at
        each strength, and there its label, the confidence of it and whether it
        is fooled; of `stops`, pairs of a strength and how many rows it fools;
        and of `start`, which stop is the perturbation as it is.
    """
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
        stops = zip(examples.labels[i], examples.confidences[i], fooled[i])
        rows.append((int(place) + 1, images, list(stops)))
    counts = fooled[: len(rows)].sum(axis=0)
    return {
        "rows": rows,
        "stops": list(zip(examples.strengths, counts)),
        "start": int(np.argmin(np.abs(examples.strengths - 1))),
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


def _perturbation(report):
    """An image of the perturbation and its description, or None."""
    if report.examples is None:
        return None
    v = report.examples.perturbation
    image = None
    if style.is_image(v):
        image = _image(style.stretch(v), exact=True)
    elif style.is_signal(v):
        image = _lines(v, style.lanes(v, -v), style.FOOLED, np.zeros_like(v))
    return {
        "image": image,
        "shape": v.shape,
        "channels": style.CHANNELS,
        "largest": f"{np.abs(v).max():.4g}",
        # Pixels of small images are shown as squares.
        "coarse": style.is_image(v) and max(v.shape[:2]) <= _SMALL,
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


def _write(path, class_names, result, **page):
    """Writes the page, whole or not at all.

    Args:
        path: Path of the file.
        class_names: Sequence of strings, or `None`.
        result: `Result`, whose values the page holds as JSON.
        **page: What the template shows of it: `report`, `card` and
            `warnings`, and `audit` and `hardening` where there are any.
    """
    # Half of the time that this takes; whoever writes no page does not wait.
    import jinja2
    import markupsafe

    def name(label):
        return style.class_name(int(label), class_names)

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"whole": _whole, "images": measured_on, "tenths": percent}
    environment.filters |= filters
    parts = {
        name: (TEMPLATES / f"report.{name}").read_text(encoding="utf-8")
        for name in ("css", "js")
    }
    report = page["report"]
    text = environment.get_template("report.html.j2").render(
        {"audit": None, "hardening": None} | page,
        values=result.to_dict(),
        name=name,
        unit=style.unit(report.value_range),
        in_words=in_words,
        examples=_examples(report),
        perturbation=_perturbation(report),
        versions=versions(),
        date=datetime.datetime.now(datetime.UTC).date(),
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
