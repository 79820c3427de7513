"""The measured sizes at which the rule changes from one implementation to another on CPU.

`python -m experiments.tuning --write` measures them and rewrites the values below.
"""

from typing import NamedTuple


class Thresholds(NamedTuple):
    """Hold the sizes at which the rule changes its choice on CPU.

    A window has as many numbers as its taps have input channels. The gathered windows are those of all images and positions.
    Channels are counted in one group.

    Attributes:
      local_fewest_images: The fewest images for which overlapping windows of a local layer are gathered block by block.
      local_images_per_feature: The most images per output channel for which a local layer and its gradient by the kernels
        gather all windows. These then take little memory beside the kernels.
      depthwise_most_multiplier: The most output channels per group of one input channel for which every tap is one pass over
        the image.
      forward_most_channels: The most input channels for which a convolution is a matrix product of gathered windows.
      forward_most_window: The most numbers of a window for which it is. With 3, 5 or 7 channels there may be twice as many.
      forward_fewest_features: The fewest output channels for which XLA computes a convolution of 1, 2, 4 or 6 channels.
      forward_fewest_eager: The fewest numbers of gathered windows for which an eager call gains from the longer compilation of
        that product. It cannot be tuned by the times of compiled programs.
      forward_most_entries: The most numbers of gathered windows for which a convolution is a product of them.
      image_fewest_channels: The fewest input channels for which XLA's convolution computes the gradient by the images.
      image_fewest_strided: The same with strides above 1, where XLA multiplies the zeros between the cotangents.
      image_most_entries: The most numbers of gathered windows, times the input channels, for which that gradient is a product
        with windows.
      kernel_fewest_images: The fewest images for which XLA's convolution, which takes them for channels, may compute the
        gradient by the kernel. With fewer, it is a product with windows.
      kernel_fewest_features: The fewest output channels for which it is such a product with more images.
      kernel_most_channels: The most input channels for which it is, whatever the number of positions.
      kernel_fewest_positions: The fewest output positions for which it is, with strides of 1.
      kernel_fewest_products: The fewest products of input and output channels for which it is, with more input channels
        and fewer positions.
    """

    local_fewest_images: int
    local_images_per_feature: float
    depthwise_most_multiplier: int
    forward_most_channels: int
    forward_most_window: int
    forward_fewest_features: int
    forward_fewest_eager: int
    forward_most_entries: int
    image_fewest_channels: int
    image_fewest_strided: int
    image_most_entries: int
    kernel_fewest_images: int
    kernel_fewest_features: int
    kernel_most_channels: int
    kernel_fewest_positions: int
    kernel_fewest_products: int


CPU = Thresholds(
    local_fewest_images=8,
    local_images_per_feature=0.5,
    depthwise_most_multiplier=8,
    forward_most_channels=7,
    forward_most_window=64,
    forward_fewest_features=24,
    forward_fewest_eager=2**16,
    forward_most_entries=2**24,
    image_fewest_channels=16,
    image_fewest_strided=64,
    image_most_entries=2**24,
    kernel_fewest_images=8,
    kernel_fewest_features=32,
    kernel_most_channels=4,
    kernel_fewest_positions=128,
    kernel_fewest_products=2**11,
)
