"""How the VQA challenge makes answers comparable: punctuation, numbers, articles and contractions."""

import re

PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
DIGIT_COMMA = re.compile(r"(?<=\d),+(?=\d)")
FULL_STOP = re.compile(r"\.(?!\d)")
ARTICLES = ("a", "an", "the")
NUMBERS = {
    "none": "0",
    "zero": "0",
    "one": "1",
    "two": "2",
    "three": "3",
    "four": "4",
    "five": "5",
    "six": "6",
    "seven": "7",
    "eight": "8",
    "nine": "9",
    "ten": "10",
}
CONTRACTED = """
ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't hadn't've hasn't haven't he'd
he'd've he's how'd how'll how's isn't it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've
needn't not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've somebody'd've
somebody'll somebody's someone'd someone'd've someone'll someone's something'd something'd've something'll
that's there'd there'd've there're there's they'd they'd've they'll they're they've 'twas wasn't we'd've we've
weren't what'll what're what's what've when's where'd where's where've who'd who'd've who'll who's who've
why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll y'all'd've you'd you'd've you'll you're
you've
"""


def _misspelt(word: str) -> list[str]:
    """The word without one of its apostrophes.

    >>> _misspelt("he'd've")
    ["hed've", "he'dve"]
    """
    return [word[:place] + word[place + 1 :] for place, letter in enumerate(word) if letter == "'"]


CONTRACTIONS = {wrong: word for word in CONTRACTED.split() for wrong in _misspelt(word)} | {"somebody'd": "somebodyd"}
"""What is written wrongly -> the contraction. The last one is the challenge's own slip, kept for equal scores."""


def plain_answer(text: str) -> str:
    """Return an answer as VQAv2's evaluation compares it.

    >>> plain_answer("The  two-story house."), plain_answer("1,000"), plain_answer("dont"), plain_answer("$2.50")
    ('2 story house', '1000', "don't", '$2.50')
    """
    words = without_punctuation(" ".join(text.split())).lower().split()
    plain = [NUMBERS.get(word, word) for word in words]
    return " ".join(CONTRACTIONS.get(word, word) for word in plain if word not in ARTICLES)


def plain_tokens(text: str) -> str:
    """Return an answer as TextVQA's evaluation compares it: commas and question marks go, `'s` stands apart.

    >>> plain_tokens("Wendy's, NY?")
    "wendy 's ny"
    """
    return plain_answer(text.lower().replace(",", "").replace("?", "").replace("'s", " 's"))


def without_punctuation(text: str) -> str:
    """Return a text without punctuation; a mark between letters becomes a space.

    >>> without_punctuation("left/right"), without_punctuation("left / right"), without_punctuation("3.5 m.")
    ('left right', 'left  right', '3.5 m')
    """
    has_digit_comma = DIGIT_COMMA.search(text) is not None
    result = text
    for mark in PUNCTUATION:
        is_apart = has_digit_comma or f"{mark} " in text or f" {mark}" in text
        result = result.replace(mark, "" if is_apart else " ")
    return FULL_STOP.sub("", result)
