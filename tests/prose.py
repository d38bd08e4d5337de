"""The rules of language, for tests of pages and of docstrings."""

import re

# What not to write, and what to write in its place.
WORDS = {
    r"pictures?|crops": "image",
    r"(?<!augmented )views?": "augmented view",
    r"showings?": "augmented view, or image",
    r"networks?": "classifier",
    r"answers?|what it says": "prediction",
    r"of before|of the moment|anew|by now|an earlier run": "original, current",
    r"tells?|told|says in words|smells?": "reports, warns, prints",
    r"varied": "augmented",
    r"random signs": "random noise",
    r"defends?|defences?|defended|undefended": "harden",
    r"figures": "results",
    r"(?<!model )(?<!model-)passes(?! through)": "model passes, epochs",
    r"xi|kappa|eps": "epsilon, confidence",
    r"(?-i:l-infinity|linf)": "L-infinity",
    r"data sets?": "dataset",
    r"mend|leave away|in earnest|trials?": "fix, omit, for real use",
}


def prose(text):
    """A page without its code, pictures, addresses, comments and marks."""
    text = re.sub(r"^(```+|:::+).*?^\1$", "", text, flags=re.M | re.S)
    text = re.sub(r"<!--.*?-->|<[^>]+>|^\(.*\)=$", "", text, flags=re.M | re.S)
    text = re.sub(r"!\[.*?\]\(.*?\)", "", text, flags=re.S)
    text = re.sub(r"\]\([^)]*\)", "]", text)
    text = re.sub(r"\{[\w:]+\}", "", text)
    return re.sub(r"`[^`]*`", "CODE", text)


def sentences(text):
    """The sentences of the paragraphs and lists, without tables."""
    lines = [
        # A heading or a row of a table ends a paragraph, a list begins one.
        "" if re.match(r"[#|]", line) else re.sub(r"^ *(-|\d\.) ", "\n", line)
        for line in prose(text).splitlines()
    ]
    for block in re.split(r"\n\s*\n", "\n".join(lines)):
        for sentence in re.split(r"(?<=[.!?:;])[*_]*\s+", block.strip()):
            if sentence:
                yield " ".join(sentence.split())


def numbers(sentence):
    """The numbers of a sentence; years and the level of an interval are not."""
    sentence = re.sub(r"\b(19|20)\d\d\b|95% interval", "", sentence)
    return re.findall(r"(?<![\w.-])\d[\d,.]*\d|(?<![\w.-])\d", sentence)


def wrong_words(text):
    """Pairs of a wrong word, with what is around it, and the right one."""
    text = " ".join(prose(text).split())
    for words, better in WORDS.items():
        for match in re.finditer(rf"\b(?:{words})\b", text, re.I):
            place = text[max(0, match.start() - 30) : match.end() + 20]
            yield match[0].lower(), f"{place!r}: write {better}"
