"""PyTorch's layers and training steps, for the benchmarks if PyTorch is installed."""

import importlib.util
import math
import os
import types
from collections.abc import Callable, Iterator
from typing import Any

from experiments.parts.implementations import UNIT
from experiments.parts.rivals import MOMENTUM, NETWORKS, RATE, Network, layers, noise
from experiments.parts.rooflines import Shape
from experiments.shared.stopwatch import Contender


def installed() -> bool:
    """Return True if PyTorch is installed."""
    return importlib.util.find_spec("torch") is not None


def leave_out(name: str, error: Exception) -> None:
    """Print that a contender of PyTorch cannot run. (torch.compile needs a C++ compiler.)"""
    print(f"{name} is left out: {str(error).splitlines()[0]}")


def layer_contenders(shape: Shape, compile_too: bool) -> Iterator[Contender]:
    """Yield PyTorch's convolution, and a locally connected layer in two common forms."""
    import torch  # pyright: ignore[reportMissingImports]
    from torch.nn import functional  # pyright: ignore[reportMissingImports]

    n, side, c, d, k = shape
    x = torch.randn(n, c, side, side, requires_grad=True)
    shared = torch.randn(d, c, k, k, requires_grad=True)
    local = torch.randn(side * side, c * k * k, d, requires_grad=True)

    def einsum(x: Any, v: Any) -> Any:
        return torch.einsum("nap,pad->npd", functional.unfold(x, k, padding=k // 2), v)

    def product(x: Any, v: Any) -> Any:
        return torch.bmm(functional.unfold(x, k, padding=k // 2).permute(2, 0, 1), v)

    forms = {
        "conv, torch": (lambda x, v: functional.conv2d(x, v, padding=k // 2), shared),
        "local, torch einsum": (einsum, local),
        "local, torch bmm": (product, local),
    }
    if compile_too:
        forms |= {f"{name}, compiled": (call, v) for name, (call, v) in forms.items() if "local" in name}
    for name, (call, v) in forms.items():
        try:
            call = torch.compile(call) if "compiled" in name else call
            g = torch.randn_like(call(x, v))
        except Exception as error:
            leave_out(name, error)
            continue
        labels = {"name": name, "unit": UNIT, "weights": v.numel(), "convolutions": 1}

        def forward(call: Any = call, v: Any = v) -> None:
            with torch.no_grad():
                call(x, v)

        def both(call: Any = call, v: Any = v, g: Any = g) -> None:
            x.grad = v.grad = None
            call(x, v).backward(g)

        yield Contender({**labels, "step": "forward"}, forward)
        yield Contender({**labels, "step": "both"}, both)


def case_call(case: Any, x: Any, v: Any) -> Callable[[], None]:
    """Return a function that runs a reported convolution once.

    Args:
      case: The case, as in `slow_cases`.
      x: The images, with channels last.
      v: The kernel, with channels last. A transposed convolution has the kernel of the convolution.
    """
    import numpy as np
    import torch  # pyright: ignore[reportMissingImports]
    from torch.nn import functional  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(os.cpu_count() or 1)
    ndim, dtype = len(case.pixels), getattr(torch, case.dtype)
    images = torch.tensor(np.asarray(x, np.float64)).movedim(-1, 1).to(dtype).contiguous()
    kernel = torch.tensor(np.asarray(v, np.float64)).movedim((-1, -2), (0, 1)).to(dtype).contiguous()
    kernel.requires_grad_(case.step == "gradient")
    name = f"conv_transpose{ndim}d" if case.transposed else f"conv{ndim}d"
    reach = [case.dilation * (taps - 1) for taps in case.taps]
    options: dict[str, Any] = {"stride": case.stride, "groups": case.groups, "dilation": case.dilation}
    if case.transposed:
        options |= {"padding": [low for low, _ in case.pads], "output_padding": [low - high for low, high in case.pads]}
    elif case.padding == "SAME":  # PyTorch pads both sides alike: of even kernels it computes one more output
        options["padding"] = [(size + 1) // 2 for size in reach]

    def repeated() -> Any:
        h = images
        for _ in range(case.calls):
            h = getattr(functional, name)(h, kernel, **options)
        return h

    def call() -> None:
        if case.step == "gradient":
            kernel.grad = None
            repeated().float().mean().backward()
        else:
            with torch.no_grad():
                repeated()

    return call


def model_of(network: Network) -> Any:
    """Build a network of PyTorch's layers."""
    from torch import nn  # pyright: ignore[reportMissingImports]

    library = types.SimpleNamespace(
        conv=lambda c, d, size, padding: nn.Conv2d(c, d, size, padding=size // 2 if padding == "SAME" else 0),
        norm=nn.BatchNorm2d,
        relu=nn.ReLU,
        tanh=nn.Tanh,
        pool=lambda: nn.MaxPool2d(2),
        flatten=nn.Flatten,
        dense=nn.Linear,
    )
    return nn.Sequential(*layers(network, library))


def network_contenders(name: str, steps: int, compile_too: bool) -> list[Contender]:
    """Return PyTorch's steps of a network, eager and compiled, with channels first and last."""
    forms = [(layout, mode) for mode in ("eager", "compiled")[: 1 + compile_too] for layout in ("", ", channels last")]
    made = []
    for layout, mode in forms:
        call = training_steps(NETWORKS[name], steps, mode == "compiled", bool(layout))
        try:
            call()
        except Exception as error:
            leave_out(f"PyTorch {mode}{layout}", error)
            continue
        made.append(Contender({"contender": f"PyTorch {mode}{layout}"}, call, steps))
    return made


def training_steps(network: Network, steps: int, compiled: bool, channels_last: bool) -> Callable[[], None]:
    """Return a function that runs some of PyTorch's steps on one batch and waits."""
    import torch  # pyright: ignore[reportMissingImports]

    torch.set_num_threads(os.cpu_count() or 1)  # as many as XLA has
    images, labels = noise(network, network.batch)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    model = model_of(network).to(memory_format=layout)
    x, y = torch.tensor(images).permute(0, 3, 1, 2).contiguous(memory_format=layout), torch.tensor(labels).long()
    optimizer = torch.optim.SGD(model.parameters(), lr=RATE, momentum=MOMENTUM)
    forward: Callable = torch.compile(model) if compiled else model

    def call() -> None:
        loss = torch.zeros(())
        for _ in range(steps):
            optimizer.zero_grad()
            loss = torch.nn.functional.cross_entropy(forward(x), y)
            loss.backward()
            optimizer.step()
        assert math.isfinite(loss.item())

    return call
