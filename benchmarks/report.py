"""A page and pictures from the files of results.

`python -m benchmarks.report` makes them again without measuring.
"""

import json
import os
import pathlib
import statistics

from benchmarks import harness
from benchmarks import operation
from benchmarks import roi_align

_TITLES = {
    "operation": "The operation alone",
    "networks": "Whole networks",
    "runtimes": "The exported network in other runtimes",
    "pipeline": "Decoding and the input pipeline",
    "roi_align": "RoIAlign on a feature pyramid",
}
_COLOURS = {
    "Keras plain": "tab:orange",
    "torch plain": "tab:red",
    "torch SDPA": "tab:purple",
    "ours auto": "tab:blue",
}
_PASSES = ("forward", "forward+backward")


def write(folder):
    """Writes `README.md` and a picture for each machine into a folder.

    Args:
        folder: Where the JSON files are.

    Returns:
        The paths written.
    """
    folder = pathlib.Path(folder)
    results = load(folder)
    if not results:
        return []
    written = [folder / "README.md"]
    written[0].write_text(render(results))
    for name, result in results.items():
        if result["section"] == "operation":
            written.append(folder / f"{name}.png")
            _draw(result["cases"], written[-1])
    return written


def load(folder):
    """Results of the sections by file name without suffix, in order."""
    return {
        path.stem: json.loads(path.read_text())
        for section in _TITLES
        for path in sorted(pathlib.Path(folder).glob(f"{section}_*.json"))
    }


def render(results):
    """The page, Markdown."""
    machines = {}
    for name, result in results.items():
        machine = name.removeprefix(f"{result['section']}_")
        machines.setdefault(machine, {})[result["section"]] = result
    lines = [
        "# Speed and memory",
        "",
        "Made by `make benchmark`; the JSON files beside this page have all",
        "times. Only ratios of one row mean anything: its sides were asked in",
        "turn, in one run.",
        "",
        *_method(),
    ]
    for machine, sections in machines.items():
        lines += ["", f"# {machine}", "", *_conditions(sections)]
        lines += ["", "## Aims", "", *_aims(sections)]
        for section in _TITLES:
            if section in sections:
                lines += ["", f"## {_TITLES[section]}", ""]
                lines += _SECTION_TABLES[section](
                    sections[section], f"{section}_{machine}.png"
                )
    return "\n".join(lines) + "\n"


def _method():
    return [
        "- Every side is a process of its own, all with the same environment,",
        "  threads and memory allocation (glibc keeps what is freed;",
        "  TensorFlow's own pool is off). Set up and warmed up, they are asked",
        "  A B A B, with a short rest between; a time is the median, in",
        "  brackets the quartiles.",
        "- Speed is the median over the rounds of peer's time / own time.",
        "- Memory is what one call needs at its peak beyond what was there",
        "  before: the kernel's high-water mark of the resident set, reset",
        "  before the call, in processes in which glibc returns what is freed.",
        "- Work is counted as matrix products and convolutions, two operations",
        "  a multiply-add, a backward pass as two forward ones; what a side",
        "  computes again to save memory is not counted. The peak is the",
        "  fastest 3072 x 3072 matmul of TensorFlow and PyTorch in the same",
        "  run.",
    ]


def _conditions(sections):
    lines = []
    for section, result in sections.items():
        machine = result["machine"]
        peaks = ", ".join(
            f"{dtype} {rate / 1e9:.0f} GFLOP/s"
            for dtype, rate in result["peaks"].items()
        )
        states = [
            "a trial with small sizes and few rounds" * result["quick"],
            "" if result["complete"] else "not finished",
        ]
        notes = "".join(f"; {state}" for state in states if state)
        lines.append(
            f"- {section}: {result['date']}, {machine['cores']} cores of "
            f"{machine['processor']}, {machine['memory_bytes'] / 1e9:.0f} GB; "
            f"matmul peak {peaks}{notes}"
        )
    packages = next(iter(sections.values()))["machine"]["packages"]
    lines.append(
        "- "
        + ", ".join(
            f"{name} {version or 'not installed'}"
            for name, version in packages.items()
        )
    )
    lines.append("- On a GPU: not measured.")
    return lines


