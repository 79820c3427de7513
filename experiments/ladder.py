"""How many more examples does a network need without weight sharing, and when does sharing not help?

Small images are placed at random on a larger canvas, up to T pixels from its centre along both axes, that is at (2T + 1)^2
places. The network has three 3x3 layers with batch norm, max pooling, the mean of every channel and a linear read-out. It is
trained with its layers on every rung, on sets of growing size. All rungs of one seed see the same images.

Controls: a single place (T = 0), the same pixels in one random order (dashed), and a linear classifier. With --full there are
also a read-out of all pixels, and a dense network whose centred images are shifted at random in training. Linear and dense
networks have no dashed line. If their initial weights are reordered like the pixels, they learn the same function.

Predictions, written before the first run, for the number of examples needed to classify 90 % of the test images correctly, as a
function of the number of places:

- Dense and locally connected networks: proportional to it (exponent about 1).
- Convolution and global convolution: the same everywhere (exponent about 0).
- Tiles of period p: the need of the convolution times min(places, p^2).
- Rank 4: between convolution and locally connected.
- At a single place every rung needs as many examples as the convolution (price 1).

Answer: at 81 places the convolution classifies 90 % correctly with 453 training images. The dense network needs 13 times as
many, locally connected kernels 15 times, and tiles of period two 4.5 times. At one place no rung is shown to need more or fewer
than the convolution. As predicted, the needs of dense and locally connected networks grow about in proportion to the number of
places. Their exponents are 0.94 [0.87, 1.01] and 0.95 [0.89, 1.02]. The needs of both convolutions were predicted to stay the
same. The convolution's nearly trebles from one place to nine and then hardly grows, and the global convolution's grows
throughout. Tiles need fewer examples than predicted, except period two at 81 places. Rank four lies between convolution and
locally connected at 81 places. At other numbers of places it is not shown to differ from locally connected.

    python -m experiments.ladder                         (digits on 16x16 pixels at three sizes)
    python -m experiments.ladder --full --distances 4    (ten sizes, five seeds, rates chosen on validation images)
    python -m experiments.ladder --full                  (the same at four distances, reusing the runs above)
    python -m experiments.ladder --mnist1d               (signals whose places vary already, with both read-outs)
    python -m experiments.ladder --fashion               (Fashion-MNIST on 40x40 pixels, sized for a GPU, not run yet)

Finished runs are kept in ROOT/ladder_runs. An interrupted run continues, and --distances 4 runs only that distance.
"""

import dataclasses

from experiments.parts.ladder_figure import draw as draw
from experiments.parts.ladder_runs import run as run
from experiments.parts.ladder_table import FORMATS as FORMATS
from experiments.parts.ladder_table import PRINTED as PRINTED
from experiments.parts.ladder_table import table as table
from experiments.parts.sizes import RUNGS, Sizes
from experiments.shared.command import main

Config = Sizes
CHOSEN = tuple((dict.fromkeys(RUNGS, 1e-2) | {"dense": 3e-3, "convolution": 3e-2}).items())  # the full run's choice at T = 4

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
