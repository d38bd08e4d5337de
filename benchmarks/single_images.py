"""DeepFool on single images, side by side with the peers.

    pip install -e . -r benchmarks/requirements.txt
    python benchmarks/single_images.py --photos FOLDER --output DIR

The embedded EfficientNet-Lite0, l-infinity norm, epsilon 10, pixels 0 to 255.
FOLDER holds 224x224 crops named `<photograph>_<crop>.jpg`; without it the
embedded photographs are used. Writes single_images.json and .md to DIR.
`--quick` only checks that everything runs: its figures mean nothing.
"""

import time

import numpy as np
import peers
from common import HIGH, make_parser, say, tabulate

import keras_uap


def deepfool_throughput(setup):
    images = setup.held_out[: setup.size(64, 2)].astype("float32")
    labels = setup.labels(images)

    def ours(x):
        result = keras_uap.deepfool(
            setup.classifier, x, num_candidates=10, verbose=0
        )
        return x + result.perturbations

    sides = {
        "keras_uap.deepfool": lambda: ours,
        "foolbox L2DeepFoolAttack": lambda: peers.foolbox_deepfool(
            setup.logits
        ),
        "ART DeepFool, pixels 0 to 255": lambda: peers.art_deepfool(
            setup.logits, images
        ),
        "ART DeepFool, pixels 0 to 1": lambda: peers.art_deepfool(
            setup.logits, images, HIGH
        ),
    }
    rows = []
    for name, make in sides.items():
        # ART needs seconds for an image, so it gets some of them only.
        some = images[: setup.size(2, 2)] if "ART" in name else images
        try:
            run = make()
            # Traces with the batch that it will see. One image at a time
            # needs but one to warm up.
            run(some[:1] if "ART" in name else some)
            start = time.perf_counter()
            found = run(some)
            seconds = time.perf_counter() - start
        except Exception as error:  # A peer that fails is a finding.
            say(f"  {name}: {type(error).__name__}: {error}")
            rows.append({"side": name, "images a second": "does not run"})
            continue
        converged = setup.labels(found) != labels[: len(some)]
        norms = np.linalg.norm((found - some).reshape(len(some), -1), axis=1)
        if not rows:
            our_norms, our_speed = norms, len(some) / seconds
        rows.append(
            {
                "side": name,
                "images": len(some),
                "images a second": len(some) / seconds,
                "ours is faster by": our_speed * seconds / len(some),
                "median l2 norm": float(np.median(norms[converged]))
                if converged.any()
                else float("nan"),
                "ours on these images": float(
                    np.median(our_norms[: len(some)][converged])
                )
                if converged.any()
                else float("nan"),
                "converged, rate": float(np.mean(converged)),
            }
        )
        say(f"  {rows[-1]}")
    return (
        "DeepFool on single images",
        f"{len(images)} images, 10 candidates, at most 50 steps, overshoot "
        "0.02; the second call is timed, norms are those of the images that "
        "converged. ART, which takes one image at a time, gets the first "
        f"{setup.size(2, 2)} of them. ART and foolbox clip to the pixel range "
        "and get a compiled function as their model; ART's steps fit pixels "
        "in 0 to 1 only.",
        rows,
    )


if __name__ == "__main__":
    tabulate(make_parser(__doc__).parse_args(), deepfool_throughput)