# Aims.


def _aims(sections):
    lines = [
        "| workload | measure | aim | got | met |",
        "|---|---|---|---|---|",
    ]
    for workload, measure, sign, aim, got in aims(sections):
        if got is None:
            shown, met = "not measured", ""
        else:
            is_met = got >= aim if sign == ">=" else got <= aim
            shown, met = f"{got:.2f}", "yes" if is_met else "no"
        symbol = {">=": "at least", "<=": "at most"}[sign]
        lines.append(
            f"| {workload} | {measure} | {symbol} {aim:g} | {shown} | {met} |"
        )
    return lines


def aims(sections):
    """What is wanted and what was measured.

    Args:
        sections: Results of one machine by section.

    Returns:
        A list of (workload, measure, ">=" or "<=", aim, got); got is `None`
        where something was not measured.
    """
    cases = {
        section: {case["name"]: case for case in result["cases"]}
        for section, result in sections.items()
    }
    return [
        *_operation_aims(cases.get("operation", {})),
        *_network_aims(cases.get("networks", {}), cases.get("runtimes", {})),
        *_roi_align_aims(cases.get("roi_align", {})),
    ]


def _operation_aims(cases):
    def both(mode, queries, keys, backward=True):
        return cases.get(operation.name_of(mode, queries, keys, backward))

    rows = []
    for mode, over_keras, over_torch, memory in (
        ("dot_product", 12, 15, 0.1),
        ("concatenation", 3, 5, 0.25),
    ):
        case, text = both(mode, 12544, 3136), f"{mode} 12544x3136"
        rows += [
            (text, "forward+backward over Keras plain", ">=", over_keras)
            + (speed(case, "ours auto", "Keras plain"),),
            (text, "forward+backward over torch plain", ">=", over_torch)
            + (speed(case, "ours auto", "torch plain"),),
            (text, "its extra memory / Keras plain's", "<=", memory)
            + (memory_ratio(case, "ours auto", "Keras plain"),),
        ]
    case = both("concatenation", 50176, 12544)
    rows.append(
        ("concatenation 50176x12544", "forward+backward over Keras plain")
        + (">=", 8, speed(case, "ours auto", "Keras plain"))
    )
    size = ("embedded_gaussian", 25088, 6272)
    forward, backward = both(*size, backward=False), both(*size)
    text = "embedded_gaussian 25088x6272"
    rows += [
        (text, "forward over torch SDPA", ">=", 1.0)
        + (speed(forward, "ours auto", "torch SDPA"),),
        (text, "forward+backward over torch SDPA", ">=", 1.2)
        + (speed(backward, "ours auto", "torch SDPA"),),
        (text, "its extra memory / torch SDPA's", "<=", 1.0)
        + (memory_ratio(backward, "ours auto", "torch SDPA"),),
    ]
    for mode in ("dot_product", "concatenation"):
        for passes in _PASSES:
            found = growth(
                list(cases.values()), mode, "ours auto", passes, "median"
            )
            rows.append(
                (f"{mode}, M = N/4, N from 12544", f"slope of {passes}")
                + ("<=", 1.1, found)
            )
    worst = [auto_ratio(case) for case in cases.values()]
    worst = [ratio for ratio in worst if ratio is not None]
    rows.append(
        ("every case of the operation", "worst auto / best forced", "<=", 1.15)
        + (max(worst, default=None),)
    )
    return rows


