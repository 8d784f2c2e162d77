"""Whether a text mentions a name: any name, of one word or several, in any script, an emoji too.

Unlike the normalized words of `evaluate/metrics`, no character of a name is dropped.
"""

import re
import unicodedata

_NO_SPACES = re.compile(r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
"""Scripts that put no space between words: Thai, Lao, kana, Chinese characters."""


def mentions(text: str, name: str, *, any_case: bool = True) -> bool:
    """Whether the name stands in the text as whole words; in scripts without spaces, whether it stands there at all.

    >>> mentions("I'm ANN.", "Ann"), mentions("An annual report", "Ann"), mentions("我是小智。", "小智")
    (True, False, True)
    >>> mentions("eat an apple", "Apple", any_case=False)
    False
    """
    text, name = (" ".join(unicodedata.normalize("NFKC", each).split()) for each in (text, name))
    if any_case:
        text, name = text.casefold(), name.casefold()
    before = r"(?<!\w)" if _is_in_a_word(name[:1]) else ""
    after = r"(?!\w)" if _is_in_a_word(name[-1:]) else ""
    if _NO_SPACES.search(text):  # a Latin name may touch Chinese characters: 我是Ann。
        before, after = (edge.replace(r"\w", r"[^\W\u0e00-\U0003ffff]") for edge in (before, after))
    return bool(name) and re.search(before + re.escape(name) + after, text) is not None


def _is_in_a_word(character: str) -> bool:
    return bool(re.match(r"\w", character)) and not _NO_SPACES.match(character)
