"""Decoding of one image file, and what a data set of 8-bit gray or RGB images cannot keep of it."""

import io
import pathlib
import zlib
from typing import Any, NamedTuple

from convlab.extras import require

SUFFIXES = (".jpg", ".jpeg", ".png")
FORMATS = ("JPEG", "MPO", "PNG")  # in Pillow's terms; MPO is the JPEG of cameras that store a preview
GRAY = ("1", "L", "LA")  # modes of Pillow; all other modes of 8 bits are colour
WIDE = ("I", "F", "I;16", "I;16B", "I;16L", "I;16N")  # modes of more than 8 bits per channel
SIXTEEN = "16-bit "  # precedes the mode of 16-bit images that Pillow cuts to 8 bits
PNG = b"\x89PNG\r\n\x1a\n"
SHOWN = 5  # the largest number of names in a message
LOSSES = {  # what a conversion drops -> what happens instead
    "transparency": "transparent pixels show the colour that is stored for them; flatten the files for another background",
    "animation": "its first frame is read",
    "CMYK colours": "they are converted to RGB without a colour profile",
}


class Picture(NamedTuple):
    """One image file.

    Attributes:
      split: The split that the image belongs to.
      label: The name of its class.
      path: The path inside the folder or archive. It is empty for an entry that stands for the folder of a class.
      folder: The folder of the class as it is shown in messages.
      mode: The mode of the pixels in Pillow's terms.
      size: The height and width in pixels.
      checksum: The CRC-32 of the file.
      lost: The names of what a conversion to gray or RGB drops, in `LOSSES`.
    """

    split: str
    label: str
    path: str
    folder: str
    mode: str = ""
    size: tuple[int, int] = (0, 0)
    checksum: int = 0
    lost: tuple[str, ...] = ()

    @property
    def is_wide(self) -> bool:
        """Whether the image has more than 8 bits per channel."""
        return self.mode in WIDE or self.mode.startswith(SIXTEEN)


def decode(picture: Picture, data: bytes | Exception) -> tuple[Picture, str]:
    """Decode an image.

    Args:
      picture: The entry of the file.
      data: The contents of the file, or the exception that reading raised.

    Returns:
      The picture with mode, size, checksum and losses, and an empty text. Or the picture unchanged, and why it cannot be
      decoded.
    """
    image = require("PIL.Image")
    try:
        if isinstance(data, Exception):
            raise data
        with image.open(io.BytesIO(data)) as opened:
            reason = _refusal(image, opened)
            if reason:
                return picture, f"{picture.path} ({reason})"
            opened.load()
            mode = f"{SIXTEEN}{opened.mode}" if _is_cut(data) and opened.mode not in WIDE else opened.mode
            size = (opened.height, opened.width)
            return picture._replace(mode=mode, size=size, checksum=zlib.crc32(data), lost=_lost(opened)), ""
    except image.UnidentifiedImageError:
        return picture, f"{picture.path} (is not an image)"
    except Exception as error:  # Pillow raises exceptions of many types
        return picture, f"{picture.path} ({str(error).splitlines()[0] if str(error) else type(error).__name__})"


def _refusal(image: Any, opened: Any) -> str:
    """Return why an opened image is not decoded, or an empty text."""
    if opened.format not in FORMATS:
        return f"is {opened.format}"
    pixels, limit = opened.width * opened.height, image.MAX_IMAGE_PIXELS
    if limit is not None and pixels > limit:
        return f"has {pixels:,} pixels, above Pillow's limit PIL.Image.MAX_IMAGE_PIXELS of {limit:,}"
    return ""


def _is_cut(data: bytes) -> bool:
    """Return True for a PNG of 16 bits per channel.

    The first chunk of a PNG begins with the width, the height and the bits per channel.
    """
    return data.startswith(PNG) and data[24:25] == b"\x10"


def _lost(opened: Any) -> tuple[str, ...]:
    """Return the names of what a decoded image loses as gray or RGB."""
    lost = []
    has_alpha = "A" in opened.getbands() or "transparency" in opened.info
    if has_alpha and opened.convert("RGBA").getchannel("A").getextrema()[0] < 255:
        lost.append("transparency")
    if opened.format == "PNG" and getattr(opened, "is_animated", False):
        lost.append("animation")
    if opened.mode == "CMYK":
        lost.append("CMYK colours")
    return tuple(lost)


def is_hidden(name: str) -> bool:
    """Return True for hidden files and for the metadata in archives made by macOS."""
    return any(part.startswith((".", "__MACOSX")) and part != "." for part in pathlib.PurePosixPath(name).parts)


def some(names: list[str]) -> str:
    """Join the first names for a message. Bytes that are not UTF-8 are shown by their numbers."""
    text = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return text.encode("utf-8", "backslashreplace").decode()
