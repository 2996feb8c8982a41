"""Images in COCO's format that are quick to read and easy to learn."""

import json

import numpy as np
import tensorflow as tf

CLASSES = ("bright", "dark")
HEIGHT, WIDTH = 64, 80


def write_images(folder, count, seed=0):
    """Grey images with a bright and a dark rectangle each.

    Args:
        folder: Where to; made.
        count: How many.
        seed: Of noise and places.

    Returns:
        The json file and the folder of the images.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    images, annotations = [], []
    for number in range(1, count + 1):
        pixels = rng.integers(110, 140, (HEIGHT, WIDTH, 3))
        for category, value in enumerate((240, 15), start=1):
            left = int(rng.integers(2, 12)) + 40 * (category - 1)
            top, width, height = (int(x) for x in rng.integers(16, 26, 3))
            pixels[top : top + height, left : left + width] = value
            right, bottom = left + width, top + height
            outline = [left, top, right, top, right, bottom, left, bottom]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category,
                    "bbox": [left, top, width, height],
                    "area": width * height,
                    "iscrowd": 0,
                    "segmentation": [outline],
                }
            )
        name = f"{number:03}.png"
        png = tf.io.encode_png(pixels.astype("uint8")).numpy()
        (folder / name).write_bytes(png)
        size = {"height": HEIGHT, "width": WIDTH}
        images.append({"id": number, "file_name": name, **size})
    path = folder.parent / f"{folder.name}.json"
    categories = [
        {"id": number, "name": name}
        for number, name in enumerate(CLASSES, start=1)
    ]
    text = json.dumps(
        {"images": images, "annotations": annotations, "categories": categories}
    )
    path.write_text(text)
    return path, folder
