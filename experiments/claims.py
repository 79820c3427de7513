"""What do the texts claim about convolutions, and is it so?

Each claim is a quotation, or what a discussion holds in substance, with a check that tries it in cases, on random weights. What
holds in some cases only is "true if ..."; what only trained networks can decide is open here.

Answer: of 45 that a check decides 18 are true, 21 true in some cases, 6 false; three wait for trained networks.

    python -m experiments.claims                                        (1 minute on 2 cores)
"""

import dataclasses
import functools
import textwrap
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from convlab import report
from convlab.report.drawing import slide_style
from experiments import checks
from experiments.checks import Finding
from experiments.command import parse

D2L = "Dive into Deep Learning"
BOOK = "Deep Learning with PyTorch"
FORUM = "fast.ai forum, in substance"
NOTES = "notes on chapter 8 of Deep Learning with PyTorch, in substance"


class Claim(NamedTuple):
    """What is claimed, where, what decides it, and what came out.

    Attributes:
      quote: The claim, in the words of its source or in substance.
      source: Text and section.
      check: Decides it.
      verdict: That the check comes to: "true", "false" or "true if ...".
      number: That it turns on.
      unit: What the number is.
    """

    quote: str
    source: str
    check: Callable[[], Finding]
    verdict: str
    number: float
    unit: str


