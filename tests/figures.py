"""Looks at figures as they are drawn: what is written, and on what."""

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg, RendererAgg
from matplotlib.text import Text


def texts_of(figure):
    """The texts that a figure draws, in the order of drawing."""
    drawn = []
    plain = Text.draw

    def draw(text, renderer):
        if text.get_visible() and text.get_text().strip():
            drawn.append(text)
        return plain(text, renderer)

    Text.draw = draw
    try:
        FigureCanvasAgg(figure).draw()
    finally:
        Text.draw = plain
    return list(dict.fromkeys(drawn))


def ink_of(artist, figure):
    """Boolean array `(height, width)`, where an artist alone puts ink."""
    size = figure.bbox.size.astype(int)
    renderer = RendererAgg(*size, figure.dpi)
    artist.draw(renderer)
    return np.asarray(renderer.buffer_rgba())[..., 3] > 0


def faults_of(figure):
    """Sentences on texts that leave the canvas or lie on each other."""
    faults = []
    texts = texts_of(figure)
    width, height = figure.bbox.size
    for i, text in enumerate(texts):
        box = text.get_window_extent()
        told = repr(text.get_text())
        if (
            min(box.x0, box.y0) < -1
            or box.x1 > width + 1
            or box.y1 > height + 1
        ):
            faults.append(f"{told} leaves the canvas: {box.extents.round()}")
        faults += [
            f"{told} lies on {other.get_text()!r}"
            for other in texts[:i]
            if _overlap(text, other, figure)
        ]
    return faults


def _overlap(one, other, figure):
    """Whether the ink of two artists meets."""
    boxes = one.get_window_extent(), other.get_window_extent()
    if not boxes[0].overlaps(boxes[1]):
        return False
    return np.any(ink_of(one, figure) & ink_of(other, figure))