def _network_aims(networks, runtimes):
    shape = "8x224x224"
    rows = []
    for work, clip, wanted in (
        ("inference", shape, (1.0, 1.3)),
        ("inference", "32x224x224", (1.35, 2.3)),
        ("training", shape, (1.1, 1.0)),
    ):
        for precision, aim in zip(("fp32", "bf16"), wanted, strict=True):
            case = networks.get(f"{work} {precision} batch 1, {clip}")
            ours, theirs = best(case, "ours"), best(case, "PyTorch")
            text = f"{work} {clip} batch 1 {precision}"
            rows.append(
                (text, "best over best of PyTorch", ">=", aim)
                + (speed(case, ours, theirs),)
            )
            if work == "training":
                rows.append(
                    (text, "extra memory / PyTorch's", "<=", 1.0)
                    + (memory_ratio(case, ours, theirs),)
                )
    for precision in ("float32", "bfloat16"):
        case = runtimes.get(f"openvino {precision}")
        rows.append(
            (f"OpenVINO {precision}", "ours over PyTorch's export", ">=", 0.95)
            + (speed(case, best(case, "ours"), best(case, "PyTorch")),)
        )
    return rows


def _roi_align_aims(cases):
    case = cases.get(roi_align.name_of(512, 7, 2, True))
    return [
        ("RoIAlign, 512 regions of 7x7", "forward+backward over torchvision")
        + (">=", 1, speed(case, "ours", roi_align.PEER))
    ]


def side_of(case, name):
    """The row of a side that was measured, or `None`."""
    for side in case["sides"] if case else ():
        if side["name"] == name and side["status"] == "ok":
            return side
    return None


def best(case, start):
    """Name of the fastest side whose name begins so, or `None`."""
    found = [
        (side["median"], side["name"])
        for side in (case["sides"] if case else ())
        if side["status"] == "ok" and side["name"].startswith(start)
    ]
    return min(found)[1] if found else None


def speed(case, name, over):
    """Median over the rounds of the time of `over` by that of `name`."""
    ours, theirs = side_of(case, name), side_of(case, over)
    if not ours or not theirs:
        return None
    return statistics.median(
        b / a for a, b in zip(ours["seconds"], theirs["seconds"], strict=True)
    )


def memory_ratio(case, name, over):
    """Extra memory of a side by that of another."""
    ours, theirs = side_of(case, name), side_of(case, over)
    values = [side and side["extra_bytes"] for side in (ours, theirs)]
    return None if None in values or not values[1] else values[0] / values[1]


def auto_ratio(case):
    """Time of our own choice by that of the best forced one."""
    forced = [
        speed(case, side["name"], "ours auto")
        for side in case["sides"]
        if side["name"].startswith("ours") and side["name"] != "ours auto"
    ]
    return max((ratio for ratio in forced if ratio is not None), default=None)


def growth(cases, mode, name, passes, field):
    """Slope of time or memory with N where M = N/4, on log axes."""
    points = _points(cases, mode, name, passes, field)
    points = [(n, value) for n, value in points if n >= 12544]
    if len(points) < 3:
        return None
    return operation.slope(*zip(*points, strict=True))


def _points(cases, mode, name, passes, field):
    """(N, value) of a side where M = N/4."""
    points = []
    for case in cases:
        about = case["about"]
        side = side_of(case, name)
        if (
            about["mode"] == mode
            and about["keys"] == about["queries"] // 4
            and about["backward"] == (passes == _PASSES[1])
            and side
            and side[field]
        ):
            points.append((about["queries"], side[field]))
    return sorted(points)


# Tables.


def _operation_tables(result, picture):
    lines = [
        f"![Time and memory against the number of queries]({picture})",
        "",
        "Milliseconds; MB of extra memory; in brackets, of the matmul peak.",
        "theta, phi and g are 256 wide, in the Gaussian theta and phi 512.",
    ]
    for mode in operation.MODES:
        cases = [c for c in result["cases"] if c["about"]["mode"] == mode]
        cases.sort(key=_size)
        if not cases:
            continue
        names = [side["name"] for side in cases[0]["sides"]]
        lines += ["", f"### {mode}", ""]
        lines += _header(
            ["queries x keys", "", *names, "auto / best forced", "rounds"]
        )
        for case in cases:
            about = case["about"]
            ratio = auto_ratio(case)
            lines.append(
                _row(
                    f"{about['queries']}x{about['keys']}",
                    "f+b" if about["backward"] else "f",
                    *(_cell(side) for side in case["sides"]),
                    "" if ratio is None else f"{ratio:.2f}",
                    case["rounds"],
                )
            )
        lines += ["", *_slopes(result["cases"], mode, names)]
    return [*lines, *_left_out(result["cases"])]


