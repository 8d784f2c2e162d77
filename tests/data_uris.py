"""Images as data URIs, and parts of messages."""

import base64
import io
import struct
import zlib

from PIL import Image


def png(colour="red", size=(40, 32), image_format="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, image_format)
    return stream.getvalue()


def png_head(width, height):
    """A PNG of 60 bytes that claims any size."""
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0")
    chunks = [struct.pack(">I", len(each) - 4) + each + struct.pack(">I", zlib.crc32(each)) for each in (body, data)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def uri(data, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image_part(url):
    return {"type": "image_url", "image_url": {"url": url}}


def text_part(text):
    return {"type": "text", "text": text}


def user(content):
    return {"role": "user", "content": content}
