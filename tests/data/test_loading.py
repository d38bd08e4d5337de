"""Tests of images from folders and TFDS, and of their variation."""

import builtins
import gzip
import os
import pathlib
import shutil
import time

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_uap import datasets, samples
from keras_uap.data import loading


@pytest.fixture
def folder(tmp_path):
    """Five pictures of one colour each, of several sizes and kinds."""
    (tmp_path / "below").mkdir()
    names = ["a.png", "b.JPG", "c.bmp", "below/d.jpeg", "below/e.gif"]
    for i, name in enumerate(names):
        image = Image.new("RGB", (10 + i, 20 - i), (50 * i, 10, 200))
        image.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("No picture.")
    return tmp_path


def reds(data):
    return sorted(float(i[..., 0].mean()) for b in data for i in b.numpy())


def test_folder(folder):
    data = datasets.images(folder, size=(8, 6), batch_size=2)
    batches = [batch.numpy() for batch in data]
    assert [b.shape for b in batches] == [(2, 8, 6, 3)] * 2 + [(1, 8, 6, 3)]
    assert all(b.dtype == np.float32 for b in batches)
    np.testing.assert_allclose(reds(data), [0, 50, 100, 150, 200], atol=3)


def test_limit_takes_from_all_over_a_folder(folder):
    one, two = reds(datasets.images(folder, (8, 8), limit=2, batch_size=9))
    assert one < 75 < two
    assert len(reds(datasets.images(folder, (8, 8), limit=9))) == 5


def test_picture_is_cut_to_its_middle(tmp_path):
    pixels = np.zeros((8, 24, 3), "uint8")
    pixels[:, 8:16] = 200
    Image.fromarray(pixels).save(tmp_path / "a.png")
    batch = next(iter(datasets.images(tmp_path, (8, 8))))
    np.testing.assert_array_equal(batch, 200.0)


def test_bad_sources(tmp_path, folder):
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="No images in"):
        datasets.images(tmp_path / "empty")
    with pytest.raises(ValueError, match="limit"):
        datasets.images(folder, limit=0)


def test_unknown_name():
    with pytest.raises(ValueError, match="neither a folder nor"):
        datasets.images("no_such_data_set")


def test_without_tfds(monkeypatch):
    real = builtins.__import__

    def no_tfds(name, *rest):
        if name == "tensorflow_datasets":
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", no_tfds)
    with pytest.raises(ImportError, match="pip install tensorflow-datasets"):
        datasets.images("mnist")


def test_grey(folder):
    batch = next(iter(datasets.images(folder, (8, 8), color_mode="grayscale")))
    assert batch.shape == (5, 8, 8, 1)
    # The weights of luminance, of the red 0, green 10 and blue 200 of a.png.
    luminance = 0.587 * 10 + 0.114 * 200
    assert float(batch[0].numpy().mean()) == pytest.approx(luminance, abs=1)
    np.testing.assert_array_equal(batch, np.round(batch))
    with pytest.raises(ValueError, match="color_mode"):
        datasets.images(folder, color_mode="bgr")