CLAIMS = (
    # From dense layers to convolutions
    Claim(
        "Even an aggressive reduction to 1,000 hidden dimensions [of a megapixel] would require 10^9 parameters.",
        f"{D2L}, 7.1",
        checks.megapixel_to_a_thousand,
        "true",
        1e9,
        "weights",
    ),
    Claim(
        "With 100,000 pixels it is 10^8.",
        f"{D2L}, 7.1, in substance",
        functools.partial(checks.megapixel_to_a_thousand, 10**5, 10**8),
        "true",
        1e8,
        "weights",
    ),
    Claim(
        "The switch from W to V is entirely cosmetic, since there is a one-to-one correspondence between coefficients in both.",
        f"{D2L}, 7.1.2",
        checks.reindexing,
        "true if offsets stay inside the image",
        117 / 35,
        "slots of V a weight of W, 5x7 pixels",
    ),
    Claim(
        "[A shift of the input is one of the activations.] This is only possible if V doesn't depend on (i, j).",
        f"{D2L}, 7.1.2",
        checks.shared_weights_are_what_commutes,
        "true",
        0,
        "difference of group average and projection",
    ),
    Claim(
        "For a 1 megapixel image V[a, b] has at most 1 million coefficients.",
        f"{D2L}, 7.1.2",
        checks.offsets_of_a_megapixel,
        "false",
        1999**2,
        "coefficients",
    ),
    Claim(
        "This reduces the number of parameters by a factor of 1 million.",
        f"{D2L}, 7.1.2",
        checks.saving_by_translation,
        "false",
        1e12 / 1999**2,
        "times fewer",
    ),
    Claim(
        "A shift in the inputs should simply lead to a shift in the activations. [...] This is a convolution!",
        f"{D2L}, 7.1.2",
        checks.shifted_input_shifts_the_output,
        "true if padding is CIRCULAR",
        3 / 11,
        "of 11x13 outputs wrong, SAME",
    ),
    Claim(
        "With Delta = 0 the convolutional mask implements an MLP independently for each set of channels.",
        f"{D2L}, 7.1, exercise 1",
        checks.one_pixel_windows_are_an_mlp,
        "true",
        0,
        "largest difference",
    ),
    Claim("f * g = g * f", f"{D2L}, 7.1, exercise 6", checks.commutation, "true if there is one channel", 13.299, "difference"),
    # Kernels, padding, strides, channels
    Claim(
        "The kernel K = [1, -1] only detects vertical edges.",
        f"{D2L}, 7.2.3",
        checks.only_vertical_edges,
        "true if the others are horizontal",
        1,
        "response to a diagonal edge",
    ),
    Claim(
        "[After 10 steps at rate 0.03] the learned kernel array is remarkably close to the kernel array K.",
        f"{D2L}, 7.2.4",
        checks.kernel_learnt_in_ten_steps,
        "true",
        0.0821,
        "largest error, 5 seeds",
    ),
    Claim(
        "The minimum size of a kernel for a derivative of degree d is d + 1.",
        f"{D2L}, 7.2, exercise 4, answered",
        checks.smallest_derivative,
        "true",
        4,
        "taps, third derivative",
    ),
    Claim(
        "The output shape is floor((n - k + p + s) / s) [along each axis].",
        f"{D2L}, 7.3.2",
        checks.output_sizes,
        "true",
        324,
        "cases tried",
    ),
    Claim(
        "10 layers of 5x5 convolutions reduce the image [of 240x240] to 200x200, slicing off 30 % of it.",
        f"{D2L}, 7.3",
        checks.ten_layers_slice_off,
        "true",
        1 - 25 / 36,
        "of the image",
    ),
    Claim(
        "The number of calculations grows by 4 if both numbers of channels double.",
        f"{D2L}, 7.4, exercise 3, answered",
        checks.doubled_channels,
        "true",
        4,
        "times the multiply-adds",
    ),
    Claim(
        "Two convolutions in a row can be expressed by a single one of size k1 + k2 - 1.",
        f"{D2L}, 7.4, exercise 1",
        checks.two_kernels_are_one,
        "true if padding is VALID or padding is CIRCULAR",
        44,
        "of 144 pixels differ, SAME",
    ),
    Claim(
        "The converse: every 3x3 kernel is two 2x2 kernels in a row.",
        f"{D2L}, 7.4, exercise 1",
        checks.one_kernel_is_two,
        "false",
        7,
        "of 9 dimensions reached",
    ),
    Claim(
        "Parameters depend on the kernel and the number of filters, not on the size of the image.",
        NOTES,
        checks.parameters_know_no_image,
        "true if the layer is a convolution",
        4,
        "times the weights, twice the pixels a side",
    ),
    Claim(
        "A convolution with stride 2 still reads every pixel.",
        NOTES,
        checks.strided_windows_read_every_pixel,
        "true if the window is 2x2 and sides are even or the window is 3x3",
        1 / 4,
        "of the pixels read, 1x1",
    ),
    Claim(
        "With padding, every pixel is used equally often.",
        NOTES,
        checks.every_pixel_is_used_equally,
        "true if padding is CIRCULAR or padding is FULL",
        9 / 4,
        "uses in the middle, one in a corner, SAME",
    ),
    Claim(
        "A convolution is a dense layer with most weights zero and equal updates for the others.",
        NOTES,
        checks.equal_updates,
        "true if they are SGD's, averaged",
        1.257,
        "difference after an averaged step of Adam, in steps",
    ),
    Claim(
        "The printed weights of the book's networks.",
        f"{BOOK}, chapters 7 and 8",
        checks.published_counts,
        "true if MLP 512 or MLP 1024 or Net or Net of width 32",
        75_810,
        "weights of 100 blocks, printed 994,530",
    ),
    Claim(
        "To a dense layer the order of the pixels is all the same, to a convolution it is not.",
        NOTES,
        checks.permuted_pixels,
        "true",
        0.3103,
        "relative change of the convolution's gradient",
    ),
    # Pooling
    Claim(
        "Average pooling is a special case of a convolution layer.",
        f"{D2L}, 7.5, exercise 1",
        checks.mean_pooling_is_a_convolution,
        "true",
        0,
        "largest difference",
    ),
    Claim(
        "Max pooling is a special case of a convolution layer.",
        f"{D2L}, 7.5, exercise 2",
        checks.max_pooling_is_a_convolution,
        "false",
        2.057,
        "off from additive",
    ),
    Claim(
        "A maximum can be made of convolutions and ReLUs.",
        f"{D2L}, 7.5, exercise 2, later edition",
        checks.max_from_relus,
        "true",
        0,
        "largest difference",
    ),
    Claim(
        "No separate minimum pooling layer is needed.",
        f"{D2L}, 7.5, exercise 5, answered",
        checks.minimum_needs_no_layer,
        "true",
        0,
        "largest difference",
    ),
    Claim(
        "With 2x2 max pooling we still detect the pattern if it moves no more than one element.",
        f"{D2L}, 7.5.1",
        checks.pooling_forgives_one_pixel,
        "true if the stride is 1",
        8 / 15,
        "of the moves forgiven, stride 2",
    ),
    Claim(
        "Two cross-shaped kernels and max pooling make a large cross stand out.",
        f"{BOOK}, figure 8.8",
        checks.crosses_light_up,
        "true",
        4,
        "of 4 crosses found at their centre",
    ),
    Claim(
        "Max pooling breaks the sampling theorem.",
        FORUM,
        checks.max_pooling_aliases,
        "true",
        1 / 12,
        "of the energy aliased, after a signal that had none",
    ),
    # What a layer keeps
    Claim(
        "More outputs than the patch has numbers (27 to 32) are pointless.",
        FORUM,
        checks.outputs_beyond_the_patch,
        "true if nothing follows",
        32,
        "dimensions after a ReLU, 27 before",
    ),
    Claim(
        "From nine numbers to eight, a layer only reshuffles.",
        FORUM,
        checks.nine_to_eight_reshuffles,
        "true if it is about the whole image",
        1,
        "dimension of a patch lost",
    ),
    Claim(
        "A few 3x3 filters keep all of an image, without padding.",
        FORUM,
        checks.filters_keep_the_image,
        "true if there are three",
        8,
        "dimensions lost by two, 2 (k - 1)^2",
    ),
    Claim(
        "One 3x3 filter already keeps all of an image.",
        FORUM,
        checks.one_filter_keeps_the_image,
        "true if padding is CIRCULAR or padding is SAME",
        28,
        "of 64 dimensions lost, VALID",
    ),
    Claim(
        "A stem from 27 to 32 dilutes, one from 147 to 64 does not.",
        FORUM,
        checks.only_one_stem_dilutes,
        "true if outputs are set against the pixels they read",
        16 / 3,
        "outputs a pixel and colour new to them, 147 to 64",
    ),
    Claim(
        "A 1x1 layer from one channel to many fills the space [of 16 channels] sparsely.",
        FORUM,
        checks.one_to_many_fills_little,
        "true if nothing follows",
        15,
        "dimensions with bias and ReLU, 1 without",
    ),
    # Small kernels for large ones
    Claim(
        "Two 3x3 layers replace a 5x5 layer at fewer weights (18 for 25).",
        FORUM,
        functools.partial(checks.fewer_weights, 5, 3),
        "true",
        0.28,
        "of the weights saved, equally wide",
    ),
    Claim(
        "Two 3x3 layers compute what a 5x5 layer does.",
        FORUM,
        functools.partial(checks.two_small_are_one_large, 5),
        "true if what lies between is as wide as the law",
        99,
        "of 100 dimensions reached, one channel below the law",
    ),
    Claim(
        "Two 2x2 layers save 11 % of the weights of a 3x3 layer.",
        FORUM,
        functools.partial(checks.fewer_weights, 3, 2),
        "true",
        1 / 9,
        "of the weights saved, equally wide",
    ),
    Claim(
        "Two 2x2 layers compute what a 3x3 layer does, so all convolutions could be 2x2.",
        FORUM,
        functools.partial(checks.two_small_are_one_large, 3),
        "true if what lies between is as wide as the law",
        28,
        "of 36 dimensions reached, one channel below the law",
    ),
    Claim(
        "Kernels of even size are awkward.",
        FORUM,
        checks.even_kernels_drift,
        "true if all pad on one side",
        3,
        "pixels that six layers drift",
    ),
    Claim(
        "ResNet-C's stem of three 3x3 layers saves compute.",
        FORUM,
        checks.stem_c_saves,
        "false",
        3.0416,
        "times the multiply-adds of 7x7",
    ),
    Claim(
        "ResNet-C's stem of three 3x3 layers saves weights.",
        FORUM,
        functools.partial(checks.stem_c_saves, "weights"),
        "false",
        28_512 / 9_408,
        "times the weights of 7x7, 28,512 for 9,408",
    ),
    Claim(
        "Convolutions in a row without a ReLU between are one convolution.",
        FORUM,
        checks.layers_without_relu,
        "true if padding is VALID or padding is CIRCULAR",
        80 / 143,
        "of 13x11 pixels differ, SAME",
    ),
    Claim(
        "Circular convolutions and global pooling cannot tell left from right.",
        "Kayhan and van Gemert 2020, in substance",
        checks.pooled_circles_cannot_tell_left,
        "true",
        0,
        "largest difference",
    ),
)

