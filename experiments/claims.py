"""What do the texts claim about convolutions, and is it so?

Each claim is a quotation, with ours in brackets, or what a discussion holds in substance. A check tries it in cases. What
holds in some cases only is "true if ...". The same check, tried where the claim is known not to hold, comes out the other way.
Questions are answered beside, and what only trained networks decide is left to the experiment that trains them.

Answer: of 49 that a check decides 24 are true, 19 true in some cases, 6 false; seven are left to experiments.

    python -m experiments.claims                                        (2 minutes on 2 cores)

References: Zhang, Lipton, Li and Smola, Dive into Deep Learning, edition 1.0.3 where none is named. Stevens, Antiga and
Viehmann 2020, Deep Learning with PyTorch. Kayhan and van Gemert 2020. Threads "Help me understand Lesson 10 (Part 2)" and
"Kernel size: why would you ever make it larger?" on forums.fast.ai, and "Convolutions - Deep Learning with PyTorch" on
discuss.pytorch.org.
"""

import dataclasses
import functools
import textwrap
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import convlab as cl
from convlab import report
from convlab.report.drawing import slide_style
from experiments.checks import Finding, composition, counts, keeping, layers, pooling, training
from experiments.command import parse

D2L = "Dive into Deep Learning"
BOOK = "Deep Learning with PyTorch"
FORUM = "fast.ai forum"
TORCH = "PyTorch forum"


class Claim(NamedTuple):
    """What is claimed, where, what decides it, and what came out.

    Attributes:
      quote: The claim, in the words of its source or in substance.
      source: Text and section.
      check: Decides it; its arguments are the situation that the claim is about.
      verdict: That the check comes to: "true", "false" or "true if ...".
      number: That it turns on.
      unit: What the number is.
      counter: A situation in which the same check comes out the other way, in words, and the arguments that make it. Of
        what is true in some cases only, the check itself tries others.
    """

    quote: str
    source: str
    check: Callable[..., Finding]
    verdict: str
    number: float
    unit: str
    counter: Mapping[str, Mapping[str, Any]] = {}

    def countered(self) -> dict[str, Finding]:
        """What the check finds in the counter-case."""
        return {case: self.check(**changed) for case, changed in self.counter.items()}


