"""Image files as people have them: every mode, depth, format, name and place."""

import io
import logging
import os

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tf_mwnet import UserError, data
from tf_mwnet.cli.flags import parse
from tf_mwnet.data import images
from tf_mwnet.data.folders import suffixes
from tf_mwnet.experiment import resolve

RNG = np.random.default_rng(0)
NOISE = RNG.integers(0, 256, (6, 8, 3)).astype(np.uint8)
MANY = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def put(image, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return path


def folder(root, make, suffix="png", splits=("train",), classes=("cat", "dog"), count=3):
    """A folder of images; ``make`` gives the Pillow image with a number."""
    number = 0
    for split in splits:
        for name in classes:
            for i in range(count):
                put(make(number), root / split / name / f"{i}.{suffix}")
                number += 1
    return root


def colour(number=0):
    return Image.fromarray(np.roll(NOISE, number, axis=1))


def deep(number=0, dtype=np.uint16, top=4095):
    values = np.random.default_rng(number).integers(0, top, (6, 8))
    return Image.fromarray(values.astype(dtype))


@pytest.mark.parametrize("suffix", ["png", "tif"])
@pytest.mark.parametrize("top", [4095, 65535])
def test_16_bits_are_kept(tmp_path, suffix, top):
    """Pillow's own conversion to grey would make nearly all of them 255."""
    root = folder(tmp_path, lambda i: deep(i, top=top), suffix)
    found = data.load("folder", str(root))
    assert (found.train.x.dtype, found.train.x.shape) == (np.float32, (6, 6, 8, 1))
    np.testing.assert_array_equal(found.train.x[2, ..., 0], np.asarray(deep(2, top=top)))
    lazy = data.load("folder", str(root), cache="none")
    np.testing.assert_array_equal(lazy.train.x.read(np.arange(6)), found.train.x)
    large = data.load("folder", str(root), resize=12, resize_sides="both").train.x
    assert large.shape == (6, 12, 12, 1)
    assert large.mean() == pytest.approx(found.train.x.mean(), rel=0.05)


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_32_bits_are_kept(tmp_path, dtype):
    root = folder(tmp_path, lambda i: deep(i, dtype, 10**6), "tif")
    found = data.load("folder", str(root)).train.x
    np.testing.assert_array_equal(found[1, ..., 0], np.asarray(deep(1, dtype, 10**6), np.float32))


@pytest.mark.parametrize("other", [colour, lambda i: colour(i).convert("L")])
@pytest.mark.parametrize("cache", ["memory", "none"])
def test_depths_are_not_mixed(tmp_path, other, cache):
    folder(tmp_path, deep, splits=("train", "test"))
    put(other(1), tmp_path / "train" / "dog" / "9.png")
    with pytest.raises(UserError, match=r"grey of more than 8 bits, '.*9.png' is .*allowed: one kind"):
        data.load("folder", str(tmp_path), cache=cache)
    (tmp_path / "train" / "dog" / "9.png").unlink()
    put(other(1), tmp_path / "test" / "dog" / "9.png")
    with pytest.raises(UserError, match=r"9.png' is .*, others are grey of more than 8 bits"):
        images.rows_of(data.load("folder", str(tmp_path), cache=cache).test.x, np.arange(7))


def test_colour_if_one_image_has_it(tmp_path):
    """Also if the first one has none, as an old photograph among others."""
    folder(tmp_path, colour)
    put(colour(9).convert("L"), tmp_path / "train" / "cat" / "0.png")
    found = data.load("folder", str(tmp_path)).train.x
    assert found.shape == (6, 6, 8, 3)
    np.testing.assert_array_equal(found[1], np.asarray(colour(1)))
    assert (found[0] == found[0, ..., :1]).all()


def test_a_palette_is_in_colour(tmp_path):
    folder(tmp_path, lambda i: colour(i).quantize(), "gif")
    found = data.load("folder", str(tmp_path)).train.x
    expected = np.asarray(Image.open(tmp_path / "train/cat/2.gif").convert("RGB"))
    np.testing.assert_array_equal(found[2], expected)
    assert len(np.unique(found)) > 50


def test_what_is_transparent_is_white(tmp_path):
    """Drawings have black below what is transparent: without the alpha all would be black."""
    mask = np.zeros((6, 8), np.uint8)
    mask[1:3, 2:5] = 255
    half = mask // 255 * 128

    def make(i):
        alpha = np.roll(half if i == 1 else mask, i % 2, axis=0)
        return Image.fromarray(
            np.concatenate([np.zeros((6, 8, 3), np.uint8), alpha[..., None]], axis=-1)
        )

    found = data.load("folder", str(folder(tmp_path, make))).train.x
    np.testing.assert_array_equal(found[0], np.repeat(255 - mask[..., None], 3, axis=-1))
    assert found[1].min() == 127
    grey = folder(tmp_path / "grey", lambda i: make(i).convert("LA"))
    np.testing.assert_array_equal(data.load("folder", str(grey)).train.x[0, ..., 0], 255 - mask)
    one = Image.new("P", (4, 4), 0)
    one.putpalette([0, 0, 0, 10, 20, 30])
    one.putpixel((1, 1), 1)
    path = tmp_path / "p.png"
    one.save(path, transparency=0)
    pixels = images.Reading("RGB")(path)
    assert pixels[0, 0].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [10, 20, 30]


def test_ink_is_converted(tmp_path):
    cyan = Image.new("CMYK", (8, 6), (255, 0, 0, 0))
    path = put(cyan, tmp_path / "cyan.tif")
    assert images.Reading()(path)[0, 0].tolist() == [0, 255, 255]


def test_a_mode_that_is_not_known_is_named(tmp_path):
    folder(tmp_path, colour, "tif")
    Image.new("LAB", (8, 6)).save(tmp_path / "train/dog/lab.tif")
    with pytest.raises(UserError, match=r"lab.tif' \(Pillow mode LAB\) cannot be read"):
        data.load("folder", str(tmp_path))


@pytest.mark.parametrize("turn", range(1, 9))
def test_photographs_stand_upright(tmp_path, turn):
    """As the EXIF orientation says; Pillow's array alone lies on its side."""
    upright = np.zeros((16, 24, 3), np.uint8)
    upright[:4] = 255
    upright[:, :4, 0] = 255
    back = {2: "FLIP_LEFT_RIGHT", 3: "ROTATE_180", 4: "FLIP_TOP_BOTTOM", 5: "TRANSPOSE", 6: "ROTATE_90",
            7: "TRANSVERSE", 8: "ROTATE_270"}  # fmt: skip
    image = Image.fromarray(upright)
    if turn > 1:
        image = image.transpose(Image.Transpose[back[turn]])
    exif = Image.Exif()
    exif[0x112] = turn
    image.save(tmp_path / "a.jpg", exif=exif, quality=95, subsampling=0)
    found = images.Reading()(tmp_path / "a.jpg").astype(int)
    assert found.shape == upright.shape
    assert np.abs(found - upright).mean() < 4


@pytest.mark.parametrize("suffix", ["webp", "bmp", "gif", "tif", "tiff", "jpg", "JPEG", "ppm", "jp2"])
def test_formats(tmp_path, suffix):
    assert len(data.load("folder", str(folder(tmp_path, colour, suffix))).train) == 6


def test_nothing_is_left_out_without_a_word(tmp_path, caplog):
    folder(tmp_path, colour)
    put(colour(7), tmp_path / "train" / "dog" / "more" / "deep" / "0.webp")
    put(colour(8), tmp_path / "train" / "stray.png")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("a cat")
    (tmp_path / "train" / "dog" / "list.pdf").write_bytes(b"%PDF")
    with caplog.at_level(logging.WARNING):
        found = data.load("folder", str(tmp_path))
    assert found.train.ids[-1] == "train/dog/more/deep/0.webp"
    assert len(found.train) == 7
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 2
    assert "2 files are left out, which are no images (1 .txt, 1 .pdf), as " in lines[0]
    assert "1 files are left out, which are in no class folder (1 .png), as " in lines[1]


def test_what_other_programs_leave_behind(tmp_path, caplog):
    folder(tmp_path, colour, splits=("train", "test"))
    for name in ("._0.png", ".DS_Store", "Thumbs.db", "desktop.ini"):
        (tmp_path / "train" / "cat" / name).write_bytes(b"\0\5\26\7")
    for name in (".ipynb_checkpoints", "__MACOSX", "@eaDir"):
        for place in ("train", "test", "train/cat"):
            put(colour(), tmp_path / place / name / "cat" / "a.png")
    with caplog.at_level(logging.WARNING):
        found = data.load("folder", str(tmp_path))
    assert (found.class_names, len(found.train), len(found.test)) == (("cat", "dog"), 6, 6)
    assert not caplog.records


def test_folders_that_are_links(tmp_path):
    folder(tmp_path / "elsewhere", colour)
    (tmp_path / "mine" / "train").mkdir(parents=True)
    for name in ("cat", "dog"):
        os.symlink(tmp_path / "elsewhere" / "train" / name, tmp_path / "mine" / "train" / name)
    os.symlink(tmp_path / "elsewhere" / "train", tmp_path / "elsewhere" / "train" / "cat" / "round")
    assert len(data.load("folder", str(tmp_path / "mine")).train) == 9  # and it ends


def test_all_broken_files_are_named_at_once(tmp_path):
    folder(tmp_path, colour, "jpg", count=8)
    for i in range(7):
        (tmp_path / "train" / "cat" / f"{i}.jpg").write_bytes(b"<html>")
    with pytest.raises(UserError, match=r"7 images '.*cat/0.jpg', .*4.jpg' and 2 more cannot be read"):
        data.load("folder", str(tmp_path))


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_files_that_end_early(tmp_path, cache):
    """Their headers are whole."""
    folder(tmp_path, colour, "jpg")
    for name in ("cat", "dog"):
        path = tmp_path / "train" / name / "1.jpg"
        path.write_bytes(path.read_bytes()[:-300])
    with pytest.raises(UserError, match=r"^2 images '.*cat/1.jpg', '.*dog/1.jpg' cannot be read"):
        data.load("folder", str(tmp_path), cache=cache, cache_dir=str(tmp_path / "cache"))
    assert not list((tmp_path / "cache").glob("*"))


def test_several_images_in_a_file(tmp_path, caplog):
    folder(tmp_path, colour)
    colour().save(tmp_path / "train/dog/a.gif", save_all=True, append_images=[colour(3)])
    with caplog.at_level(logging.WARNING):
        data.load("folder", str(tmp_path))
    assert "1 files have several images, of which the first is used" in caplog.text


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_validation_is_the_test_set_if_there_is_no_other(tmp_path, caplog, name):
    folder(tmp_path, colour, splits=("train", name))
    with caplog.at_level(logging.WARNING):
        found = data.load("folder", str(tmp_path))
    assert found.test.ids[0] == f"{name}/cat/0.png"
    assert f"has no test/: {name}/ is the test set" in caplog.text
    folder(tmp_path, colour, splits=("test",))
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        found = data.load("folder", str(tmp_path))
    assert found.test.ids[0] == "test/cat/0.png"
    assert f"{name}' is not used: test/ is the test set" in caplog.text


def test_blank_images(tmp_path, caplog):
    folder(tmp_path, colour)
    for i in range(3):
        Image.new("RGB", (8, 6)).save(tmp_path / "train" / "cat" / f"black{i}.png")
    with pytest.raises(UserError, match=r"3 images are constant, .*black0.*black2.*--blank_images=keep"):
        data.load("folder", str(tmp_path))
    with caplog.at_level(logging.WARNING):
        found = data.load("folder", str(tmp_path), blank_images="keep")
    assert len(found.train) == 9
    assert "3 images are constant" in caplog.text


def test_a_path_in_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    folder(tmp_path / "pets", colour)
    assert len(data.load("folder", "~/pets").train) == 6


MODES = {
    "1": "L", "L": "L", "LA": "L", "P": "RGB", "RGB": "RGB", "RGBA": "RGB", "CMYK": "RGB",
    "YCbCr": "RGB", "I;16": "F", "I": "F", "F": "F",
}  # fmt: skip


@MANY
@given(
    mode=st.sampled_from(sorted(MODES)),
    suffix=st.sampled_from(sorted(suffixes() & {".png", ".tif", ".jpg", ".bmp", ".webp", ".gif"})),
    size=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    cut=st.integers(0, 40),
)
def test_any_image_is_read_in_its_range_or_named(tmp_path, mode, suffix, size, cut):
    """A file has all of its values, or one line says that it cannot be read."""
    values = np.random.default_rng(size).integers(0, 256, (*size, 3)).astype(np.uint8)
    if MODES[mode] == "F":
        image = deep().resize((size[1], size[0]))
        image = image if mode == "I;16" else image.convert("I" if mode == "I" else "F")
    else:
        image = Image.fromarray(values).convert(mode)
    content = io.BytesIO()
    try:
        image.save(content, Image.registered_extensions()[suffix], lossless=True)
    except (OSError, KeyError, ValueError):
        return  # the format does not have this mode
    path = tmp_path / f"a{suffix}"
    whole = content.getvalue()
    path.write_bytes(whole[: len(whole) - cut] if cut > 20 else whole)
    refused = ""
    try:
        pixels = images.Reading()(path)
    except images.Unreadable as error:
        refused = str(error)
    if refused:
        assert f"'{path}'" in refused
        with pytest.raises(Exception):  # noqa: B017, PT011 - Pillow itself cannot: of any type
            np.asarray(Image.open(path).convert("RGB"))
        return
    assert pixels.shape == (*size, 3 if kind_there(path) == "RGB" else 1)
    if cut <= 20 and MODES[mode] == "F" and suffix in (".png", ".tif"):
        np.testing.assert_array_equal(pixels[..., 0], np.asarray(image, np.float32))
    if cut <= 20 and mode in ("L", "RGB") and suffix in (".png", ".tif", ".bmp"):
        np.testing.assert_array_equal(pixels, np.asarray(image).reshape(pixels.shape))


def kind_there(path):
    return images.kind_of(path)[0]


NAMES = st.lists(
    st.one_of(
        st.text(
            st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1, max_size=12
        ),
        st.sampled_from(
            ["$0_$10", "日本", "-x", "a,b", "a\nb", "None", "NA", "con", "1", "é", "%s", "{x}", "\\"]
        ),
    ).filter(lambda s: s not in (".", "..") and len(s.encode()) < 200),
    min_size=2,
    max_size=3,
    unique=True,
)


@MANY
@given(names=NAMES)
def test_any_class_name(tmp_path_factory, names):
    root = folder(tmp_path_factory.mktemp("names"), colour, classes=names, count=1)
    shown = sorted(n for n in names if not n.startswith(".") and n.lower() not in ("__macosx",))
    if len(shown) < 2 or any(not name.strip() for name in shown):
        with pytest.raises(UserError):
            data.load("folder", str(root))
    else:
        assert data.load("folder", str(root)).class_names == tuple(shown)


def test_plain_training_of_few_images_needs_no_meta_set(tmp_path, caplog):
    folder(tmp_path, colour, count=9)
    flags = ["--dataset=folder", f"--data_dir={tmp_path}", "--noise=none"]
    with caplog.at_level(logging.WARNING):
        config, _, splits = resolve.load(parse([*flags, "--method=erm"]))
    assert splits.meta is None
    assert config.meta_size == 0
    assert "a meta set of 100 examples does not fit; going on without one" in caplog.text
    assert len(resolve.load(parse([*flags, "--method=erm", "--meta_size=4"]))[2].meta) == 4
    for more in (["--method=rmnw"], ["--method=erm", "--then_fine_tune=5"]):
        with pytest.raises(UserError, match="meta_size is 100"):
            resolve.load(parse([*flags, *more]))
