"""Makes a folder of images with wrong labels: scikit-learn's digits, a quarter in a wrong folder.

python docs/examples/digits_folder.py my_images

writes ``my_images/train/<digit>/*.png`` and ``my_images/test/<digit>/*.png``. The test images are all in
the right folder. ``my_images/moved.csv`` lists the training images that are not, to check the result.
"""

import csv
import pathlib
import sys

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits


def write(root: pathlib.Path, wrong: float = 0.25, seed: int = 0) -> list[tuple[str, int]]:
    """Writes the folder; returns path and true digit of each image in a wrong folder.

    Args:
        root: a new folder.
        wrong: share of the training images that go to a wrong folder, 0 to 1.
        seed: of the choice of test images and of wrong folders.
    """
    digits = load_digits()
    rng = np.random.default_rng(seed)
    is_test = rng.permutation(len(digits.target)) < 450
    moved = []
    for number, (pixels, true) in enumerate(zip(digits.images, digits.target, strict=True)):
        given = int(true)
        if not is_test[number] and rng.random() < wrong:
            given = int(rng.choice(np.delete(np.arange(10), true)))
        path = root / ("test" if is_test[number] else "train") / str(given) / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray((pixels * 255 / 16).astype(np.uint8))
        image.resize((16, 16), Image.Resampling.BILINEAR).save(path)
        if given != true:
            moved.append((path.relative_to(root).as_posix(), int(true)))
    return moved


if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    wrong_ones = write(folder)
    with open(folder / "moved.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "true_digit"), *wrong_ones])
    total = len(list(folder.glob("train/*/*.png")))
    print(f"{folder}: {total} training images, {len(wrong_ones)} of them in a wrong folder")
