"""Images as data URIs, and parts of messages."""

import base64
import io

from PIL import Image


def png(colour="red", size=(40, 32), image_format="PNG"):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, image_format)
    return stream.getvalue()


def uri(data, kind="image/png"):
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def image_part(url):
    return {"type": "image_url", "image_url": {"url": url}}


def text_part(text):
    return {"type": "text", "text": text}


def user(content):
    return {"role": "user", "content": content}