def _size(case):
    about = case["about"]
    return about["queries"], about["keys"], about["backward"]


def _cell(side):
    if side["status"] != "ok":
        return side["status"]
    text = _milliseconds(side["median"])
    if side["extra_bytes"] is not None:
        text += f"; {side['extra_bytes'] / 1e6:.0f} MB"
    if side["fraction_of_peak"]:
        text += f" ({side['fraction_of_peak']:.0%})"
    return text


def _slopes(cases, mode, names):
    found = []
    for name in names:
        for passes in _PASSES:
            slopes = [
                growth(cases, mode, name, passes, field)
                for field in ("median", "extra_bytes")
            ]
            if slopes[0] is not None:
                memory = slopes[1]
                found.append(
                    f"{name} {passes} {slopes[0]:.2f}"
                    + ("" if memory is None else f" (memory {memory:.2f})")
                )
    if not found:
        return []
    return ["Slopes from N = 12544 on, M = N/4: " + "; ".join(found) + "."]


def _side_tables(result, _):
    """A table for each case, a row for each side."""
    lines = []
    for case in result["cases"]:
        peers = [
            peer
            for peer in case["peers"]
            if any(peer in side["speed_over"] for side in case["sides"])
        ]
        fastest = min(
            peers, key=lambda p: side_of(case, p)["median"], default=None
        )
        lines += ["", f"### {case['name']}", ""]
        lines += _header(
            [
                "",
                "ms",
                f"speed over {fastest or 'the peer'}",
                "of the peak",
                "processor ms",
                "extra MB",
            ]
        )
        for side in case["sides"]:
            lines.append(_row(side["name"], *_side_cells(side, fastest)))
        lines += ["", f"{case['rounds']} rounds.{_returned(case)}"]
    return [*lines[1:], *_left_out(result["cases"])]


def _returned(case):
    if not case["memory_returned_after_each_call"]:
        return ""
    return (
        " Every side returned its memory after each call: together they "
        "would not fit."
    )


def _side_cells(side, fastest):
    if side["status"] != "ok":
        return [side["status"], "", "", "", ""]
    low, high = side["quartiles"]
    fraction, extra = side["fraction_of_peak"], side["extra_bytes"]
    ratio = ""
    if fastest in side["speed_over"]:
        middle, least, most = side["speed_over"][fastest]
        ratio = f"{middle:.2f} ({least:.2f} to {most:.2f})"
    return [
        f"{_milliseconds(side['median'])} "
        f"({_milliseconds(low)} to {_milliseconds(high)})",
        ratio,
        "" if fraction is None else f"{fraction:.0%}",
        _milliseconds(statistics.median(side["processor_seconds"])),
        "" if extra is None else f"{extra / 1e6:.0f}",
    ]


def _pipeline_tables(result, _):
    lines = [
        "Clips of made-up H.264 videos of 340x256 pixels, centre crop of 224:",
        "random ones one after the other, the middle ones in batches or, of",
        "the others, in threads without a pipeline. Ours keeps the index of a",
        "file from its first reading on, as from the second epoch of training.",
        "",
    ]
    lines += _header(
        [
            "",
            "keyframe every",
            "threads",
            "reader",
            "clips/s",
            "processor ms a clip",
            "ms a clip",
        ]
    )
    for case in result["cases"]:
        about = case["about"]
        clip = f"{about['clip_frames']}x{about['clip_step']}"
        for side in case["sides"]:
            cells = [side["status"], "", ""]
            if side["status"] == "ok":
                a_clip = side["median"] / about["clips"]
                used = statistics.median(side["processor_seconds"])
                cells = [
                    f"{1 / a_clip:.1f}",
                    _milliseconds(used / about["clips"]),
                    _milliseconds(a_clip),
                ]
            lines.append(
                _row(
                    f"{about['work']} {clip}",
                    about["gop"],
                    about["threads"],
                    side["name"],
                    *cells,
                )
            )
    return [*lines, *_left_out(result["cases"])]


