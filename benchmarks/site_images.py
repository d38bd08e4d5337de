"""Draws the images of the README and the site, into `docs/_static`.

    python benchmarks/site_images.py
    python benchmarks/site_images.py --page audit/audit.html

The bundled classifier, photos and perturbation (L-infinity, epsilon 10 of
255). hero.webp: four photos without and with it, every one fooled, of four
different photographs. epsilon.webp: one photo with it at five strengths.
results.webp: the first table of `fooling.py` in README.md beside this file.
Each has a dark twin. Letters have 9 points at the 800 pixels of the site.

`--page` does none of this. It copies a page of an audit, the example of the
site, and stores its images as WebP, to less than half of its size.
"""

import argparse
import base64
import io
import pathlib
import re

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from keras_uap import samples
from keras_uap.perturbations.pixels import apply_perturbation
from keras_uap.visualization import style

HERE = pathlib.Path(__file__).parent
FOLDER = HERE.parent / "docs" / "_static"
EPSILONS = (2, 4, 8, 10, 16)
# Text, clean and fooled, on a light and on a dark page.
SHADES = {
    "": ("#222222", style.CLEAN, style.FOOLED),
    "_dark": ("#dddddd", "#56B4E9", "#E69F00"),
}


def predict(classifier, images):
    """Returns the names and the probabilities of the predictions."""
    scores = classifier.predict(np.asarray(images, "float32"), verbose=0)
    exponents = np.exp(scores - scores.max(-1, keepdims=True))
    best = (exponents / exponents.sum(-1, keepdims=True)).max(-1)
    names = samples.class_names()
    return [names[label] for label in scores.argmax(-1)], best


def label(name, share):
    name = name if len(name) < 26 else name[:24] + "\u2026"
    return f"{name}\n{share:.0%} confidence"


def show(at, image, text, color):
    at.imshow(np.clip(image, 0, 255).astype("uint8"))
    at.set_title(text, fontsize=9, color=color, pad=4)
    at.set_axis_off()


def save(figure, name, shade):
    path = FOLDER / f"{name}{shade}.webp"
    # GitHub shows the light one on a dark page, too.
    options = {"quality": 88, "method": 6}
    figure.savefig(path, dpi=180, transparent=bool(shade), pil_kwargs=options)
    print(path)


def hero(classifier, v, card):
    """Four photos of different photographs, the most confident ones."""
    images = samples.load_photos("held_out")
    groups = samples.photo_groups("held_out")
    perturbed = apply_perturbation(images, v, (0, 255)).numpy()
    before, sure = predict(classifier, images)
    after, fooled_by = predict(classifier, perturbed)
    chosen = []
    for i in np.argsort(-sure):
        seen = {groups[k] for k in chosen} | {before[k] for k in chosen}
        if before[i] != after[i] and not seen & {groups[i], before[i]}:
            chosen.append(i)
    chosen = chosen[:4]
    for shade, (text, clean, fooled) in SHADES.items():
        figure = Figure((8.3, 5.0), layout="constrained")
        axes = figure.subplots(2, 4)
        for column, i in enumerate(chosen):
            above, below = axes[:, column]
            show(above, images[i], label(before[i], sure[i]), clean)
            show(below, perturbed[i], label(after[i], fooled_by[i]), fooled)
        for at, name in zip(axes[:, 0], ("original", "original + v")):
            at.annotate(
                name,
                (0, 0.5),
                (-6, 0),
                xycoords="axes fraction",
                textcoords="offset points",
                rotation=90,
                ha="right",
                va="center",
                fontsize=10,
                color=text,
            )
        save(figure, "hero", shade)


def strip(classifier, v):
    """The smoothest photo, with the perturbation at five strengths."""
    images = samples.load_photos("held_out").astype("float32")
    steps = np.abs(np.diff(images, axis=1)).mean((1, 2, 3))
    image = images[np.argmin(steps)]
    scaled = [np.clip(image + v * e / 10, 0, 255) for e in EPSILONS]
    names, shares = predict(classifier, [image, *scaled])
    titles = ["clean", *(f"epsilon {e}" for e in EPSILONS)]
    for shade, (_, clean, fooled) in SHADES.items():
        figure = Figure((8.0, 6.0), layout="constrained")
        axes = figure.subplots(2, 3).ravel()
        for i, shown in enumerate([image, *scaled]):
            color = clean if names[i] == names[0] else fooled
            text = f"{titles[i]}\n{label(names[i], shares[i])}"
            show(axes[i], shown, text, color)
        save(figure, "epsilon", shade)


def results():
    """Bars of the table's rates, lines of their ranges, the noise in grey."""
    text = (HERE / "README.md").read_text(encoding="utf-8")
    table = text.partition("## fooling.py")[2].partition("| update |")[2]
    rows = []
    for line in table.partition("\n\n")[0].splitlines()[2:]:
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        name, _, passes, rate, ends = cells
        name = re.sub(r"`|loss=|, \d epochs?", "", name).replace('"', "")
        low, high = map(float, re.findall(r"[\d.]+(?=%)", ends)[:2])
        if passes not in ("0", "256", "512"):
            name = f"{name}, {passes} passes"
        rows.append((name, float(rate.rstrip("%")), low, high))
    (_, noise, *_), *rows = rows
    rows = sorted(rows[:7], key=lambda row: row[1])
    names, rates, lows, highs = zip(*rows)
    for shade, (text, _, fooled) in SHADES.items():
        figure = Figure((8.0, 3.2), layout="constrained")
        axes = figure.subplots()
        axes.barh(names, rates, color=fooled, height=0.6)
        axes.hlines(names, lows, highs, color=text, linewidth=2)
        axes.axvline(noise, color=style.NEUTRAL, linestyle="--")
        for y, (rate, high) in enumerate(zip(rates, highs)):
            axes.text(high + 1, y, f"{rate:g}%", va="center", color=text)
        axes.set_xlim(0, 108)
        axes.set_xticks([0, 25, 50, 75, 100], labels=[])
        axes.tick_params(colors=text, labelsize=9, length=0)
        axes.set_xlabel(
            f"held-out images fooled; dashed: random noise, {noise:g}%",
            fontsize=9,
            color=text,
        )
        axes.spines[:].set_visible(False)
        axes.patch.set_alpha(0)
        save(figure, "results", shade)


def smaller(match):
    """An image in a page, as WebP."""
    image = Image.open(io.BytesIO(base64.b64decode(match[1])))
    file = io.BytesIO()
    image.save(file, "webp", quality=45, method=6)
    text = base64.b64encode(file.getvalue()).decode()
    return f"data:image/webp;base64,{text}"


def page(path):
    text = pathlib.Path(path).read_text(encoding="utf-8")
    text = re.sub(r"data:image/(?:png|jpeg);base64,([\w+/=]+)", smaller, text)
    (FOLDER / "audit.html").write_text(text, encoding="utf-8")
    print(FOLDER / "audit.html", len(text))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--page", metavar="AUDIT.HTML")
    options = parser.parse_args()
    if options.page:
        page(options.page)
        return
    FOLDER.mkdir(exist_ok=True)
    classifier = samples.load_classifier()
    v, card = samples.load_perturbation("linf")
    hero(classifier, v, card)
    strip(classifier, v)
    results()


if __name__ == "__main__":
    main()
