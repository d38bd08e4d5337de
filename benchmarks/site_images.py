"""Draws the images of the README and the site, into `docs/_static`.

    python benchmarks/site_images.py

The bundled classifier, photos and perturbation (L-infinity, epsilon 10 of
255). hero.png: four photos without and with it, every one fooled, of four
different photographs. epsilon.png: one photo with it at five strengths. Each
has a dark twin. Letters have 9 points at the 800 pixels of the site.
"""

import pathlib

import numpy as np
from matplotlib.figure import Figure

from keras_uap import samples
from keras_uap.perturbations.pixels import apply_perturbation
from keras_uap.visualization import style

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "_static"
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
    path = FOLDER / f"{name}{shade}.png"
    # GitHub shows the light one on any page.
    figure.savefig(path, dpi=200, transparent=bool(shade))
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
    """One photo, cut out, with the perturbation at five strengths."""
    image = samples.load_photos("held_out")[0].astype("float32")
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


def main():
    FOLDER.mkdir(exist_ok=True)
    classifier = samples.load_classifier()
    v, card = samples.load_perturbation("linf")
    hero(classifier, v, card)
    strip(classifier, v)


if __name__ == "__main__":
    main()
