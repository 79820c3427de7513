"""The numbers in the pages are those of the committed tables, computed here from the rows and by nothing of the library."""

import csv
import functools
import math
import operator
import pathlib
import statistics

import pytest

ROOT = pathlib.Path(__file__).parents[1]
TARGET = 0.9


@functools.cache
def text(page):
    """The text of a page, a path or the name of an experiment, without line breaks."""
    path = ROOT / page if page.endswith(".md") else ROOT / "docs" / "experiments" / f"{page}.md"
    return " ".join(path.read_text("utf-8").split())


@functools.cache
def rows(experiment):
    with (ROOT / "experiments" / "results" / experiment / "table.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def select(experiment, **fixed):
    """The rows in which columns have these values."""
    chosen = [row for row in rows(experiment) if all(row[name] == str(wanted) for name, wanted in fixed.items())]
    assert chosen, (experiment, fixed)
    return chosen


def mean(experiment, value, **fixed):
    """The mean of a column over the rows in which other columns have these values."""
    return statistics.fmean(float(row[value]) for row in select(experiment, **fixed))


def geometric_mean(experiment, value, **fixed):
    return statistics.geometric_mean(float(row[value]) for row in select(experiment, **fixed))


def slope(experiment, x, y, **fixed):
    """The slope of a least-squares line through logarithms."""
    chosen = [row for row in select(experiment, **fixed) if row[x] and row[y]]
    return statistics.linear_regression(*([math.log(float(row[name])) for row in chosen] for name in (x, y))).slope


def needed(network, places, experiment="ladder_full"):
    """Geometric mean over seeds of the training images at which the accuracy crosses the target, on a logarithmic scale."""
    curves = {}
    for row in select(experiment, network=network, places=places):
        curves.setdefault(row["seed"], {})[int(row["size"])] = float(row["accuracy"])
    logs = []
    for curve in curves.values():
        sizes = sorted(curve)
        last = next(number for number, size in enumerate(sizes) if curve[size] >= TARGET)
        one, two = sizes[max(last - 1, 0)], sizes[last]
        share = (TARGET - curve[one]) / (curve[two] - curve[one]) if last else 0.0
        logs.append(math.log(one) + share * math.log(two / one))
    return math.exp(statistics.fmean(logs))


def price(network, places, experiment="ladder_full"):
    return needed(network, places, experiment) / needed("convolution", places, experiment)


def percent(share):
    return f"{100 * share:.0f} %"


def points(share):
    """A share in percent, or a difference of shares in points, with one digit after the point."""
    return f"{100 * share:.1f}"


def error_at(network, size=16_000, places=81):
    return mean("ladder_full", "error", network=network, size=size, places=places)


def quick_error(network):
    return mean("ladder", "error", network=network, size=1000, places=81)


def signals(network, value="accuracy", size=4000):
    return mean("ladder_mnist1d", value, network=network, size=size)


def published(network, order="in order"):
    return mean("mnist1d", "accuracy", network=network, order=order)


PAIR, BOOK, DEEP = "birds_and_planes_pair", "birds_and_planes", "birds_and_planes_deep"


def birds(net, value="accuracy", run=BOOK):
    return mean(run, value, net=net)


def released(rung, release=""):
    return mean("relax", "accuracy", rung=rung, release=release)


def explained(kind, padding, depth):
    return mean("boundary", "explained_variance", input=kind, padding=padding, depth=depth)


def found(kernels, noise):
    return mean("crosses", "found", kernels=kernels, noise=noise)


def derived(step, value):
    return f"{int(select('derivation', step=step)[0][value]):,}"


def gram(readout, width=""):
    return mean("kernel_machine", "accuracy", readout=readout, width=width)


def sampled(method, value, choose):
    """The smallest or largest mean over the kinds of images."""
    return choose(mean("downsampling", value, method=method, input=kind) for kind in ("images", "edges of images", "noise"))


def shifted(method, value="consistency", padding="CIRCULAR"):
    return mean("shift_consistency", value, method=method, padding=padding, when="after training")


def halved(network):
    return mean("pooling", "accuracy", network=network)


def hits(clutter, value="hits", detector="conv"):
    return mean("waldo", value, detector=detector, side="where it never was", clutter=clutter)


def units(network):
    return mean("two_by_two", "gain", network=network)


def boxes(padding, value):
    return points(mean("red_green", value, padding=padding))


TIED = "local, starts as a convolution"


def augmented(network, value="accuracy", step=1000):
    return mean("augmentation", value, network=network, step=step)


def deep(depth, kind="equal weights"):
    return mean("depth_or_width", "accuracy", network=f"{depth} layers, {kind}")


def softened(strength, value="accuracy", stage="fine-tuned", digits="at random places", network=TIED):
    same = {"network": network, "digits": digits, "stage": stage}
    if value == "gain":
        return softened(strength, "accuracy", stage, digits) - softened(0.0, "accuracy", stage, digits)
    return mean("soft_equivariance", value, strength=strength, **same)


def sheet(alpha, value="accuracy", network="locally connected"):
    return mean("topography", value, network=network, alpha=f"{alpha:.1f}")


def decibels(method, rank):
    """The signal-to-noise ratio above that of the restoration by one shared kernel."""
    ratio, shared = (mean("deblur", "psnr", method=name, rank=r) for name, r in ((method, rank), ("one shared kernel", 1)))
    return ratio - shared


FROZEN = "network, first layers random"


def layered(curve, layers):
    return mean("frozen_layers", "accuracy", curve=curve, layers=layers)


def stem(network, value="accuracy"):
    return mean("stems", value, network=network)


def with_outputs(outputs, after="ReLU", value="gain"):
    return stem(f"{outputs} outputs, {after} after the stem", value)


def patches(rung, size):
    return f"{geometric_mean('sample_complexity', 'examples_needed', varied='patches', rung=rung, size=size):,.0f}"


def exponent(rung, varied="patches"):
    return f"{slope('sample_complexity', 'size', 'examples_needed', varied=varied, rung=rung):.2f}"


def column(experiment, value, **fixed):
    """The numbers of a column, in the order of the rows (that is, of the seeds), without empty and infinite ones."""
    return [float(row[value]) for row in select(experiment, **fixed) if row[value] and math.isfinite(float(row[value]))]


def lead(experiment, value, one, two, **both):
    """The mean over seeds of the difference between two selections of rows, in points."""
    pairs = zip(column(experiment, value, **one, **both), column(experiment, value, **two, **both), strict=True)
    return f"{100 * statistics.fmean(a - b for a, b in pairs):.1f}"


def bias(rung):
    return geometric_mean("price_of_bias", "examples_needed", rung=rung, distance=1, flip_second_half=False)


def common_price():
    """The geometric mean over all cells that learn of the examples needed for every coefficient."""
    learnt = [row for row in rows("price_of_bias") if row["examples_needed"] not in ("", "inf")]
    return statistics.geometric_mean(float(row["examples_needed"]) / float(row["coefficients"]) for row in learnt)


def pigs(network, rho, examples, **fixed):
    return mean("flying_pigs", "accuracy", question="bird or pig", network=network, rho=rho, examples=examples, **fixed)


def crossing(examples):
    """Mean over seeds of the rho at which local kernels overtake the circular convolution, linear between the rhos tried."""
    found = []
    for seed in range(5):
        rhos = (0.0, 0.25, 0.5, 0.75, 0.9, 1.0)
        leads = [pigs(LOCAL, rho, examples, seed=seed) - pigs("circular", rho, examples, seed=seed) for rho in rhos]
        last = next(number for number, difference in enumerate(leads) if difference >= 0)
        (before, after), (low, high) = rhos[last - 1 : last + 1], leads[last - 1 : last + 1]
        found.append(before + (after - before) * low / (low - high))
    return f"{statistics.fmean(found):.2f}"


def words(size):
    return mean("text", "accuracy", network=f"{LOCAL}, sees 5 words", distance=4, size=size)


def sounds(axis, question):
    """The accuracy at pitches never heard, of kernels shared along an axis."""
    return points(mean("audio", "accuracy", network=f"shared, {axis}", question=question, trained_on="low", tested_on="high"))


def risks():
    """Mean risk over the predicted risk, for every teacher, rung and size."""
    cells = {}
    for row in rows("linear_ladder"):
        if row["risk"]:
            cells.setdefault((row["teacher"], row["rung"], row["n"]), []).append(float(row["risk"]) / float(row["predicted"]))
    return [statistics.fmean(ratios) for ratios in cells.values()]


def images_needed(rung):
    return mean("linear_ladder", "examples_needed", rung=rung, teacher="conv", n="")


def participations():
    """The ratio of a process's participation ratio to its clone's, for every seed."""
    both = (column("emergence", "participation", input=name, **LAST) for name in ("nonlinear process", "Gaussian clone"))
    return [one / two for one, two in zip(*both, strict=True)]


def kept(method):
    return points(mean("attribution", "predictions_kept", method=method, hidden_share=0.1))


def verdicts(start):
    """How many claims have a verdict that starts so. Questions have the verdicts yes and no."""
    found = [row["verdict"] for row in rows("claims")]
    return sum(verdict == start if start in ("true", "false") else verdict.startswith(start) for verdict in found)


def pruned(value, weights="smallest pruned, rewound", rounds=20):
    return mean("prune", value, weights=weights, round=rounds)


def projected(period, power):
    return {"network": "projected", "period": period, "power": power}


def timed(name):
    return geometric_mean("speed", "ratio", name=name, step="both")


def slower(one, two):
    """Geometric mean over shapes of the ratio of two contenders' times."""
    first, second = (
        {row["shape"]: float(row["ratio"]) for row in select("speed", name=name, step="both")} for name in (one, two)
    )
    return statistics.geometric_mean(first[shape] / second[shape] for shape in first)


def largest(value, who):
    """The values at the largest size of every quantity that varies."""
    name = f"locally connected, {who}"
    return [max(column("scaling", value, varied=varied, name=name)) for varied in VARIED]


def of_layers(value, contender):
    return sum(column("topographic_layers", value, contender=contender))


def faster(contender="convlab"):
    return column("slow_convolutions", "faster", contender=contender)


def grown(what, varied, value):
    """Return a column at the largest size."""
    return float(max(select("scaling_networks", what=what, varied=varied), key=lambda row: int(row["size"]))[value])


def losses():
    """Return the losses of the rule, one per measured derivative of a layer on a machine."""
    cell = ("machine", "wrt", "family", "n", "side", "kernel", "stride", "c", "d", "groups")
    timed = (row for row in select("tuning") if row["implementation"])
    return [*{tuple(row[name] for name in cell): float(row["loss"]) for row in timed}.values()]


def trained(network, contender="convlab"):
    return mean("speed_train", "ratio", network=network, contender=contender, memory="kept")


README = "README.md"
VARIED = ("pixels", "channels", "images")
SWEPT = {"name": "sweep: local, auto"}
CONV, LOCAL, GLOBAL = "convolution", "locally connected", "global convolution"
REORDERED, ALL_READ = "convolution, reordered pixels", "convolution, all pixels read"
LARGEST = {"network": REORDERED, "size": 16_000}
EVERY, OWN = "every position", "every position, a kernel each"
RISE, SWEEP = "rises 1/4 or 3/4 of an octave", "falls or rises"
RISING = {"tone": "a tone that rises by 3/4 of an octave", "axis": "linear frequency", "shift": 16}
ABOVE = {"network": "circular", "question": "above or below"}
LAST = {"gain": 3.0, "step": 40_000}
LASSO = "S-FC, beta-lasso"
FREE = "locally_connected"
APART = {"network": "never projected, start apart", "power": 0.0}
HEADLINES = [
    (README, "the convolution needs {} training images", lambda: f"{needed(CONV, 81):.0f}"),
    (README, "The dense network needs {} times as many", lambda: f"{price('dense', 81):.1f}"),
    (README, "the locally connected one {} times", lambda: f"{price(LOCAL, 81):.1f}"),
    (README, "tiles of period two {} times", lambda: f"{price('tiled 2', 81):.1f}"),
    (README, "shared but not local, needs {} times as many", lambda: f"{price(GLOBAL, 81):.1f}"),
    (README, "the dense network errs on {}, as in the original order", lambda: percent(error_at("dense"))),
    (README, "and has learnt {} of its training images", lambda: percent(mean("ladder_full", "train_accuracy", **LARGEST))),
    (README, "The convolution errs on {} and has learnt", lambda: percent(error_at(REORDERED))),
    (README, "1,000 images the convolution errs on {}", lambda: percent(quick_error(CONV))),
    (README, "the dense network on {}. At one place", lambda: percent(quick_error("dense"))),
    ("ladder", "a convolution needs {} training images to get 90 %", lambda: f"{needed(CONV, 81):.0f}"),
    ("ladder", "network with dense layers needs {} times as many", lambda: f"{price('dense', 81):.1f}"),
    ("ladder", "with a kernel of its own at every position {} times", lambda: f"{price(LOCAL, 81):.1f}"),
    ("ladder", "rank four needs {} images", lambda: f"{needed('low rank 4', 81):,.0f}"),
    ("ladder", "tiles of period four {}.", lambda: f"{needed('tiled 4', 81):,.0f}"),
    ("ladder", "Tiles of period two need {} times as many", lambda: f"{price('tiled 2', 81):.1f}"),
    ("ladder", "The global convolution needs {} times as many", lambda: f"{price(GLOBAL, 81):.2f}"),
    ("ladder", "({} times as many at nine [0.50, 0.58])", lambda: f"{price(GLOBAL, 9):.2f}"),
    ("ladder", "every distance: {} at one place", lambda: f"{needed(CONV, 1):.0f}"),
    ("ladder", "362 at nine, {} at 25", lambda: f"{needed(CONV, 25):.0f}"),
    ("ladder", "they are at one place only ({})", lambda: f"{needed('dense', 1):.0f}"),
    ("ladder", "at nine they need {}", lambda: f"{needed('dense', 9):.0f}"),
    ("ladder", "at 25 already {}.", lambda: f"{needed('dense', 25):,.0f}"),
    ("ladder", "grows from {} at one place to", lambda: f"{needed(CONV, 1):.0f}"),
    ("ladder", "at one place to {} at nine", lambda: f"{needed(CONV, 9):.0f}"),
    ("ladder", "kernels need {} times as many images as dense", lambda: f"{needed(LOCAL, 81) / needed('dense', 81):.2f}"),
    ("ladder", "the convolution's need ({} times [1.8, 2.6])", lambda: f"{price(ALL_READ, 81):.1f}"),
    ("ladder", "in training needs {} base digits", lambda: f"{needed('dense, shifted in training', 81):.0f}"),
    ("ladder", "the dense network errs on {}, as in the original order", lambda: percent(error_at("dense"))),
    ("ladder", "from {} (global convolution)", lambda: percent(error_at(f"{GLOBAL}, reordered pixels"))),
    ("ladder", "to {} (convolution)", lambda: percent(error_at(REORDERED))),
    ("ladder", "have the global convolution need {} times", lambda: f"{price(GLOBAL, 81, 'ladder'):.1f}"),
    ("ladder", "last of the rungs, right on {} %", lambda: points(signals(CONV))),
    ("ladder", "and {} % with 4,000 signals", lambda: points(signals("dense"))),
    ("ladder", "locally connected layers are right on {} %", lambda: points(signals(LOCAL))),
    ("ladder", "in a random order the convolution falls to {} %", lambda: points(signals(REORDERED))),
    ("ladder", "below local ({} %)", lambda: points(signals(f"{LOCAL}, reordered pixels"))),
    ("ladder", "{} times the convolution's signals", lambda: f"{price(GLOBAL, 1, 'ladder_mnist1d'):.1f}"),
    ("ladder", "{} errors instead of 10 % at 400", lambda: percent(signals(ALL_READ, "error", 400))),
    ("mnist1d", "with a kernel at every position reach {} %", lambda: points(published(LOCAL))),
    ("mnist1d", "mixtures of two kernels {} %", lambda: points(published("low rank 2"))),
    ("mnist1d", "between dense layers ({} %)", lambda: points(published("dense"))),
    ("mnist1d", "and the convolution ({} %)", lambda: points(published(CONV))),
    ("mnist1d", "shuffled the convolution falls to {} %", lambda: points(published(CONV, "shuffled"))),
    ("mnist1d", "Here it has {} % in order [62.6, 65.7]", lambda: points(published("perceptron"))),
    ("mnist1d", "there are {} points in order", lambda: points(published(CONV) - published("dense"))),
    ("mnist1d", "without sharing gives {} of them", lambda: points(published(LOCAL) - published("dense"))),
    ("birds_and_planes", "printed accuracy ({} %, printed 89 %)", lambda: points(birds("Net", run=PAIR))),
    (
        "birds_and_planes",
        "at every position it loses {} points",
        lambda: points(birds("Net", run=PAIR) - birds("Net, locally connected", run=PAIR)),
    ),
    ("birds_and_planes", "is right on only {} %", lambda: points(birds("10 blocks, tied", run=DEEP))),
    ("birds_and_planes", "they are right on {} %", lambda: points(birds("10 blocks, tied", "batch_accuracy", DEEP))),
    ("birds_and_planes", "untied ones on {} %", lambda: points(birds("10 blocks, untied", "batch_accuracy", DEEP))),
    ("birds_and_planes", "shown to differ: it is {} points below", lambda: points(birds("Net") - birds("wide, batch norm"))),
    ("relax", "networks end {} to 3.1 points", lambda: points(released("dense", 1) - released("dense"))),
    ("relax", "to {} points above networks", lambda: points(released("locally_connected", 4) - released("locally_connected"))),
    ("relax", "never released ({} %)", lambda: points(released("conv"))),
    ("relax", "local layers lose {} points", lambda: points(released("conv") - released("locally_connected"))),
    ("boundary", "random weights explain {} of the variance", lambda: percent(explained("Gaussian noise", "SAME", 8))),
    ("boundary", "as zeros ({} % [11.2, 13.7])", lambda: points(explained("Gaussian noise", "REFLECT", 1))),
    ("boundary", "{} points to that", lambda: f"{100 * (explained('images', 'SAME', 8) - explained('images', 'SAME', 0)):.0f}"),
    ("crosses", "brightness they find it {} % of the time", lambda: points(found("cross kernels", 0.4))),
    ("crosses", "With noise of 0.2 the crosses find {}", lambda: percent(found("cross kernels", 0.2))),
    ("crosses", "random kernels find {} of the centres", lambda: percent(found("random kernels", 0.0))),
    ("derivation", "a dense layer of {} weights", lambda: derived("dense", "weights")),
    ("derivation", "(translation) leave {}", lambda: derived("shared", "weights")),
    ("derivation", "(locality) leaves {}", lambda: derived("local", "weights")),
    ("derivation", "array has {} slots", lambda: derived("re-indexed", "slots")),
    ("kernel_machine", "accuracies ({} and 98.1 %", lambda: points(gram(EVERY, 1024))),
    ("kernel_machine", "98.2 and {} % with 1,024 kernels", lambda: points(gram(OWN, 1024))),
    ("kernel_machine", "on {} % with 1,024, below", lambda: points(gram("mean over positions", 1024))),
    ("kernel_machine", "Powers: {} for shared", lambda: f"{slope('kernel_machine', 'width', 'error', readout=EVERY):.2f}"),
    ("kernel_machine", "and {} for a kernel at", lambda: f"{slope('kernel_machine', 'width', 'error', readout=OWN):.2f}"),
    ("downsampling", "Striding: its error is {} to", lambda: f"{sampled('strided', 'error', min):.2f}"),
    ("downsampling", "its mean changes by 14 to {}", lambda: percent(sampled("strided", "mean_change", max))),
    ("downsampling", "the fixed methods (0.08 to {})", lambda: f"{sampled('max', 'error', max):.2f}"),
    ("downsampling", "(10 to {})", lambda: percent(sampled("polyphase", "aliased_energy", max))),
    ("shift_consistency", "a blur keeps {} %", lambda: points(shifted("blur"))),
    ("shift_consistency", "and max pooling {} %", lambda: points(shifted("max"))),
    ("shift_consistency", "more than {} % in the mean", lambda: points(shifted("blur, polyphase", padding="SAME"))),
    ("shift_consistency", "keeps least: {} % with circular", lambda: points(shifted("strided"))),
    ("shift_consistency", "alone classifies {} % of still", lambda: points(shifted("polyphase", "accuracy"))),
    (
        "shift_consistency",
        "That is {} points less",
        lambda: points(shifted("max", "accuracy") - shifted("blur, polyphase", "accuracy")),
    ),
    ("waldo", "on the wanted digit in {} % of scenes", lambda: points(hits(0))),
    ("waldo", "the convolution hits {} %", lambda: points(hits(4))),
    ("waldo", "the convolution is right on {} %", lambda: points(hits(0, "accuracy"))),
    ("waldo", "the local network on {} %", lambda: points(hits(0, "accuracy", "locally_connected"))),
    (
        "two_by_two",
        "two 2x2 layers are {} to 4.2 points less",
        lambda: points(-units("2x2 twice; batch norm, ReLU; pads in turn")),
    ),
    ("two_by_two", "are 2.1 to {} points less", lambda: points(-units("2x2 twice; nothing between; pads one side"))),
    ("two_by_two", "and 5x5 layers, lose {} to 4.2 points", lambda: points(-units("5x5"))),
    ("two_by_two", "lose 2.5 to {} points too", lambda: points(-units("3x3 twice; nothing between"))),
    ("two_by_two", "the network of 3x3 layers ({} %)", lambda: points(mean("two_by_two", "accuracy", network="3x3"))),
    ("red_green", "With one pixel of zeros: {} % of similar", lambda: boxes("SAME", "similar")),
    ("red_green", "[99.3, 99.6], and {} % of moved", lambda: boxes("SAME", "dissimilar")),
    ("red_green", "right on 0.0 and {} %.", lambda: boxes("SAME", "dissimilar")),
    ("pooling", "of 2x2 pixels: these three classify {} to 94.2 %", lambda: points(halved("mean, 2x2"))),
    ("pooling", "to {} % of test images right", lambda: points(halved("blur, 3x3"))),
    ("pooling", "where the 2x2 maximum has {} %", lambda: points(halved("maximum, 2x2"))),
    ("pooling", "are far behind in both ({} %)", lambda: points(halved("stride 2"))),
    ("pooling", "are spent on width ({} %)", lambda: points(halved("stride 2, wider"))),
    (
        "pooling",
        "blur is {} points above the 2x2 mean",
        lambda: lead("pooling", "accuracy", {"network": "blur, 3x3"}, {"network": "mean, 2x2"}),
    ),
    (
        "pooling",
        "Polyphase keeps 94.2 % of predictions, but has {} points less",
        lambda: lead("pooling", "accuracy", {"network": "maximum, 2x2"}, {"network": "polyphase"}),
    ),
    ("red_green", "CIRCULAR is right on {} % [64.5, 66.6]", lambda: boxes("CIRCULAR", "dissimilar")),
    ("red_green", "FULL is right on {} % [85.1, 86.3]", lambda: boxes("FULL", "dissimilar")),
    ("augmentation", "locally connected network from {} to", lambda: points(augmented("local"))),
    ("augmentation", "to {} % of the", lambda: points(augmented("local, shifted"))),
    ("augmentation", "a convolution with shifts has {} %", lambda: points(augmented("convolution, shifted"))),
    ("augmentation", "positions share {} % of the squares", lambda: points(augmented("local, shifted", "shared"))),
    ("augmentation", "independent kernels share {} %", lambda: points(augmented("local, shifted", "shared", 0))),
    ("augmentation", "without them positions share {} %", lambda: points(augmented("local", "shared"))),
    ("augmentation", "and {} % of those that start equal", lambda: points(augmented(TIED, "shared"))),
    ("soft_equivariance", "quarters of the way gain {} points", lambda: points(softened(0.75, "gain"))),
    ("augmentation", "with shifts it is right on {} %", lambda: points(augmented(f"{TIED}, shifted"))),
    ("augmentation", "positions share {} % of its", lambda: points(augmented(f"{TIED}, shifted", "shared"))),
    ("augmentation", "they share only {} %", lambda: points(augmented(f"{TIED}, shifted", "added"))),
    ("augmentation", "with shifts as without ({} %)", lambda: points(augmented(TIED, "added"))),
    ("depth_or_width", "One wide layer is {} points below", lambda: points(deep(3) - deep(1))),
    ("depth_or_width", "narrow layers are {} points below", lambda: points(deep(3) - deep(8))),
    ("depth_or_width", "of 22 channels are right on {} %", lambda: points(deep(2))),
    ("depth_or_width", "three of 16 on {} %", lambda: points(deep(3))),
    ("depth_or_width", "eight of 9 on {} %", lambda: points(deep(8))),
    ("depth_or_width", "the same order, with {}, 87.5", lambda: points(deep(2, "equal multiply-adds"))),
    ("depth_or_width", "87.5 and {} %", lambda: points(deep(8, "equal multiply-adds"))),
    ("depth_or_width", "eight layers reach {} %", lambda: points(deep(8, "equal weights, 1x1 layers after the second"))),
    ("soft_equivariance", "They gain {} points [1.9, 4.5]", lambda: points(softened(1.0, "gain"))),
    ("soft_equivariance", "against {} %). On", lambda: points(softened(1.0))),
    (
        "soft_equivariance",
        "any weaker projection ends 1.3 to {} points below that",
        lambda: points(softened(1.0) - softened(0.0)),
    ),
    ("soft_equivariance", "ends {} to 3.2 points below that", lambda: points(softened(1.0) - softened(0.75))),
    (
        "soft_equivariance",
        "independent kernels end {} to 0.9 points above",
        lambda: points(
            softened(0.25, digits="always in the centre", network="local, starts independent")
            - softened(1.0, digits="always in the centre", network="local, starts independent")
        ),
    ),
    ("soft_equivariance", "is far better at random places ({} against", lambda: points(softened("", network="convolution"))),
    (
        "soft_equivariance",
        "a half costs {} points",
        lambda: points(-softened(0.5, "gain", "projected", "always in the centre")),
    ),
    (
        "soft_equivariance",
        "three quarters cost {}.",
        lambda: points(-softened(0.75, "gain", "projected", "always in the centre")),
    ),
    (
        "soft_equivariance",
        "Strength 1 leaves {} %",
        lambda: points(softened(1.0, "accuracy", "projected", "always in the centre")),
    ),
    ("soft_equivariance", "rises from {} % without", lambda: points(softened(0.0, "consistency"))),
    ("soft_equivariance", "to {} % with all of", lambda: points(softened(1.0, "consistency"))),
    ("soft_equivariance", "The convolution has {} %", lambda: points(softened("", "consistency", network="convolution"))),
    ("topography", "units differ by {} degrees", lambda: f"{sheet(10, 'roughness'):.1f}"),
    (
        "topography",
        "degrees, {} less than shuffled units",
        lambda: f"{sheet(10, 'shuffled') - sheet(10, 'roughness'):.1f}",
    ),
    ("topography", "layer {} of neighbours", lambda: percent(sheet(10, "class_changes"))),
    (
        "topography",
        "{} points less than shuffled",
        lambda: f"{100 * (sheet(10, 'shuffled_class_changes') - sheet(10, 'class_changes')):.0f}",
    ),
    ("topography", "the maps cost {} points", lambda: points(sheet(0) - sheet(10))),
    ("topography", "a little of each: {} degrees", lambda: f"{sheet(1, 'shuffled') - sheet(1, 'roughness'):.1f}"),
    ("topography", "and a cost of {} points", lambda: points(sheet(0) - sheet(1))),
    ("topography", "training images ({} % right", lambda: points(sheet(10, "train_accuracy"))),
    ("topography", "{} % without penalty), so", lambda: points(sheet(0, "train_accuracy"))),
    ("topography", "in the smoothest map: {} per 100", lambda: f"{sheet(10, 'pinwheels'):.1f}"),
    ("topography", "and {} when shuffled", lambda: f"{sheet(10, 'shuffled_pinwheels'):.1f}"),
    ("topography", "share {} % of the squares", lambda: points(sheet(10, "shared"))),
    ("topography", "penalty it is {} points below", lambda: points(sheet(0) - sheet(10, network="convolution"))),
    ("deblur", "restore pictures {} dB better", lambda: f"{decibels('varying kernels of sum 1', 4):.2f}"),
    ("deblur", "thirteen are {} dB better", lambda: f"{decibels('varying kernels of sum 1', 13):.2f}"),
    ("deblur", "needs eight ({} dB)", lambda: f"{decibels('varying kernels', 8):.2f}"),
    (
        "deblur",
        "low-rank one is {} dB above",
        lambda: f"{decibels('network, low rank', 6) - decibels('no restoration', ''):.2f}",
    ),
    ("deblur", "shared kernels is {} dB below", lambda: f"{-decibels('network, shared kernels', 1):.2f}"),
    ("deblur", "with local kernels {}.", lambda: f"{-decibels('network, local kernels', ''):.2f}"),
    ("deblur", "per pixel takes {} ms", lambda: f"{mean('deblur', 'ms', method='a kernel per pixel'):.0f}"),
    ("frozen_layers", "is right on {} % of the test images", lambda: points(layered("probe of trained layers", 3))),
    ("frozen_layers", "the whole network on {} %", lambda: points(layered(FROZEN, 0))),
    ("frozen_layers", "at random it costs {} points", lambda: points(layered(FROZEN, 0) - layered(FROZEN, 1))),
    ("frozen_layers", "Three frozen layers cost {}.", lambda: points(layered(FROZEN, 0) - layered(FROZEN, 3))),
    (
        "frozen_layers",
        "of the pixels is right on {} %",
        lambda: points(mean("frozen_layers", "accuracy", curve="linear classifier")),
    ),
    ("stems", "from {} % with 4x4 patches", lambda: points(stem("patchify"))),
    ("stems", "to {} % with three 3x3 layers", lambda: points(stem("3x3x3"))),
    ("stems", "a linear classifier ({} %)", lambda: points(stem("linear classifier"))),
    ("stems", "54 have {} points more", lambda: points(with_outputs(54))),
    ("stems", "32 have {} less", lambda: points(-with_outputs(32))),
    ("stems", "three lose {} points with a ReLU", lambda: points(-with_outputs(3))),
    ("stems", "with a ReLU and {} without", lambda: points(-with_outputs(3, "nothing"))),
    ("stems", "Nine lose {} with a ReLU", lambda: points(-with_outputs(9))),
    ("stems", "layers have {} times the", lambda: f"{stem('3x3x3', 'multiply_adds') / stem('2x2', 'multiply_adds'):.1f}"),
    ("stems", "three 3x3 layers have {} points more", lambda: points(stem("3x3x3", "gain"))),
    ("stems", "5x5 has {} more", lambda: points(stem("5x5", "gain"))),
    ("stems", "2x2 has {} points less", lambda: points(-stem("2x2", "gain"))),
    ("stems", "of stride 1 has {} less", lambda: points(-stem("3x3", "gain"))),
    ("stems", "and patchify {} less", lambda: points(-stem("patchify", "gain"))),
    ("sample_complexity", "need grows as k to the {}", lambda: exponent("conv")),
    ("sample_complexity", "a kernel for each position, grows as k to the {}", lambda: exponent("locally_connected")),
    ("sample_complexity", "that of a dense layer as k to the {}", lambda: exponent("dense")),
    ("sample_complexity", "patch: {} for the convolution", lambda: exponent("conv", "pixels")),
    ("sample_complexity", "needs {} examples at 16 patches", lambda: patches("conv", 16)),
    ("sample_complexity", "Local kernels need {} and 2,035", lambda: patches("locally_connected", 16)),
    ("sample_complexity", "A dense layer needs {} at 16", lambda: patches("dense", 16)),
    ("price_of_bias", "a convolution needs {} examples and", lambda: f"{bias('conv'):.0f}"),
    ("price_of_bias", "and a dense layer needs {}.", lambda: f"{bias('dense'):.0f}"),
    ("price_of_bias", "A convolution pays {} [0.8, 2.6]", lambda: f"{bias('conv') / 3:.1f}"),
    ("price_of_bias", "One price fitted to all is {} examples for each", lambda: f"{common_price():.1f}"),
    ("price_of_bias", "The dense layer's is {} [50, 152]", lambda: f"{bias('dense') / bias('conv'):.0f}"),
    ("flying_pigs", "overtake it at a rho of {} [0.72, 0.85]", lambda: crossing(1000)),
    ("flying_pigs", "At 4,000 it is {} [0.67, 0.78]", lambda: crossing(4000)),
    ("flying_pigs", "right on exactly {}, in all ten runs", lambda: percent(mean("flying_pigs", "accuracy", **ABOVE))),
    (
        "flying_pigs",
        "at rho 0 is {} points (1,000 examples)",
        lambda: points(pigs("zero padded", 0.0, 1000) - pigs("circular", 0.0, 1000)),
    ),
    ("text", "the local network is right on {} after 800 texts", lambda: percent(words(800))),
    ("text", "Local kernels have {} % [97.3, 99.2]", lambda: points(words(1600))),
    ("audio", "knows the speed of a rise ({} % [93.9, 95.9])", lambda: sounds("log-frequency", RISE)),
    ("audio", "along linear frequency have {} % [97.5, 100.0]", lambda: sounds("linear frequency", SWEEP)),
    ("audio", "the best translation leaves {} [66, 81]", lambda: percent(mean("audio", "residual", **RISING))),
    ("linear_ladder", "{} of 165 mean risks lie within 5 %", lambda: sum(abs(ratio - 1) <= 0.05 for ratio in risks())),
    ("linear_ladder", "a convolution needs {} images", lambda: f"{images_needed('conv'):.1f}"),
    ("linear_ladder", "and a dense layer {}. One", lambda: f"{images_needed('dense'):.0f}"),
    ("emergence", "Its weights are then {} times [4.0, 4.8]", lambda: f"{statistics.fmean(participations()):.1f}"),
    ("emergence", "at gain 3 its error is {} %", lambda: points(mean("emergence", "error", input="Gaussian clone", **LAST))),
    ("attribution", "With a tenth hidden, {} % of predictions stay by occlusion", lambda: kept("occlusion")),
    ("attribution", "{} % by the gradient times the image", lambda: kept("gradient x image")),
    (
        "attribution",
        "than its interval: {} points [1.8, 4.2]",
        lambda: lead("attribution", "predictions_kept", {"method": "random"}, {"method": "gradient"}, hidden_share=0.1),
    ),
    ("claims", "a check decides, {} are true,", lambda: verdicts("true")),
    ("claims", "{} are true in some cases only", lambda: verdicts("true if")),
    ("claims", "some cases only, and {} are false", lambda: verdicts("false")),
    (
        "learn_convolution",
        "of 1.2 million first weights {} are left",
        lambda: f"{mean('learn_convolution', 'first_weights', net=LASSO):,.0f}",
    ),
    ("learn_convolution", "in one 9x9 patch to {} %", lambda: points(mean("learn_convolution", "patch", net=LASSO))),
    (
        "learn_convolution",
        "Shuffled, {} % still lie there",
        lambda: points(mean("learn_convolution", "patch_shuffled", net=LASSO)),
    ),
    (
        "learn_convolution",
        "S-CONV has {} [1.5, 3.6]",
        lambda: lead("learn_convolution", "accuracy", {"net": "S-CONV"}, {"net": LASSO}),
    ),
    ("prune", "the inputs of a unit are {} times [0.86, 0.94]", lambda: f"{pruned('distance'):.2f}"),
    (
        "prune",
        "with other first weights the same mask has {} %",
        lambda: points(pruned("accuracy", "same mask, other first weights", 10)),
    ),
    ("prune", "With 1.2 % left it is {} [0.87, 0.96]", lambda: f"{pruned('distance_shuffled'):.2f}"),
    (
        "dynamic_sharing",
        "equalising at every tenth costs {} points",
        lambda: lead("dynamic_sharing", "accuracy", projected(1, 1.0), projected(10, 0.5)),
    ),
    (
        "dynamic_sharing",
        "and at every thousandth {} [8.5, 14.5]",
        lambda: lead("dynamic_sharing", "accuracy", projected(1, 1.0), projected(1000, 0.0)),
    ),
    (
        "dynamic_sharing",
        "To start as a convolution is worth {} points",
        lambda: lead("dynamic_sharing", "accuracy", projected(2000, 0.0), APART),
    ),
    ("low_rank", "Free kernels have a risk of {},", lambda: f"{mean('low_rank', 'risk', network=FREE, task='teacher'):.2f}"),
    (
        "low_rank",
        "points from the convolution in the mean ({} %)",
        lambda: points(mean("low_rank", "accuracy", network="conv", task="mnist1d", learning_rate=0.03)),
    ),
    (
        "low_rank",
        "Free kernels that start equal have {} %",
        lambda: points(mean("low_rank", "accuracy", network=f"{LOCAL}, starts shared", learning_rate=0.01)),
    ),
    ("speed", "a locally connected layer takes {} times as long", lambda: f"{timed('local, auto'):.1f}"),
    ("speed", "Linen's `ConvLocal` {} times.", lambda: f"{timed('local, ConvLocal'):.0f}"),
    ("speed", "`ConvLocal` takes {} times as long as our layer", lambda: f"{slower('local, ConvLocal', 'local, auto'):.1f}"),
    ("speed", "PyTorch's convolution takes {} of XLA's time", lambda: f"{timed('conv, torch'):.2f}"),
    ("speed", "In the sweep our layer is {} times as fast", lambda: f"{1 / timed('sweep: local, auto'):.1f}"),
    ("speed", "At {} shapes it is at least as fast", lambda: sum(ratio <= 1 for ratio in column("speed", "ratio", **SWEPT))),
    ("speed", "(two images of 11x11 pixels) it takes {} longer", lambda: percent(max(column("speed", "ratio", **SWEPT)) - 1)),
    (
        "scaling",
        "times as fast as JAX's op, with an {} to two fifths",
        lambda: {8: "eighth"}[round(max(map(operator.truediv, largest("temp_mib", "JAX"), largest("temp_mib", "convlab"))))],
    ),
    (
        "scaling",
        "our layer is 7.5 to {} times as fast",
        lambda: f"{max(map(operator.truediv, largest('ms', 'JAX'), largest('ms', 'convlab'))):.0f}",
    ),
    ("topographic_layers", "the six layers take {} ms in convlab", lambda: f"{of_layers('ms', 'convlab'):.0f}"),
    ("topographic_layers", "and {} ms in Keras' first", lambda: f"{of_layers('ms', 'Keras, implementation 1'):.0f}"),
    ("topographic_layers", "with {} against", lambda: f"{of_layers('peak_mib', 'convlab') / 1024:.1f}"),
    ("topographic_layers", "against {} GiB", lambda: f"{of_layers('peak_mib', 'Keras, implementation 1') / 1024:.1f}"),
    ("topographic_layers", "arithmetic takes {} ms, and", lambda: f"{of_layers('ms', 'convolution'):.0f}"),
    (
        "scaling_networks",
        "largest size `relax` adds {} times",
        lambda: f"{grown('relax', 'weights', 'peak_mib') / grown('relax', 'weights', 'result_mib'):.1f}",
    ),
    ("scaling_networks", "for 40 million, later ones {} s", lambda: f"{grown('relax', 'weights', 'ms') / 1e3:.1f}"),
    (
        "tuning",
        "takes the fastest implementation in {} % of 354",
        lambda: f"{100 * statistics.fmean(loss == 1 for loss in losses()):.0f}",
    ),
    ("tuning", "In the mean it takes {} % longer", lambda: f"{100 * statistics.geometric_mean(losses()) - 100:.0f}"),
    ("slow_convolutions", "are {} to 137 times as fast", lambda: f"{min(faster()):.0f}"),
    ("slow_convolutions", "the large kernel is {} times as fast", lambda: f"{max(faster()):.0f}"),
    ("speed_data", "the step runs at 1.00 and {} of its speed", lambda: f"{mean('speed_data', 'speed', route='disk'):.2f}"),
    ("speed_data", "on the way takes {} of it", lambda: percent(1 - mean("speed_data", "speed", route="records"))),
    ("speed_train", "trains {} to 0.70 times PyTorch's images", lambda: f"{trained('LeNet'):.2f}"),
    ("speed_train", "trains 0.53 to {} times PyTorch's images", lambda: f"{trained('Net'):.2f}"),
    (
        "speed_train",
        "Eight seeds take {} times one seed",
        lambda: f"{mean('speed_train', 'ratio', contender='fit_seeds, 8 seeds'):.1f}",
    ),
]


@pytest.mark.parametrize(("page", "sentence", "value"), HEADLINES, ids=lambda case: case if isinstance(case, str) else "")
def test_headline_number_matches_the_committed_rows(page, sentence, value):
    assert sentence.format(value()) in text(page)


def test_quick_ladder_uses_the_rates_chosen_by_the_full_ladder():
    from experiments.ladder import QUICK

    chosen = {row["rung"]: float(row["rate"]) for row in rows("ladder_full") if row["places"] == "81"}
    assert dict(QUICK.rates) == chosen


@pytest.mark.parametrize("experiment", ["pooling", "two_by_two"])
def test_gains_of_a_committed_run_are_differences_within_a_seed(experiment):
    accuracy = {(row["network"], row["seed"]): float(row["accuracy"]) for row in rows(experiment)}
    compared = [row for row in rows(experiment) if row["against"]]
    assert compared
    for row in compared:
        assert float(row["gain"]) == pytest.approx(
            accuracy[row["network"], row["seed"]] - accuracy[row["against"], row["seed"]]
        )