@pytest.fixture
def damaged(folder):
    """The five pictures, and five files that are none."""
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "._a.jpg").write_bytes(b"\0\5\x16\7" + bytes(99))
    (folder / "0.jpg").write_bytes(b"")
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), "uint8")
    for name in ("cut.jpg", "cut.png"):
        Image.fromarray(noise).save(folder / name)
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(whole[: len(whole) // 2])
    (folder / "z.webp").write_text("No picture.")
    return folder


@pytest.mark.parametrize("cache", [None, False])
def test_bad_files_are_named_and_left_out(damaged, cache):
    data = datasets.images(damaged, (8, 8), batch_size=2, cache=cache)
    assert data.left_out == []
    with pytest.warns(UserWarning, match="Left out: ") as caught:
        whole = reds(data)
    np.testing.assert_allclose(whole, [0, 50, 100, 150, 200], atol=3)
    names = ["0.jpg", "__MACOSX/._a.jpg", "cut.jpg", "cut.png", "z.webp"]
    assert sorted(data.left_out) == [str(damaged / name) for name in names]
    assert len(caught) == 5
    for path, warning in zip(data.left_out, caught):
        assert f"{path} cannot be read as an image" in str(warning.message)
    # Each is named once, also over several passes.
    assert reds(data) == whole
    assert len(data.left_out) == 5


def test_many_bad_files_are_not_all_named(damaged):
    for i in range(40):
        (damaged / f"bad{i}.jpg").write_bytes(b"")
    data = datasets.images(damaged, (8, 8))
    with pytest.warns(UserWarning, match="left_out lists them") as caught:
        assert len(reds(data)) == 5
    assert len(caught) == 6
    assert len(data.left_out) == 45


def test_bad_files_raise_where_asked(damaged, folder):
    with pytest.raises(ValueError, match=r"0\.jpg cannot be read"):
        datasets.images(damaged, (8, 8), strict=True)
    with pytest.raises(ValueError, match="strict="):
        datasets.images(folder, strict=1)
    for name in (*"0z", "cut", "__MACOSX/._a"):
        for path in damaged.glob(f"{name}.*"):
            path.unlink()
    assert len(reds(datasets.images(folder, (8, 8), strict=True))) == 5


def test_bad_files_keep_labels_and_order(classes):
    (classes / "__MACOSX").mkdir()
    (classes / "__MACOSX" / "._0.png").write_bytes(b"")
    (classes / "cat" / "1.png").write_bytes(b"")
    data = datasets.images(classes, (8, 8), labels=True, batch_size=5)
    assert data.class_names == ["ant", "cat", "zebra"]
    with pytest.warns(UserWarning, match="1.png"):
        x, y = (np.concatenate(p) for p in zip(*data.as_numpy_iterator()))
    np.testing.assert_array_equal(y, [0] * 4 + [1] * 3 + [2] * 4)
    np.testing.assert_array_equal(
        x[:, 0, 0, 0], [40, 50, 60, 70, 80, 100, 110, 0, 10, 20, 30]
    )


def only(path, **arguments):
    return next(iter(datasets.images(path, **arguments))).numpy()[0]


@pytest.mark.parametrize("suffix", ["webp", "tif", "tiff", "TIFF"])
def test_other_formats_are_read(suffix, tmp_path):
    Image.new("RGB", (9, 9), (250, 120, 10)).save(tmp_path / f"a.{suffix}")
    picture = only(tmp_path, size=(4, 4))
    np.testing.assert_allclose(picture[0, 0], [250, 120, 10], atol=4)


@pytest.mark.parametrize("kind", ["jpg", "png", "webp"])
@pytest.mark.parametrize("orientation", [1, 3, 5, 6])
def test_portraits_stand_upright(kind, orientation, tmp_path):
    pixels = np.full((16, 8, 3), 200, "uint8")
    pixels[:8] = 20  # What is above, in the scene.
    upright = Image.fromarray(pixels)
    back = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = upright
    if orientation > 1:
        stored = upright.transpose(Image.Transpose(back[orientation]))
    exif = Image.Exif()
    exif[0x112] = orientation
    stored.save(tmp_path / f"a.{kind}", exif=exif)
    picture = only(tmp_path, size=(16, 8))
    np.testing.assert_allclose(picture, pixels, atol=40)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_is_white(mode, tmp_path):
    """The colours below are not to be seen, in no viewer."""
    picture = Image.new("RGBA", (8, 8), (200, 0, 0, 0))
    picture.paste((0, 0, 0, 255), (0, 0, 8, 4))
    picture.convert(mode).save(tmp_path / "a.png")
    picture = only(tmp_path, size=(8, 8))
    np.testing.assert_array_equal(picture[:4], 0)
    np.testing.assert_array_equal(picture[4:], 255)


def test_sixteen_bits_are_scaled(tmp_path):
    Image.fromarray(np.full((8, 8), 128 * 256, "uint16")).save(
        tmp_path / "a.png"
    )
    np.testing.assert_array_equal(only(tmp_path, size=(4, 4)), 128)


def test_jpeg_is_decoded_as_ever(tmp_path):
    """Figures that were measured stay: the decoder of plain files is one."""
    noise = np.random.default_rng(0).integers(0, 256, (32, 32, 3), "uint8")
    Image.fromarray(noise).save(tmp_path / "a.jpg", quality=60)
    content = (tmp_path / "a.jpg").read_bytes()
    np.testing.assert_array_equal(
        only(tmp_path, size=(32, 32)), tf.io.decode_image(content)
    )


@pytest.mark.slow
def test_any_damage_is_survived(tmp_path):
    """Bytes of pictures changed and cut at random: never an error."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (30, 30, 3), "uint8")
    for i in range(200):
        suffix = ("jpg", "png", "gif", "bmp", "webp", "tif")[i % 6]
        path = tmp_path / f"{i:03d}.{suffix}"
        Image.fromarray(noise).save(path)
        content = bytearray(path.read_bytes())
        for _ in range(rng.integers(1, 30)):
            content[rng.integers(len(content))] = rng.integers(256)
        path.write_bytes(content[: rng.integers(1, 2 * len(content))])
    (tmp_path / "zzz.png").unlink(missing_ok=True)
    data = datasets.images(tmp_path, (8, 8))
    with pytest.warns(UserWarning, match="Left out"):
        read = sum(len(batch) for batch in data)
    assert 0 < len(data.left_out) < 200
    assert read + len(data.left_out) == 200


@pytest.fixture
def classes(tmp_path):
    """Three class folders of 4 pictures; red says which picture it is."""
    for i, name in enumerate(["zebra", "ant", "cat"]):
        (tmp_path / name).mkdir()
        for j in range(4):
            image = Image.new("RGB", (9, 9), (40 * i + 10 * j, 0, 0))
            image.save(tmp_path / name / f"{j}.png")
    return tmp_path


def test_labels_of_a_folder(classes):
    data = datasets.images(classes, (8, 8), labels=True, batch_size=5)
    assert data.class_names == ["ant", "cat", "zebra"]
    x, y = (np.concatenate(part) for part in zip(*data.as_numpy_iterator()))
    assert y.dtype == np.int64
    np.testing.assert_array_equal(y, np.repeat([0, 1, 2], 4))
    np.testing.assert_array_equal(x[:, 0, 0, 0] // 40, np.repeat([1, 2, 0], 4))
    for limit, share in ((3, 1), (6, 2)):
        some = datasets.images(classes, (8, 8), labels=True, limit=limit)
        expected = np.repeat([0, 1, 2], share)
        np.testing.assert_array_equal(next(iter(some))[1], expected)
    some = datasets.images(classes, (8, 8), labels=True, limit=3)
    np.testing.assert_array_equal(next(iter(some))[1], [0, 1, 2])
    with pytest.raises(ValueError, match="ant has no labels"):
        datasets.images(classes / "ant", labels=True)


@pytest.mark.parametrize("cache", [None, False])
def test_order_has_a_seed(classes, cache):
    def passes(**arguments):
        data = datasets.images(
            classes, (4, 4), limit=9, labels=True, cache=cache, **arguments
        )
        return [
            [(int(x[0, 0, 0]) // 40, int(y)) for x, y in data.unbatch()]
            for _ in range(2)
        ]

    one, two = passes(shuffle=True, seed=1)
    assert one != two
    assert sorted(one) == sorted(two) == sorted(passes()[0])
    assert passes(shuffle=True, seed=1) == [one, two]
    assert passes(shuffle=True, seed=2)[0] != one
    # Each picture keeps its own label.
    assert {y: x for x, y in one} == {0: 1, 1: 2, 2: 0}


def test_memory(classes, monkeypatch):
    """Small data is read once, large data in each pass."""

    def reds_after_a_change(red, **arguments):
        Image.new("RGB", (9, 9), (7, 0, 0)).save(classes / "ant" / "0.png")
        data = datasets.images(classes / "ant", (4, 4), **arguments)
        before = reds(data)
        Image.new("RGB", (9, 9), (red, 0, 0)).save(classes / "ant" / "0.png")
        return before == reds(data)

    assert reds_after_a_change(200)
    assert not reds_after_a_change(200, cache=False)
    monkeypatch.setattr(loading, "_MOST_BYTES", 3 * 4 * 4 * 3)
    assert not reds_after_a_change(200)
    assert reds_after_a_change(200, cache=True)


@pytest.fixture
def tfds(tmp_path, monkeypatch):
    module = pytest.importorskip("tensorflow_datasets")
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    return module


@pytest.mark.parametrize(
    ("name", "channels", "num_classes"),
    [
        ("imagenette/320px-v2", 3, 10),
        ("mnist", 1, 10),
    ],
)
def test_tfds_name(name, channels, num_classes, tfds):
    mode = "grayscale" if channels == 1 else "rgb"
    with tfds.testing.mock_data(num_examples=5):
        pairs = datasets.images(
            name, (12, 10), "train[:3]", labels=True, color_mode=mode
        )
        (x, y), *rest = pairs.as_numpy_iterator()
        colour = next(iter(datasets.images(name, (12, 10), limit=2))).numpy()
        other = "rgb" if channels == 1 else "grayscale"
        grey = next(iter(datasets.images(name, (12, 10), color_mode=other)))
    assert rest == []
    assert x.shape == (len(y), 12, 10, channels)
    assert x.dtype == np.float32
    assert 0 <= x.min() < x.max() <= 255
    np.testing.assert_array_equal(x, np.round(x))
    assert y.min() >= 0
    assert y.max() < num_classes == len(pairs.class_names)
    assert colour.shape == (2, 12, 10, 3)
    assert grey.shape[-1] == 4 - channels
    # Grey pictures get three equal channels.
    same = np.array_equal(colour[..., 0], colour[..., 2])
    assert same == (channels == 1)


@pytest.mark.slow
def test_fashion_mnist(tfds, tmp_path):
    files = os.environ.get("FASHION_MNIST_DIR")
    files = pathlib.Path(files or "../shared/fashion_mnist")
    if not files.is_dir():
        pytest.skip(f"the four files of Fashion-MNIST are not in {files}")
    place = tmp_path / "downloads" / "manual"
    place.mkdir(parents=True)
    for path in files.glob("*.gz"):
        shutil.copy(path, place)
    builder = tfds.builder("fashion_mnist", data_dir=tmp_path)
    data = datasets.images(
        builder, (28, 28), "test[:100]", labels=True, color_mode="grayscale"
    )
    x, y = next(data.unbatch().batch(100).as_numpy_iterator())
    assert x.shape == (100, 28, 28, 1)
    assert data.class_names[y[0]] in data.class_names
    # Byte for byte the pictures in the original file, in some order.
    with gzip.open(files / "t10k-images-idx3-ubyte.gz") as file:
        original = np.frombuffer(file.read(), "uint8", offset=16)
    original = {picture.tobytes() for picture in original.reshape(-1, 784)}
    assert all(p.tobytes() in original for p in x.astype("uint8"))


def test_tfds_folder_of_the_photographs(tfds, tmp_path):
    photos = pathlib.Path(samples.__file__).parent / "photos"
    for split in samples.SPLITS:
        place = tmp_path / split / "photo"
        place.mkdir(parents=True)
        for path in sorted((photos / split).glob("*.jpg"))[:6]:
            shutil.copy(path, place)
    builder = tfds.ImageFolder(tmp_path)
    data = datasets.images(builder, (224, 224), "held_out", labels=True)
    x, y = next(data.as_numpy_iterator())
    assert data.class_names == ["photo"]
    assert y.tolist() == [0] * 6
    # The same pictures in any order; decoders of JPEG differ a little.
    expected = samples.load_photos("held_out")[:6].astype("float32")
    apart = np.abs(x[:, None] - expected[None]).mean(axis=(2, 3, 4))
    assert sorted(apart.argmin(axis=1)) == list(range(6))
    assert apart.min(axis=1).max() < 1.5
    with pytest.raises(ValueError, match="'image_folder' has no split 'nope'"):
        datasets.images(builder, split="nope")


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("no_such_data_set", {}, "'no_such_data_set' is neither a folder nor"),
        ("imdb_reviews", {}, "'imdb_reviews' holds no images .* text Text"),
        ("coco", {"labels": True}, "'coco' has no labels"),
    ],
)
def test_tfds_errors(name, arguments, says, tfds):
    with (
        tfds.testing.mock_data(num_examples=2),
        pytest.raises(ValueError, match=says) as raised,
    ):
        datasets.images(name, **arguments)
    assert len(str(raised.value)) < 400
    assert "\n" not in str(raised.value)


def test_no_network(tfds, monkeypatch):
    def fail(*_, **__):
        raise ConnectionError("Name or service not known\nand more")

    builder = tfds.builder("mnist")
    monkeypatch.setattr(type(builder), "download_and_prepare", fail)
    with pytest.raises(ValueError, match="cannot be downloaded") as raised:
        datasets.images("mnist")
    assert str(raised.value).endswith("Name or service not known")


@pytest.mark.parametrize("value_range", [(0, 255), (0, 1)])
def test_augmentation(value_range):
    high = value_range[1]
    rng = np.random.default_rng(0)
    x = rng.uniform(0, high, (6, 16, 16, 3)).astype("float32")
    augment = datasets.augmentation(value_range, seed=3)
    one, two = augment(x).numpy(), augment(x).numpy()
    assert one.shape == x.shape
    assert one.dtype == np.float32
    assert min(one.min(), two.min()) >= 0
    assert max(one.max(), two.max()) <= high
    assert np.abs(one - x).mean() > 0.02 * high
    assert np.abs(one - two).mean() > 0.02 * high
    again = datasets.augmentation(value_range, seed=3)
    np.testing.assert_array_equal(again(x), one)


def test_augmented_array():
    x = np.random.default_rng(0).integers(0, 256, (10, 8, 8, 3), "uint8")

    def passes(seed):
        data = datasets.augmented(x, batch_size=4, seed=seed)
        assert len(data) == 3
        return [np.concatenate(list(data.as_numpy_iterator())) for _ in "ab"]

    first, second = passes(1)
    assert first.shape == x.shape
    assert np.any(first != second)
    np.testing.assert_array_equal(passes(1), [first, second])
    assert np.any(passes(2)[0] != first)
    assert first.dtype == np.float32


def test_a_look_at_one_batch_moves_the_draws_by_one():
    """Or else how far would depend on how fast the machine is."""
    images = np.random.default_rng(0).uniform(0, 255, (40, 6, 6, 3))

    def after_a_look(wait):
        data = datasets.augmented(images, batch_size=4, seed=1)
        look = iter(data.take(1))
        next(look)
        time.sleep(wait)
        del look
        return np.concatenate([batch.numpy() for batch in data])

    np.testing.assert_array_equal(after_a_look(0.0), after_a_look(0.5))


def test_without_tuner_unless_asked_for():
    data = tf.data.Dataset.range(3)
    assert datasets.without_tuner(data).options().autotune.enabled is False
    assert data.options().autotune.enabled is None
    options = tf.data.Options()
    options.autotune.enabled = True
    data = data.with_options(options)
    assert datasets.without_tuner(data).options().autotune.enabled is True


def wide_picture(path):
    """A picture whose middle square is black, with bright ends."""
    pixels = np.zeros((20, 60, 3), "uint8")
    pixels[:, :20] = 255
    pixels[:, 40:] = 255
    Image.fromarray(pixels).save(path)


def test_views_show_the_whole_picture(tmp_path):
    for name in "abc":
        wide_picture(tmp_path / f"{name}.png")
    pictures = datasets.load(tmp_path, (8, 8))
    assert pictures.images.max() == 0
    data = datasets.views(pictures, 2, (0, 1), seed=1).repeat(8)
    batches = np.concatenate([batch.numpy() for batch in data])
    assert batches.shape == (24, 8, 8, 3)
    assert batches.min() >= 0
    assert 0.9 < batches.max() <= 1
    # Other draws in each pass, the same from the same seed.
    assert len(np.unique(batches.mean(axis=(1, 2, 3)))) > 12
    again = datasets.views(pictures, 2, (0, 1), seed=1).repeat(8)
    again = np.concatenate([batch.numpy() for batch in again])
    np.testing.assert_array_equal(batches, again)


def test_views_without_files_are_augmented():
    images = np.random.default_rng(0).integers(0, 256, (6, 8, 8, 3), "uint8")
    views = datasets.views(datasets.Pictures(images), 4, seed=3)
    for one, two in zip(views, datasets.augmented(images, 4, seed=3)):
        np.testing.assert_array_equal(one, two)


def test_load_knows_folders_and_photographs(tmp_path):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        for i in range(4):
            image = Image.new("RGB", (8, 8), (50 * i, 0, 0))
            image.save(tmp_path / name / f"p{i // 2}_{i % 2}.png")
    pictures = datasets.load(tmp_path, (8, 8), labels=True)
    assert pictures.images.dtype == np.uint8
    assert pictures.folders.tolist() == ["x"] * 4 + ["y"] * 4
    assert len(set(pictures.groups)) == 4
    assert pictures.labels.tolist() == [0] * 4 + [1] * 4
    assert pictures.class_names == ["x", "y"]
    reds = [Image.open(path).getpixel((0, 0))[0] for path in pictures.paths]
    assert reds == pictures.images[:, 0, 0, 0].tolist()
    (tmp_path / "x" / "p2_0.png").write_bytes(b"no image")
    with pytest.warns(UserWarning, match=r"p2_0\.png"):
        fewer = datasets.load(tmp_path, (8, 8))
    assert [pathlib.Path(path).name for path in fewer.left_out] == ["p2_0.png"]
    assert fewer.paths.tolist() == pictures.paths.tolist()
    np.testing.assert_array_equal(fewer.groups, pictures.groups)


def test_groups_are_decided_by_all_names_and_can_be_given(tmp_path):
    for i in range(60):
        Image.new("RGB", (4, 4)).save(tmp_path / f"p{i // 3:02}_{i % 3}.png")
    few = datasets.load(tmp_path, (4, 4), limit=25)
    assert len(few.images) == 25
    assert {path.split("/")[-1][:3] for path in few.paths} == {
        group.split("/")[-1] for group in few.groups
    }
    assert few.notes == (
        f"25 images of {len(set(few.groups))} photographs, from all over a "
        "folder of 60 files.",
    )
    every = datasets.load(tmp_path, (4, 4), limit=60)
    assert every.notes == ("60 images of 20 photographs.",)
    every = datasets.load(tmp_path, (4, 4), groups="none")
    assert every.notes == ("60 images, each its own photograph.",)
    assert every.groups is None
    tens = datasets.load(tmp_path, (4, 4), groups=r"p(\d)\d_").groups
    assert set(tens) == {"0", "1"}
    with pytest.raises(ValueError, match="two photographs"):
        datasets.load(tmp_path, (4, 4), groups="folder")
    with pytest.raises(ValueError, match="no folder"):
        datasets.load("mnist", (4, 4), groups="name")


def test_a_limit_takes_no_second_class_of_two(tmp_path):
    """Names that alternate: every second file would be one class alone."""
    for i in range(40):
        for j, name in enumerate(("day", "night")):
            image = Image.new("L", (2, 2), 100 * j)
            image.save(tmp_path / f"{i:02}_{name}.png")
    taken = datasets.load(tmp_path, (2, 2), limit=40)
    nights = np.mean(taken.images[:, 0, 0, 0] > 50)
    assert 0.25 < nights < 0.75
    assert len(set(taken.paths)) == 40


@pytest.mark.parametrize("sizes", [(34, 6, 2), (1, 2, 97), (20, 20, 20)])
def test_a_limit_leaves_every_class_its_share(tmp_path, sizes):
    for name, size in zip("abc", sizes):
        (tmp_path / name).mkdir()
        for i in range(size):
            Image.new("L", (2, 2)).save(tmp_path / name / f"x{i}.png")
    limit = sum(sizes) // 2
    taken = datasets.load(tmp_path, (2, 2), labels=True, limit=limit)
    counts = np.bincount(taken.labels, minlength=3)
    assert counts.sum() == limit
    np.testing.assert_allclose(counts, np.array(sizes) / 2, atol=1)