COLOURS = {"true": "#2a7f62", "true if ...": "#c98a1b", "false": "#b23a48", "open": "#8a8f98"}

OPEN = (  # decided by training, in an experiment
    (
        "Might it be a good idea to have pigs that fly? (translation invariance against the data's law)",
        f"{D2L}, 7.1, exercise 2",
    ),
    ("Networks of double 2x2 layers against those of 3x3 layers: an interesting read.", FORUM),
    ("Stems that do not dilute (147 to 64) beat those that do (27 to 32).", FORUM),
)


@dataclasses.dataclass(frozen=True)
class Config:
    """What is run.

    Args:
      only: Claims whose words contain this; absent, all.
      root: Folder that the results go to.
    """

    only: str = ""
    root: str = "runs"


SMOKE = Config(only="pooling")


def run(config: Config) -> list[dict[str, Any]]:
    """Check the claims; one row each.

    Raises:
      ValueError: No claim contains `config.only`.
    """
    if not any(config.only in quote for quote in (*(claim.quote for claim in CLAIMS), *(quote for quote, _ in OPEN))):
        raise ValueError(f"no claim contains {config.only!r}; needs words of one, as they stand in CLAIMS and OPEN")
    rows = []
    for claim in CLAIMS:
        if config.only in claim.quote:
            finding = claim.check()
            rows.append({"claim": claim.quote, "source": claim.source, "verdict": finding.verdict, "number": finding.number})
            rows[-1] |= {"unit": claim.unit, "recorded": claim.verdict}
    return rows + [{"claim": quote, "source": source, "verdict": "open"} for quote, source in OPEN if config.only in quote]


