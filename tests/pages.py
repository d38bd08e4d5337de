"""Results with hostile names, which the tests of HTML pages share."""

import models
import numpy as np
import pytest

from keras_uap import analysis
from keras_uap.evaluation import audit_result
from keras_uap.evaluation.changes import Survived

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "</script></style><b>'&amp;",
    "\u2028\u202e\u05d0 {{ 7 * 7 }} \U0001f4a5",
]
CARD = {"classifier": HOSTILE[0] + HOSTILE[3], "found_by": HOSTILE[2]}


def signs(shape, size, seed=3):
    values = np.random.default_rng(seed).normal(size=shape)
    return (size * np.sign(values)).astype("float32")


def report_of(v=None, images=None, **arguments):
    """A report of a linear classifier."""
    images = models.images() if images is None else images
    v = signs(images.shape[1:], 0.2) if v is None else v
    defaults = {"value_range": (0, 1), "verbose": 0, "num_random": 1}
    model = models.linear(shape=images.shape[1:])
    return analysis.fooling_report(model, v, images, **(defaults | arguments))


@pytest.fixture(scope="module")
def report():
    return report_of(groups=np.arange(40) // 4, epsilon=0.2)


@pytest.fixture(scope="module")
def audit(report):
    """An audit that took no time."""
    interval = report.fooling_interval
    runs = tuple(
        audit_result.Run(name, seed, 300, 1.0, 0.0, 0.5, 0.4, interval)
        for seed in (0, 1)
        for name in ("dominant", "cross-entropy")
    )
    card = {"epsilon": 0.2, "norm": "linf", "value_range": (0, 1)}
    return audit_result.Audit(
        fooling_rate=report.fooling_rate,
        fooling_interval=interval,
        random_rate=report.random_rate,
        larger_rate=0.875,
        perturbation=report.examples.perturbation,
        strongest=runs[2],
        runs=runs,
        report=report,
        budget="quick",
        num_fit=80,
        num_select=20,
        num_images=report.num_images,
        num_groups=report.num_groups,
        effort=((300, 0.4),),
        passes_to_half=None,
        passes=1234,
        seconds=300.0,
        warnings=("Beware of <b>bold</b> claims.",),
        notes=("A note on \u2028 lines.",),
        card=card | CARD,
        survival=tuple(
            Survived(name, 0.4, (0.2, 0.7), 0.1, 10, 9)
            for name in (
                *("no change", "JPEG, quality 90", "JPEG, quality 75"),
                *("scaled to 75% and back", "scaled to 50% and back"),
                *("rounded to grey levels", "v shifted by 8"),
            )
        ),
    )
