"""Texts of models, people and files as they are shown: nothing in them steers a terminal, long ones are cut.

How they become Markdown: `markdown.py`.
"""

_PICTURES = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"} | {0x7F: 0x2421}
_PICTURES |= dict.fromkeys((*range(0x80, 0xA0), *range(0x202A, 0x202F), *range(0x2066, 0x206A)), 0xFFFD)
"""Control characters, also those that turn the direction of what follows -> what shows that one was there."""


def printable(text: str) -> str:
    r"""Return a text with pictures in place of control characters: it may hold any.

    >>> printable("\x1b[31mred\n")
    '␛[31mred\n'
    """
    return text.translate(_PICTURES)


def shortened(text: str, limit: int) -> str:
    r"""Return a text as one line of at most `limit` characters, and three dots where it was longer.

    >>> shortened("one\n  two three", 7)
    'one two...'
    """
    line = " ".join(text.split())
    return line if len(line) <= limit else f"{line[:limit]}..."
