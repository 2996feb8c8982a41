"""Makes small data sets in COCO's format."""

import json

import numpy as np
import tensorflow as tf


def write_png(path, pixels):
    """Writes uint8 pixels of shape `(height, width, channels)`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tf.io.encode_png(pixels).numpy())


def image(key, name, height=20, width=30):
    return {"id": key, "file_name": name, "height": height, "width": width}


def thing(image_id, box, polygons=None, category=1, **more):
    """An annotation; without outlines if there are no `polygons`."""
    values = {"image_id": image_id, "category_id": category, "bbox": box}
    if polygons is not None:
        values["segmentation"] = polygons
    return values | more


def triangle(x, y, width, height):
    """Box and outline: the upper left half of the box."""
    outline = [x, y, x + width, y, x, y + height]
    return [x, y, width, height], [outline]


def write_json(path, images, annotations, categories=({"id": 1, "name": "a"},)):
    content = {
        "images": images,
        "annotations": annotations,
        "categories": list(categories),
    }
    path.write_text(json.dumps(content))
    return path


def write_triangles(folder, sizes, x=6, y=4, width=12, height=8):
    """Black pictures of `sizes`, each with a white triangle; the JSON file.

    The pictures are numbered from 10 in steps of 10.
    """
    images, annotations = [], []
    for number, (rows, columns) in enumerate(sizes, 1):
        key, name = 10 * number, f"{number}.png"
        pixels = np.zeros((rows, columns, 3), "uint8")
        inside = (np.arange(height) + 0.5)[:, None] / height
        inside = inside + (np.arange(width) + 0.5) / width < 1
        pixels[y : y + height, x : x + width][inside] = 255
        write_png(folder / name, pixels)
        images.append(image(key, name, rows, columns))
        annotations.append(thing(key, *triangle(x, y, width, height)))
    return write_json(folder / "objects.json", images, annotations)