CLAIMS = (
    # From dense layers to convolutions
    Claim(
        "Even an aggressive reduction to one thousand hidden dimensions would require a fully connected layer characterized by "
        "10^6 x 10^3 = 10^9 parameters.",
        f"{D2L}, 7.1",
        counts.dense_weights,
        "true",
        1e9,
        "weights",
        {"from 10^5 pixels": {"pixels": 10**5}},
    ),
    Claim(
        "But even if we reduce it to a paltry 100,000 pixels, that's still 10^8 parameters.",
        f"{D2L}, edition 0.6",
        functools.partial(counts.dense_weights, pixels=10**5, claimed=10**8),
        "true",
        1e8,
        "weights",
        {"from 10^6 pixels": {"pixels": 10**6}},
    ),
    Claim(
        "The switch from W to V is entirely cosmetic for now since there is a one-to-one correspondence between coefficients "
        "in both fourth-order tensors.",
        f"{D2L}, 7.1.2",
        layers.reindexing,
        "true if offsets stay inside the image",
        117 / 35,
        "slots of V a weight of W, 5x7 pixels",
    ),
    Claim(
        "[A shift of the input shifts the hidden representation.] This is only possible if V and U do not actually depend on "
        "(i, j).",
        f"{D2L}, 7.1.2",
        layers.what_commutes_is_a_convolution,
        "true",
        0,
        "difference of what commutes with all shifts from a convolution",
        {"shifts of rows alone": {"axes": (0,)}},
    ),
    Claim(
        "For a 1 megapixel image, [V[a, b]] has at most 1 million coefficients.",
        f"{D2L}, edition 0.14.1",
        counts.offsets,
        "false",
        1999**2,
        "coefficients",
        {"of 500x500 pixels": {"side": 500}},
    ),
    Claim(
        "The number of parameters required is no longer 10^12 but a much more reasonable 4 x 10^6.",
        f"{D2L}, 7.1.2",
        functools.partial(counts.offsets, least=3.5e6, most=4.5e6),
        "true",
        1999**2,
        "coefficients",
        {"of 500x500 pixels": {"side": 500}},
    ),
    Claim(
        "This is 1 million fewer parameters [times fewer] since it no longer depends on the location within the image.",
        f"{D2L}, edition 0.14.1",
        counts.saving_by_sharing,
        "true if slots of V are counted",
        1e12 / 1999**2,
        "times fewer weights",
    ),
    Claim(
        "[Locality] reduces the number of parameters from 4 x 10^6 to 4 Delta^2.",
        f"{D2L}, 7.1.2",
        counts.weights_of_a_window,
        "true if Delta is 9",
        9 / 4,
        "times as many where Delta is 1, 9 for 4",
    ),
    Claim(
        "A shift in the input X should simply lead to a shift in the hidden representation H. [...] This is a convolution!",
        f"{D2L}, 7.1.2",
        layers.shifted_input_shifts_the_output,
        "true if padding is CIRCULAR or padding is SAME and the object keeps away from the border",
        7 / 130,
        "of 10x13 outputs of two layers wrong at the border, SAME",
    ),
    Claim(
        "[If] Delta = 0 [...] the convolution kernel implements an MLP independently for each set of channels.",
        f"{D2L}, 7.1, exercise 1",
        layers.one_pixel_windows_are_an_mlp,
        "true",
        0,
        "largest difference",
        {"Delta is 1": {"size": 3}},
    ),
    Claim(
        "The convolution is symmetric, i.e., f * g = g * f [of functions, that is, of one channel].",
        f"{D2L}, 7.1, exercise 6",
        layers.commutation,
        "true",
        0,
        "largest difference",
        {"of layers of two channels": {"channels": 2}},
    ),
    Claim(
        "Because these networks are invariant to the order of the features, we could get similar results [...] if we permute "
        "the columns of our design matrix before fitting the MLP's parameters.",
        f"{D2L}, 7",
        layers.permuted_pixels,
        "true",
        0,
        "relative change of the gradient",
        {"of a convolution": {"layer": "conv"}},
    ),
    Claim(
        "A convolution is equivalent to having multiple linear operations whose weights are zero almost everywhere except "
        "around individual pixels and that receive equal updates during training.",
        f"{BOOK}, 8.1",
        training.equal_updates,
        "true if SGD's gradients are summed or SGD's steps are averaged or Adam's gradients are summed",
        1.2421,
        "difference after averaged steps of Adam, in distances gone",
    ),
    Claim(
        "The number of parameters depends not on the number of pixels in the image, [...] but rather on the size of the "
        "convolution kernel [...] and on how many convolution filters [...] we decide to use in our model.",
        f"{BOOK}, 8.1",
        counts.parameters_know_no_image,
        "true",
        1,
        "times the weights, twice the pixels a side",
        {"of its local twin": {"kind": cl.LocallyConnected}},
    ),
    Claim(
        "The networks for birds and planes have 1,574,402, 3,737,474, 38,386 and 18,090 parameters.",
        f"{BOOK}, 7 and 8, in substance",
        counts.published_counts,
        "true",
        18_090,
        "weights of Net",
        {"for 28x28 pixels": {"side": 28}},
    ),
    Claim(
        "The first layer is exceptional in that it greatly increases the overall dimension (as in channels times pixels) of "
        "the data flowing through it.",
        f"{BOOK}, 8.3",
        counts.first_layer_grows,
        "true",
        32 / 3,
        "times the numbers",
        {"of the second layer": {"layer": 1}},
    ),
    # Kernels, padding, strides, channels
    Claim(
        "The kernel K [= [1, -1]] only detects vertical edges.",
        f"{D2L}, 7.2.3",
        layers.only_vertical_edges,
        "true if the others are horizontal",
        1,
        "response to a diagonal edge",
    ),
    Claim(
        "[After 10 steps at a rate of 0.03] the learned kernel tensor is remarkably close to the kernel tensor K.",
        f"{D2L}, 7.2.4",
        layers.kernel_learnt,
        "true",
        0.0821,
        "largest error, 5 seeds",
        {"after 2 steps": {"steps": 2}},
    ),
    Claim(
        "The output shape is floor((n - k + p + s) / s) [along each axis].",
        f"{D2L}, 7.3.2",
        counts.output_sizes,
        "true",
        324,
        "cases tried",
        {"floor((n - k + p) / s)": {"rule": lambda n, k, p, s: (n - k + p) // s}},
    ),
    Claim(
        "If we start with a 240 x 240 pixel image, ten layers of 5 x 5 convolutions reduce the image to 200 x 200 pixels, "
        "slicing off 30 % of the image.",
        f"{D2L}, 7.3",
        counts.ten_layers_slice_off,
        "true",
        1 - 25 / 36,
        "of the image",
        {"layers of 3x3": {"size": 3}},
    ),
    Claim(
        "Trimming [32 x 32 pixels to 28 x 28] was done primarily to save space (a 30% reduction).",
        f"{D2L}, 7.6.1",
        counts.trimmed,
        "false",
        1 - 49 / 64,
        "of the pixels",
        {"from 240x240 to 200x200": {"before": 240, "after": 200}},
    ),
    Claim(
        "[Padding] ensures that all pixels are used equally frequently.",
        f"{D2L}, 7.3.3",
        counts.every_pixel_is_used_equally,
        "true if padding is CIRCULAR or padding is FULL",
        9 / 4,
        "uses in the middle, one in a corner, SAME",
    ),
    Claim(
        "A 3 x 4 convolution with stride 2 still incorporates input from all pixels from the previous layer [3 x 3 as well].",
        f"{BOOK}, 8.2.3",
        counts.strided_windows_read_every_pixel,
        "true",
        1,
        "of the pixels read",
        {"of 1x1": {"sizes": ((1, 1),)}},
    ),
    Claim(
        "For a 256 x 256 pixel image with a 5 x 5 kernel and 128 input and output channels respectively this amounts to over "
        "53 billion operations (we count multiplications and additions separately).",
        f"{D2L}, 7.4.4",
        counts.operations,
        "true",
        53_687_091_200,
        "operations",
        {"counted together": {"of_a_product": 1}},
    ),
    Claim(
        "[Of two convolution kernels] the result of the operation can be expressed by a single convolution.",
        f"{D2L}, 7.4, exercise 1",
        composition.two_kernels_are_one,
        "true if padding is VALID or padding is CIRCULAR",
        44,
        "of 144 pixels differ, SAME",
    ),
    # Pooling
    Claim(
        "Average pooling [can be implemented] through a convolution.",
        f"{D2L}, 7.5, exercise 1",
        pooling.mean_pooling_is_a_convolution,
        "true",
        0,
        "largest difference",
        {"of max pooling": {"pool": cl.max_pool}},
    ),
    Claim(
        "Max-pooling cannot be implemented through a convolution alone.",
        f"{D2L}, 7.5, exercise 2",
        pooling.pooling_is_no_convolution,
        "true",
        2.0569,
        "off from additive",
        {"of mean pooling": {"pool": cl.mean_pool}},
    ),
    Claim(
        "Max-pooling can be accomplished using ReLU operations.",
        f"{D2L}, 7.5, exercise 3",
        pooling.maxima_from_relus,
        "true",
        0,
        "largest difference",
        {"by tanh": {"activation": jax.nn.tanh}},
    ),
    Claim(
        "Using the 2 x 2 max-pooling layer, we can still detect if the pattern recognized by the convolutional layer moves no "
        "more than one element in height or width.",
        f"{D2L}, 7.5.1",
        pooling.pooling_forgives_one_pixel,
        "true if the stride is 1",
        8 / 15,
        "of the moves forgiven, stride 2",
    ),
    Claim(
        "A large cross is highlighted using two small, cross-shaped kernels and max pooling [and the kernels again].",
        f"{BOOK}, figure 8.8, in substance",
        pooling.crosses_light_up,
        "true",
        8,
        "of 8 crosses found at their centre",
        {"of a bar": {"shapes": "|"}},
    ),
    Claim(
        "Max pooling breaks the sampling theorem.",
        f"{FORUM}, in substance",
        pooling.pooling_aliases,
        "true",
        1 / 12,
        "of the energy aliased, after a signal that had none",
        {"of blur pooling": {"pool": cl.blur_pool}},
    ),
    # What a layer keeps
    Claim(
        "More outputs than the patch has numbers (27 to 32) are pointless.",
        f"{TORCH}, in substance",
        keeping.outputs_beyond_the_patch,
        "true if nothing follows",
        32,
        "dimensions after a ReLU, 27 before",
    ),
    Claim(
        "A 1x1 layer from one channel to many fills the space [of 16 channels] sparsely.",
        f"{TORCH}, in substance",
        keeping.one_to_many_fills_little,
        "true if nothing follows",
        15,
        "dimensions with bias and ReLU, 1 without",
    ),
    Claim(
        "[From nine numbers to eight] we're just re-ordering / shuffling them.",
        f"{FORUM}, on lesson 10",
        keeping.only_reorders,
        "false",
        14.9286,
        "times as much stretched, some patches as others",
        {"by filters of a single 1": {"v": jnp.eye(9, 8)}},
    ),
    Claim(
        "A stem from 27 to 32 dilutes, one from 147 to 64 does not.",
        f"{FORUM}, in substance",
        keeping.only_one_stem_dilutes,
        "true if outputs are set against the pixels they read",
        16 / 3,
        "outputs a pixel and colour new to them, 147 to 64",
    ),
    # Small kernels for large ones
    Claim(
        "2 3x3 conv layers have a receptive field of 5x5. [...] The 2 3x3s have 18 weights that need adjusting compared to the "
        "25 5x5.",
        f"{FORUM}, on kernel size",
        counts.fewer_weights,
        "true",
        0.28,
        "of the weights saved, equally wide",
        {"for 7x7": {"large": 7}},
    ),
    Claim(
        "2 3x3s should be able to learn the same weights to be equivalent to our 5x5 kernel results.",
        f"{FORUM}, on kernel size",
        composition.two_small_are_one_large,
        "true if 2 channels go through 4",
        99,
        "of 100 dimensions reached through 3 channels",
    ),
    Claim(
        "2 simple 1x2 layers could learn any function that 1 1x3 layer could.",
        f"{FORUM}, on kernel size",
        composition.pairs_make_three_taps,
        "true if the kernel has real roots",
        0.6418,
        "of Gaussian kernels reached",
    ),
    Claim(
        "Two 2x2 layers save 11 % of the weights of a 3x3 layer.",
        f"{FORUM}, in substance",
        functools.partial(counts.fewer_weights, large=3, small=2),
        "true",
        1 / 9,
        "of the weights saved, equally wide",
        {"for 5x5": {"large": 5}},
    ),
    Claim(
        "Two 2x2 layers compute what a 3x3 layer does, so all convolutions could be 2x2.",
        f"{FORUM}, in substance",
        functools.partial(composition.two_small_are_one_large, size=3),
        "true if 2 channels go through 3",
        28,
        "of 36 dimensions reached through 2 channels",
    ),
    Claim(
        "[Two 2x2 kernels have 4 parameters each,] so the 3x3 still 'wins' by one free parameter!",
        f"{FORUM}, on lesson 10",
        composition.wins_by_one,
        "false",
        2,
        "free parameters: seven of nine, as a scale is shared",
        {"2x3 of 1x2 and 2x2": {"first": (1, 2)}},
    ),
    Claim(
        "Kernels of even size are awkward.",
        f"{FORUM}, in substance",
        composition.even_kernels_drift,
        "true if all pad on one side",
        3,
        "pixels that six layers drift",
    ),
    Claim(
        "ResNet-C's stem of three 3x3 layers saves compute.",
        f"{FORUM}, in substance",
        counts.stem_saves,
        "false",
        3.0416,
        "times the multiply-adds of 7x7",
        {"of one 5x5 layer": {"stem": "5x5"}},
    ),
    Claim(
        "Convolutions in a row without a ReLU between are one convolution [trained, then fused].",
        f"{FORUM}, in substance",
        composition.layers_without_relu,
        "true if padding is VALID or padding is CIRCULAR",
        80 / 143,
        "of 13x11 pixels differ, SAME",
    ),
    # Whole networks
    Claim(
        "[AlexNet's two huge fully connected] layers require nearly 1GB model parameters.",
        f"{D2L}, 8.1.2",
        counts.nearly_a_gigabyte,
        "false",
        187.06,
        "MB in all layers, 172 in the two",
        {"at 21 bytes a weight": {"bytes_a_weight": 21}},
    ),
    Claim(
        "Matrices of size 6400 x 4096 and 4096 x 4096 [...] correspond to 164 MB of memory.",
        f"{D2L}, 8.1.4",
        counts.two_matrices_take,
        "true if a MB has 2^20 bytes",
        171.966,
        "MB of 10^6 bytes",
    ),
    Claim(
        "ReLUs and max-pooling work better [than LeNet's sigmoids and average pooling, here on digits].",
        f"{D2L}, 7.6.1",
        training.relus_and_max_pooling_work_better,
        "true",
        0.9,
        "more of the digits right, 3 seeds",
        {"before training": {"epochs": 0}},
    ),
    Claim(
        "[In its error] LeNet is much more similar to [ResNet than to an MLP; it should beat softmax, here on digits].",
        f"{D2L}, 7.6.3",
        training.lenet_beats_softmax,
        "true if it has ReLUs and max pooling",
        0.1,
        "of the digits right as printed, softmax 0.96, 3 seeds",
    ),
    Claim(
        "Circular convolutions and global pooling cannot tell left from right.",
        "Kayhan and van Gemert 2020, in substance",
        layers.pooled_circles_cannot_tell_left,
        "true",
        0,
        "largest difference",
        {"with zeros around": {"padding": "SAME"}},
    ),
)

QUESTIONS = (  # of the texts, or ours: nobody claims an answer, so none counts as true or false; in brackets what is tried
    Claim(
        "What is the minimum size of a kernel to obtain a derivative of order d? [d + 1]",
        f"{D2L}, 7.2, exercise 2",
        layers.smallest_derivative,
        "true",
        4,
        "taps, third derivative",
        {"d taps": {"taps": 3}},
    ),
    Claim(
        "Is the converse true, i.e., can you always decompose a convolution into two smaller ones?",
        f"{D2L}, 7.4, exercise 1",
        composition.every_kernel_is_two,
        "false",
        7,
        "of 9 dimensions reached by two 2x2 kernels",
        {"with two channels between": {"width": 2}},
    ),
    Claim(
        "By what factor does the number of calculations increase if we double both the number of input channels and the number "
        "of output channels? [4]",
        f"{D2L}, 7.4, exercise 3",
        counts.doubled_channels,
        "true",
        4,
        "times the multiply-adds",
        {"of one alone": {"inputs": 1}},
    ),
    Claim(
        "Do we need a separate minimum pooling layer? Can you replace it with another operation? [the negative maximum of the "
        "negative image]",
        f"{D2L}, 7.5, exercise 6",
        pooling.minimum_by,
        "true",
        0,
        "largest difference",
        {"by the mean": {"pool": cl.mean_pool}},
    ),
    Claim(
        "Does a ReLU cost dimensions of what it rectifies?",
        "ours",
        keeping.activation_loses_rank,
        "true if a single patch is asked",
        13.4646,
        "of 27 dimensions of a patch left in 27 outputs, in the mean",
    ),
    Claim(
        "Do 3x3 filters of one channel, without padding, lose anything of an image?",
        "ours",
        keeping.filters_lose,
        "true if there is one or there are two",
        8,
        "dimensions lost by two, 2 (k - 1)^2",
    ),
)

COLOURS = {"true": "#0072B2", "true if ...": "#E69F00", "false": "#D55E00", "open": "#767676"}

OPEN = (  # decided by training, in an experiment
    (
        "We should still recognize a pig were one to appear at the top of the image.",
        f"{D2L}, 7.1.1",
        "flying_pigs",
    ),
    (
        "Wherever the 'waldoness' is highest, we should find a peak in the hidden layer representations.",
        f"{D2L}, 7.1.4",
        "waldo",
    ),
    (
        "When that bias agrees with reality, we get sample-efficient models that generalize well to unseen data.",
        f"{D2L}, 7.1.2",
        "sample_complexity",
    ),
    (
        "If images turned out not to be translation invariant, our models might struggle even to fit our training data.",
        f"{D2L}, 7.1.2",
        "price_of_bias",
    ),
    (
        "[Zero padding] allows CNNs to encode implicit position information within an image.",
        f"{D2L}, 7.3.3",
        "boundary",
    ),
    ("Networks of double 2x2 layers against those of 3x3 layers: an interesting read.", f"{FORUM}, in substance", "two_by_two"),
    ("Stems that do not dilute (147 to 64) beat those that do (27 to 32).", f"{FORUM}, in substance", "stems"),
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


SMOKE = Config(only="parameters")


def run(config: Config) -> list[dict[str, Any]]:
    """Check the claims, then the questions; one row each.

    Raises:
      ValueError: No claim contains `config.only`.
    """
    chosen = [claim for claim in (*CLAIMS, *QUESTIONS) if config.only in claim.quote]
    left = [each for each in OPEN if config.only in each[0]]
    if not chosen + left:
        raise ValueError(f"no claim contains {config.only!r}; needs words of one, as they stand in CLAIMS, QUESTIONS and OPEN")
    rows = [_row(claim) for claim in chosen]
    return rows + [
        {"claim": quote, "source": source, "verdict": "open", "unit": f"see experiments.{experiment}"}
        for quote, source, experiment in left
    ]


def _row(claim: Claim) -> dict[str, Any]:
    """What the check of a claim, or of the answer to a question, finds; and what it finds in the counter-case."""
    finding = claim.check()
    verdict = finding.verdict if claim in CLAIMS else answer(finding.verdict)
    counters = [f"{case}: {other.verdict}, {_in_digits(other.number)}" for case, other in claim.countered().items()]
    row = {"claim": claim.quote, "source": claim.source, "verdict": verdict, "number": finding.number, "unit": claim.unit}
    return row | {"counter-case": "; ".join(counters)}


def answer(verdict: str) -> str:
    """Put the verdict on a tried answer as that on its question: yes, no, or yes in some cases."""
    return "no" if verdict == "false" else verdict.replace("true", "yes")


def kind(verdict: str) -> str:
    """Sort a verdict: true, true in some cases, false, open."""
    return "true if ..." if verdict.startswith("true if") else verdict


def draw(rows: list[dict[str, Any]]) -> Any:
    """How many claims of each text hold, and what is wrong with those that do not; the rest is in the table."""
    figure, (counted, wrong) = report.new_figure(2, size=(16.0, 8.5))
    claims = [row for row in rows if kind(row["verdict"]) in COLOURS]
    texts = list(dict.fromkeys(_text(row) for row in claims))
    with slide_style():
        left = [0] * len(texts)
        for verdict, colour in COLOURS.items():
            many = [sum(_text(row) == text and kind(row["verdict"]) == verdict for row in claims) for text in texts]
            bars = counted.barh(range(len(texts)), many, left=left, color=colour, label=verdict)
            counted.bar_label(bars, [str(n) if n else "" for n in many], label_type="center", color="white", weight="bold")
            left = [a + b for a, b in zip(left, many, strict=True)]
        counted.set_yticks(range(len(texts)), [textwrap.fill(text, 14) for text in texts])
        counted.invert_yaxis()
        counted.set(xlabel="claims", title=f"{len(claims)} claims about convolutions")
        counted.legend(ncols=len(COLOURS), loc="upper center", bbox_to_anchor=(0.4, -0.1), frameon=False)
        false = [row for row in claims if row["verdict"] == "false"]
        for line, row in enumerate(false):
            quote = textwrap.fill(textwrap.shorten(row["claim"], 100, placeholder=" ..."), 54)
            wrong.text(0.0, line - 0.15, quote, va="center", size=16)
            found = textwrap.shorten(f"{_in_digits(row['number'])} {row['unit']}", 60, placeholder=" ...")
            wrong.text(0.03, line + 0.3, found, va="center", size=16, color=COLOURS["false"])
        wrong.set(xlim=(0, 1), ylim=(max(len(false), 1) - 0.5, -0.5), title="false in every case tried, and what it is")
        wrong.axis("off")
    return figure


def _in_digits(number: float) -> str:
    """A count in full, any other number in three digits."""
    return f"{number:,.0f}" if number == round(number) else f"{number:,.3g}"


def _text(row: dict[str, Any]) -> str:
    """The text that a claim is from, without the place in it."""
    return row["source"].split(",")[0].removesuffix(" 2020")


def main(config: Config) -> None:
    """Run, print, draw and save."""
    begin = time.perf_counter()
    rows = run(config)
    for row in rows:
        print(f"{row['verdict']}: {row['claim']}")
    report.save_report("claims", rows, config, figure=draw(rows), seconds=time.perf_counter() - begin, root=config.root)


if __name__ == "__main__":
    main(parse(Config(), SMOKE, __doc__))