def _roi_align_tables(result, picture):
    version = result["machine"]["packages"].get(roi_align.PEER)
    sizes = [case["about"] for case in result["cases"][:1]]
    return [
        *(
            f"Images of {about['height']}x{about['width']}, four levels of "
            f"{about['channels']} channels, float32."
            for about in sizes
        ),
        f"torchvision: {version or 'not installed'}. Where time is measured,",
        "TensorFlow has its own pool of memory: without it, most of its time",
        "goes into fresh pages, of which PyTorch needs hardly any.",
        "",
        *_side_tables(result, picture),
    ]


def _left_out(cases):
    """Why sides have no figures; each reason once."""
    found = {}
    for case in cases:
        for side in case["sides"]:
            if side["status"] != "ok":
                key = side["status"], side["reason"]
                found.setdefault(key, []).append(
                    f"{case['name']}: {side['name']}"
                )
    if not found:
        return []
    lines = ["", "Without figures:", ""]
    for (status, reason), places in sorted(found.items()):
        where = places[0]
        if len(places) > 1:
            where += f" and {len(places) - 1} more"
        lines.append(f"- {status}: {reason} ({where})")
    return lines


_SECTION_TABLES = {
    "operation": _operation_tables,
    "networks": _side_tables,
    "runtimes": _side_tables,
    "pipeline": _pipeline_tables,
    "roi_align": _roi_align_tables,
}


def _header(names):
    return [_row(*names), "|" + "---|" * len(names)]


def _row(*cells):
    return "| " + " | ".join(str(cell) for cell in cells) + " |"


def _milliseconds(seconds):
    value = seconds * 1e3
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


# The picture.


def _draw(cases, path):
    # Optional, and slow to import.
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(
        2, 4, figsize=(16, 8), sharex=True, sharey="row", layout="constrained"
    )
    rows = (
        ("median", "seconds, forward and backward", 1.0),
        ("extra_bytes", "extra memory, MB", 1e-6),
    )
    for row, (field, label, unit) in enumerate(rows):
        axes[row, 0].set_ylabel(label)
        for axis, mode in zip(axes[row], operation.MODES, strict=True):
            for name, colour in _COLOURS.items():
                points = _points(cases, mode, name, _PASSES[1], field)
                if points:
                    _draw_line(axis, points, unit, name, colour)
            axis.set(xscale="log", yscale="log")
            axis.grid(alpha=0.3, which="both")
            if axis.has_data():
                axis.legend(fontsize=8, loc="upper left")
            if row == 0:
                axis.set_title(mode)
            else:
                axis.set_xlabel("queries N (keys: N/4)")
    unfinished = path.with_name(f".{path.name}")
    figure.savefig(unfinished, dpi=100, format="png")
    os.replace(unfinished, path)
    pyplot.close(figure)


def _draw_line(axis, points, unit, name, colour):
    sizes, values = zip(*points, strict=True)
    axis.plot(sizes, [v * unit for v in values], "o", color=colour)
    large = [(n, value) for n, value in points if n >= 12544]
    if len(large) < 3:
        axis.plot(
            sizes, [v * unit for v in values], ":", color=colour, label=name
        )
        return
    sizes, values = zip(*large, strict=True)
    slope = operation.slope(sizes, values)
    middle = statistics.geometric_mean(sizes)
    level = statistics.geometric_mean(values) * unit
    axis.plot(
        sizes,
        [level * (size / middle) ** slope for size in sizes],
        color=colour,
        label=f"{name}, slope {slope:.2f}",
    )


if __name__ == "__main__":
    for path in write(harness.ROOT / "benchmarks" / "results"):
        print(path)
