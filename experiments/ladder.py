"""How many examples is sharing kernels worth, and when is it worth nothing?

Small images stand at random places on a larger canvas, up to T pixels from its centre along both axes: at (2T + 1)^2 places.
The same network (three 3x3 layers, batch norm, max pooling, the mean of every channel, a linear read-out) is trained with its
layers at every rung, on sets of growing size. All rungs of one seed see the same images. The controls: a single place (T = 0),
the same pixels in one random order (dashed), and a linear classifier; with --full also a read-out of all pixels, and a dense
network whose centred images are shifted at random while it trains. A linear and a dense network have no dashed line: from first
weights that are reordered alike they learn the same from reordered pixels.

Predictions, written before the first run, for the examples that are needed to classify 90 % of the test images right, against
the number of places. Dense and locally connected networks: in proportion to it (exponent about 1). Convolution and global
convolution: the same number everywhere (exponent about 0). Tiles of period p: what the convolution needs, times
min(places, p^2). Rank 4: between convolution and locally connected. At a single place every rung needs as many examples as the
convolution (price 1).

Answer: at 81 places the convolution classifies 90 % right after 453 training images; the dense network needs 13 times as many
placed images, locally connected kernels 15 times, tiles of period two 4.5 times. At one place no rung is shown to need more or
fewer than the convolution. Dense and locally connected needs grow with the number of places to the power of 0.94 [0.87, 1.01]
and 0.95 [0.89, 1.02], as predicted. The convolutions' needs were predicted not to grow; the convolution's nearly trebles from
one place to nine and then hardly grows, the global one's grows throughout. Tiles cost less than predicted but for period two at
81 places. Rank four is between convolution and locally connected at 81 places, and elsewhere not told apart from the latter.

    python -m experiments.ladder                         (digits on 16x16 pixels at three sizes)
    python -m experiments.ladder --full --distances 4    (ten sizes, five seeds, rates chosen on validation images)
    python -m experiments.ladder --full                  (the same at four distances, with what the command above trained)
    python -m experiments.ladder --mnist1d               (signals that come displaced; both read-outs)
    python -m experiments.ladder --fashion               (Fashion-MNIST on 40x40 pixels, sized for a GPU; never run yet)

What has been trained is kept in ROOT/ladder_runs. A run that was stopped goes on where it was, and --distances 4 runs a part.
"""

import dataclasses

from experiments.parts.ladder_figure import draw as draw
from experiments.parts.ladder_runs import run as run
from experiments.parts.ladder_table import FORMATS as FORMATS
from experiments.parts.ladder_table import table as table
from experiments.parts.sizes import RUNGS, Sizes
from experiments.shared.command import main

Config = Sizes
CHOSEN = tuple((dict.fromkeys(RUNGS, 1e-2) | {"dense": 3e-3, "convolution": 3e-2}).items())  # by the full run, at T = 4

QUICK = Sizes(rates=CHOSEN)
SMOKE = dataclasses.replace(
    QUICK, sizes=(50, 60), steps=(50, 50), seeds=2, rungs=("dense", "convolution"), reordered=("convolution",), features=(4, 4)
)
FULL = Sizes(
    name="ladder_full",
    distances=(4, 2, 1, 0),
    sizes=(31, 62, 125, 250, 500, 1000, 2000, 4000, 8000, 16_000),
    steps=(150, 150, 200, 300, 400, 500, 700, 1000, 1500, 2000),
    seeds=5,
    reordered=("global convolution", "locally connected", "tiled 2", "convolution"),
    flattened=("dense", "locally connected", "convolution"),
    shifted=("dense",),
    doublings=1,
    stop=True,
)
MNIST1D = dataclasses.replace(
    FULL,
    name="ladder_mnist1d",
    data="mnist1d",
    distances=(0,),
    margin=0,
    sizes=(100, 400, 1200, 4000),
    steps=(300, 600, 1200, 2400),
    flattened=("dense", "locally connected", "low rank 4", "tiled 2", "convolution"),
    shifted=(),
    choice=(400, 4000),
    held_out=False,
    copies=1,
)
FASHION = dataclasses.replace(
    FULL,
    name="ladder_fashion_mnist",
    data="fashion_mnist",
    distances=(6, 3, 0),
    margin=6,
    sizes=(*FULL.sizes, 32_000, 60_000),
    steps=(*FULL.steps, 3000, 4000),
    seeds=8,
    held_out=False,
    copies=1,
    batch_size=64,
    target=0.8,
)


if __name__ == "__main__":
    main(__name__, QUICK, SMOKE, short=True, full=FULL, mnist1d=MNIST1D, fashion=FASHION)
