"""What the pages show of libraries that the tests do not install.

pip install keras-hub mlflow
python -m pytest tests/documentation/test_optional.py
"""

import pathlib
import re

import keras
import numpy as np
import pytest
import results

import keras_uap

DOCS = pathlib.Path(__file__).parents[2] / "docs"


def block(page, word):
    """The code of a page that uses a library."""
    text = (DOCS / page).read_text(encoding="utf-8")
    (code,) = (
        c for c in re.findall(r"```py\n(.*?)```", text, re.S) if word in c
    )
    return code


def test_mlflow(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path / "runs"))
    mlflow = pytest.importorskip("mlflow")
    audit = results.audit(0.5)
    audit.save_html("audit.html")
    with mlflow.start_run() as run:
        exec(block("publish.md", "mlflow"), {"mlflow": mlflow, "audit": audit})
    logged = mlflow.get_run(run.info.run_id).data.metrics
    assert logged == {"fooling_rate": 0.5}
    assert len([*tmp_path.glob("runs/*/*/artifacts/audit.html")]) == 1


def tiny(hub):
    """A KerasHub classifier with a preprocessor and random weights."""
    backbone = hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[3],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
    )
    converter = hub.layers.ResNetImageConverter(
        image_size=(16, 16),
        scale=[1 / (255 * s) for s in (0.229, 0.224, 0.225)],
        offset=[-2.1, -2.0, -1.8],
    )
    preprocessor = hub.models.ResNetImageClassifierPreprocessor(converter)
    model = hub.models.ResNetImageClassifier(backbone, 4, preprocessor)
    rng = np.random.default_rng(1)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(0, 0.1, weight.shape))
    return model


def test_keras_hub(monkeypatch):
    hub = pytest.importorskip("keras_hub")
    model = tiny(hub)
    cls = hub.models.ImageClassifier
    monkeypatch.setattr(cls, "from_preset", lambda name: model)
    names = {"keras_hub": hub, "keras": keras}
    exec(block("connect.md", "keras_hub"), names)
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3))
    own = model.predict(images, verbose=0)
    found = names["classifier"].predict(images, verbose=0)
    np.testing.assert_allclose(found, own, atol=1e-5)
    # Without the converter the predictions are others.
    assert np.abs(np.asarray(model(images.astype("float32"))) - own).max() > 0.1
    uap = keras_uap.UniversalPerturbation(names["classifier"], epsilon=10.0)
    uap.compile("decaying_lion")
    uap.fit(images, epochs=1, verbose=0)
    assert uap.perturbation.std() > 0
