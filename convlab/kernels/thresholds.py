"""The measured sizes at which the rule changes from one implementation to another on CPU.

`python -m experiments.tuning` measures what they lose and searches for better ones. `--write` rewrites the values below.
"""

from typing import NamedTuple


class Thresholds(NamedTuple):
    """Hold the sizes at which the rule changes its choice on CPU.

    The size of a window is its number of taps times the input channels. The size of all windows is that of all images and
    positions together. Channels are those of one group. XLA's convolution computes whatever these thresholds do not give to
    another implementation. Gradients of convolutions whose windows do not overlap, and convolutions of one tap, always multiply
    windows, unless they are depthwise.

    Attributes:
      local_min_images: The minimum number of images for computing a local layer block by block.
      local_images_per_feature: The maximum number of images per output channel for gathering all windows in the forward pass of
        a local layer and in its gradient by the kernels. The windows then take little memory beside the kernels.
      depthwise_max_multiplier: The maximum number of output channels per group of one input channel for computing one pass over
        the image per tap.
      forward_max_channels: The maximum number of input channels for multiplying windows in the forward pass.
      forward_max_window: The maximum size of a window for multiplying windows in the forward pass. It doubles for an odd number
        of input channels above 1.
      forward_min_features: The number of output channels from which XLA convolves in the forward pass, unless the number of
        input channels is odd and above 1.
      forward_min_eager: The minimum size of all windows for multiplying windows in an eager forward pass, which then pays for a
        longer compilation. The times of compiled programs cannot tune it.
      forward_max_entries: The maximum size of all windows for multiplying windows in the forward pass.
      image_min_channels: The number of input channels from which XLA convolves in the gradient by the images.
      image_min_strided: The same number with strides above 1, where XLA multiplies the zeros between the cotangents.
      image_max_entries: The maximum size of all windows, times the input channels, for multiplying windows in the gradient by
        the images.
      kernel_min_images: The number of images from which XLA may convolve in the gradient by the kernel, where it takes images
        for channels.
      kernel_max_entries: The maximum size of all windows for multiplying windows of fewer images in the gradient by the kernel.
      kernel_min_features: The minimum number of output channels for multiplying windows of more images in that gradient.
      kernel_max_channels: The maximum number of input channels for multiplying windows with any number of positions there.
      kernel_min_positions: The minimum number of output positions for multiplying windows of more channels at strides of 1.
      kernel_min_products: The minimum product of the numbers of input and output channels for multiplying windows at fewer
        positions or with strides.
    """

    local_min_images: int
    local_images_per_feature: float
    depthwise_max_multiplier: int
    forward_max_channels: int
    forward_max_window: int
    forward_min_features: int
    forward_min_eager: int
    forward_max_entries: int
    image_min_channels: int
    image_min_strided: int
    image_max_entries: int
    kernel_min_images: int
    kernel_max_entries: int
    kernel_min_features: int
    kernel_max_channels: int
    kernel_min_positions: int
    kernel_min_products: int


CPU = Thresholds(
    local_min_images=8,
    local_images_per_feature=0.5,
    depthwise_max_multiplier=8,
    forward_max_channels=7,
    forward_max_window=64,
    forward_min_features=24,
    forward_min_eager=2**16,
    forward_max_entries=2**24,
    image_min_channels=16,
    image_min_strided=64,
    image_max_entries=2**24,
    kernel_min_images=8,
    kernel_max_entries=2**24,
    kernel_min_features=32,
    kernel_max_channels=4,
    kernel_min_positions=128,
    kernel_min_products=2**11,
)