def kind(verdict: str) -> str:
    """Sort a verdict: true, true in some cases, false, open."""
    return "true if ..." if verdict.startswith("true if") else verdict


def draw(rows: list[dict[str, Any]]) -> Any:
    """How many claims of each text hold, and what is wrong with those that do not; the rest is in the table."""
    figure, (counts, wrong) = report.new_figure(2, size=(16.0, 8.5))
    texts = list(dict.fromkeys(_text(row) for row in rows))
    with slide_style():
        for verdict, colour in COLOURS.items():
            many = [
                [sum(_text(row) == text and kind(row["verdict"]) == each for row in rows) for each in COLOURS] for text in texts
            ]
            place = list(COLOURS).index(verdict)
            left, width = [sum(each[:place]) for each in many], [each[place] for each in many]
            bars = counts.barh(range(len(texts)), width, left=left, color=colour, label=verdict)
            counts.bar_label(bars, [str(n) if n else "" for n in width], label_type="center", color="white")
        counts.set_yticks(range(len(texts)), [textwrap.fill(text, 20) for text in texts])
        counts.invert_yaxis()
        counts.set(xlabel="claims", title=f"{len(rows)} claims about convolutions")
        counts.legend(ncols=len(COLOURS), loc="upper center", bbox_to_anchor=(0.4, -0.1), frameon=False)
        false = [row for row in rows if kind(row["verdict"]) == "false"]
        for line, row in enumerate(false):
            wrong.text(0.0, line - 0.18, textwrap.fill(row["claim"], 64), va="center", size=14)
            told = f"{row['number']:,.0f}" if row["number"] == round(row["number"]) else f"{row['number']:,.2f}"
            wrong.text(0.03, line + 0.22, f"{told} {row['unit']}", va="center", size=14, color=COLOURS["false"])
        wrong.set(xlim=(0, 1), ylim=(len(false) - 0.5, -0.5), title="false in every case tried, and what it is")
        wrong.axis("off")
    return figure


def _text(row: dict[str, Any]) -> str:
    """The text that a claim is from, without the place in it."""
    return row["source"].split(",")[0]


def main(config: Config) -> None:
    """Run, print, draw and save."""
    begin = time.perf_counter()
    rows = run(config)
    for row in rows:
        print(f"{row['verdict']}: {row['claim']}")
    report.save_report("claims", rows, config, figure=draw(rows), seconds=time.perf_counter() - begin, root=config.root)


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
